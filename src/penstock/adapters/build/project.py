"""Reads a Python project: what it needs, what its tests need, and how it starts. Runs nothing of it.

Called by `python` and `tools`. Everything read here was written by strangers: a mistake in it is
`Invalid`, naming the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from penstock.adapters.build.common import Start, declared, read_text
from penstock.config import FILE, ServiceConfig
from penstock.core.codec import Json
from penstock.errors import Invalid

ENTRY_FILES = ("app.py", "main.py", "server.py")
DEV_FILES = ("requirements-dev.txt", "dev-requirements.txt", "requirements/dev.txt", "requirements-test.txt")
DEV_GROUPS = ("dev", "test", "tests")
SCRIPT = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*)*)")
INCLUDE = re.compile(r"^(?:-r|--requirement|-c|--constraint)(?:\s+|=)(.+)$")
ITSELF = re.compile(r"^(?:(?:-e|--editable)(?:\s+|=))?\.(?:\[[^]]*\])?/?$")
INDEX = re.compile(r"^(?:-i|-f|--index-url|--extra-index-url|--find-links)\b")


@dataclass(frozen=True)
class Requirements:
    """Requirement lines as a requirements file has them, includes resolved, and constraint lines."""

    lines: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(not INDEX.match(line) for line in self.lines)

    def __add__(self, other: Requirements) -> Requirements:
        return Requirements(
            tuple(dict.fromkeys(self.lines + other.lines)),
            tuple(dict.fromkeys(self.constraints + other.constraints)),
        )

    @property
    def names_an_index(self) -> bool:
        return any(INDEX.match(line) for line in self.lines)

    def name(self, package: str) -> bool:
        """Whether one of the lines asks for *package*."""
        return any(re.match(rf"{re.escape(package)}(?![\w.-])", line, re.IGNORECASE) for line in self.lines)


@dataclass(frozen=True)
class Project:
    """*build_requires* is None if the project is not a package that can be built and installed."""

    requires: Requirements
    dev_requires: Requirements
    build_requires: Requirements | None
    start: Start | None


def is_python(tree: Path) -> bool:
    """Whether the tree looks like a Python project at all."""
    named = any((tree / name).is_file() for name in ("requirements.txt", "pyproject.toml", *DEV_FILES))
    return named or any(tree.glob("*.py")) or any(tree.glob("*/__main__.py"))


def read_project(tree: Path, config: ServiceConfig) -> Project:
    """The project in *tree*. Where a start command cannot be chosen, `Invalid` says between which."""
    toml = _toml(tree)
    about = _table(toml, "project")
    runtime = (
        _from_file(tree, "requirements.txt") if (tree / "requirements.txt").is_file() else Requirements()
    )
    runtime += Requirements(_texts(about.get("dependencies", []), "project.dependencies"))
    build = _table(toml, "build-system")
    packaged = Requirements(_texts(build.get("requires", []), "build-system.requires"))
    return Project(
        requires=runtime,
        dev_requires=_dev(tree, toml),
        build_requires=packaged if build and about else None,
        start=declared(tree, config) or _script(about, config) or _entry_file(tree),
    )


def _script(about: Json, config: ServiceConfig) -> Start | None:
    scripts = _table(about, "scripts")
    if not scripts:
        return None
    name = config.service if config.service in scripts else next(iter(scripts))
    if len(scripts) > 1 and name != config.service:
        raise Invalid(
            f"[project.scripts] has several: {', '.join(map(str, scripts))}",
            where="pyproject.toml",
            next_move=f"say which one serves: run: in {FILE}",
        )
    match = SCRIPT.fullmatch(str(scripts[name]).strip())
    if match is None:
        raise Invalid(f"not a function: {scripts[name]!r}", where=f"pyproject.toml: project.scripts.{name}")
    module, function, rest = match.groups()
    code = f"import sys; from {module} import {function}; sys.exit({function}{rest}())"
    return Start(("python3", "-c", code), f"[project.scripts] {name}")


def _entry_file(tree: Path) -> Start | None:
    found = [name for name in ENTRY_FILES if (tree / name).is_file()]
    return Start(("python3", found[0]), found[0]) if found else None


def _dev(tree: Path, toml: Json) -> Requirements:
    found = Requirements()
    for name in DEV_FILES:
        if (tree / name).is_file():
            found += _from_file(tree, name)
    groups = _table(toml, "dependency-groups")
    extras = _table(_table(toml, "project"), "optional-dependencies")
    for name in DEV_GROUPS:
        found += Requirements(_group(groups, name, ()))
        found += Requirements(_texts(extras.get(name, []), f"project.optional-dependencies.{name}"))
    return found


def _group(groups: Json, name: str, above: tuple[str, ...]) -> tuple[str, ...]:
    where = f"pyproject.toml: dependency-groups.{name}"
    if name in above:
        raise Invalid("the group includes itself", where=where)
    lines: list[str] = []
    entries = groups.get(name, [])
    for entry in entries if isinstance(entries, list) else [entries]:
        if isinstance(entry, dict) and isinstance(entry.get("include-group"), str):
            lines.extend(_group(groups, entry["include-group"], (*above, name)))
        elif isinstance(entry, str):
            lines.extend(_plain([entry]))
        else:
            raise Invalid(f"not a requirement: {entry!r}", where=where)
    return tuple(lines)


def _from_file(tree: Path, name: str, above: tuple[str, ...] = ()) -> Requirements:
    """A requirements file with its includes. One outside the tree, or including itself, is `Invalid`."""
    path = (tree / name).resolve()
    if name in above or not path.is_relative_to(tree.resolve()):
        raise Invalid("includes itself" if name in above else "lies outside the repository", where=name)
    found = Requirements()
    text = re.sub(r"\\\r?\n", " ", read_text(tree, name))
    for line in _plain(text.splitlines()):
        include = INCLUDE.match(line)
        if include is None:
            found += Requirements((line,))
            continue
        inner = _from_file(tree, (Path(name).parent / include[1].strip()).as_posix(), (*above, name))
        constrains = line.startswith(("-c", "--constraint"))
        found += Requirements((), inner.lines + inner.constraints) if constrains else inner
    return found


def _plain(lines: Iterable[str]) -> list[str]:
    """Without comments and blank lines, and without the project itself, which is installed separately."""
    bare = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in lines)
    return [line for line in bare if line and not ITSELF.match(line)]


def _toml(tree: Path) -> Json:
    path = tree / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(read_text(tree, path.name))
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise Invalid(f"not valid TOML: {error}", where="pyproject.toml") from error


def _table(value: Json, name: str) -> Json:
    found = value.get(name, {})
    if not isinstance(found, dict):
        raise Invalid(f"{name} must be a table", where="pyproject.toml")
    return found


def _texts(value: Json, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and "\n" not in item for item in value):
        raise Invalid("must be a list of requirements", where=f"pyproject.toml: {where}")
    return tuple(_plain(value))
