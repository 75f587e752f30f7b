"""The rules of the house that no linter knows: sizes, pure core, docstrings, links, locks, entry points.

Each rule is a function of a file's text that returns complaints, so that it can be shown to fail on a bad
sample. An exception is listed by name in `EXCEPTIONS`, with its reason, and must still be needed.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import sys
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"

FILE_LINES = 400
FUNCTION_LINES = 50
PARAMETERS = 6
PORT_METHODS = 5

#: What may break a budget, as its complaint begins ("path", "path: name", "path: name: 7 parameters"), why.
EXCEPTIONS = {
    "src/penstock/ports.py": "every socket in one file, which is what a newcomer reads first",
    "src/penstock/checks/acceptance.py: perform: 7 parameters": "a check's powers are parameters",
}

#: Third-party packages that pure code may use.
PURE = {"penstock.core": {"rfc8785"}, "penstock.errors": set[str](), "penstock.analysis": {"numpy", "scipy"}}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def long_file(name: str, text: str) -> list[str]:
    lines = len(text.splitlines())
    return [f"{name}: {lines} lines, the budget is below {FILE_LINES}"] if lines >= FILE_LINES else []


def big_functions(name: str, text: str) -> list[str]:
    found = []
    for function in functions(ast.parse(text)):
        lines = own_lines(function)
        if lines > FUNCTION_LINES:
            found.append(f"{name}: {function.name}: {lines} lines, at most {FUNCTION_LINES}")
        count = len(parameters(function))
        if count > PARAMETERS:
            found.append(f"{name}: {function.name}: {count} parameters, at most {PARAMETERS}")
    return found


def own_lines(function: Function) -> int:
    """Without the functions within, which are measured by themselves (routes inside a factory)."""
    inner = [node for node in function.body if isinstance(node, Function)]
    return length(function) - sum(length(node) for node in inner)


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> list[str]:
    """Every parameter but the instance: what a caller has to think of."""
    a = function.args
    every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(extra for extra in (a.vararg, a.kwarg) if extra)]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def wide_ports(name: str, text: str) -> list[str]:
    found = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases):
            methods = [part.name for part in node.body if isinstance(part, Function)]
            if len(methods) > PORT_METHODS:
                found.append(f"{name}: {node.name}: {len(methods)} methods, at most {PORT_METHODS}")
    return found


def undocumented(name: str, text: str) -> list[str]:
    """An empty ``__init__.py`` has nothing to say; every other module does."""
    return [f"{name}: no module docstring"] if text.strip() and not ast.get_docstring(ast.parse(text)) else []


def unfinished(name: str, text: str) -> list[str]:
    return [
        f"{name}:{number}: {match[0]}: finish it, or write it down where plans are kept"
        for number, line in enumerate(text.splitlines(), 1)
        if (match := re.search(r"\b(TODO|FIXME|XXX)\b", line))
    ]


def impure_imports(name: str, text: str, allowed: set[str]) -> list[str]:
    """Third-party imports beyond *allowed*. I/O modules of the standard library are import-linter's."""
    known = sys.stdlib_module_names | {"penstock"} | allowed
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            continue
        found += [f"{name}: imports {m}" for m in modules if m.partition(".")[0] not in known]
    return found


def lost_modules(name: str, text: str, modules: Collection[str]) -> list[str]:
    """References such as `core.decide` to modules of ours that are not there."""
    packages = {module.partition(".")[0] for module in modules if "." in module}
    named = dict.fromkeys(re.findall(r"(?<!`)`([a-z]+\.[a-z_]+)(?:\.\w+)?`(?!`)", text))
    lost = [one for one in named if one.partition(".")[0] in packages and one not in modules]
    return [f"{name}: no module {one}" for one in lost]


def links(page: Path) -> list[str]:
    """The relative links of a Markdown page, outside its blocks of code."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(<?([^)\s>]+)", text)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def lost_pages(index: Path) -> list[str]:
    """The files beside and below *index* that no reader comes to who begins there and follows links."""
    folder = index.parent.resolve()
    to_read, seen = [index.resolve()], {index.resolve()}
    while to_read:
        page = to_read.pop()
        goals = {(page.parent / target.partition("#")[0]).resolve() for target in links(page)}
        new = {goal for goal in goals - seen if goal.is_relative_to(folder) and goal.is_file()}
        seen |= new
        to_read += [goal for goal in new if goal.suffix == ".md"]
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return [f"{file.relative_to(folder)}: no page leads there" for file in files if file not in seen]


def dead_links(page: Path) -> list[str]:
    """Relative links of a Markdown page that lead to no file, or to no heading in it."""
    found = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        goal = page.parent / path if path else page
        if not goal.exists():
            found.append(f"{page.name}: no such file: {target}")
        elif anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text(encoding="utf-8")):
            found.append(f"{page.name}: no such heading: {target}")
    return found


def anchors(text: str) -> set[str]:
    """The names that readers of Markdown give to headings."""
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def pinned(text: str) -> dict[str, str]:
    """Name → version of a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, flags=re.MULTILINE))


def excused(complaints: list[str]) -> list[str]:
    return [c for c in complaints if not any(_is_about(c, name) for name in EXCEPTIONS)]


def _is_about(complaint: str, name: str) -> bool:
    """Whether it is this one, up to the end of a part of it."""
    return complaint.startswith((f"{name}: ", f"{name}, "))


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def pages() -> list[Path]:
    folders = (ROOT / "docs", ROOT / "examples")
    return [*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))]


@functools.cache
def budget_complaints() -> list[str]:
    found = [c for name, text in sources("src", "tests", "benchmarks") for c in long_file(name, text)]
    found += [c for name, text in sources("src", "benchmarks") for c in big_functions(name, text)]
    return found + wide_ports("src/penstock/ports.py", (SRC / "penstock/ports.py").read_text())


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_everything_keeps_its_budget() -> None:
    assert excused(budget_complaints()) == []


def test_every_exception_is_still_needed() -> None:
    found = budget_complaints()
    assert [name for name in EXCEPTIONS if not any(_is_about(c, name) for c in found)] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [c for name, text in sources("src", "benchmarks") for c in undocumented(name, text)] == []


def test_nothing_is_left_half_done() -> None:
    assert [c for name, text in sources("src", "benchmarks") for c in unfinished(name, text)] == []


def test_modules_that_are_named_are_there() -> None:
    paths = [path.relative_to(SRC / "penstock") for path in (SRC / "penstock").rglob("*.py")]
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths}
    assert [c for name, text in sources("src") for c in lost_modules(name, text, modules)] == []


def test_pure_code_has_no_third_party_clients() -> None:
    found = []
    for name, text in sources("src"):
        module = name.removeprefix("src/").removesuffix(".py").replace("/", ".")
        for package, allowed in PURE.items():
            if module == package or module.startswith(f"{package}."):
                found += impure_imports(name, text, allowed)
    assert found == []


def test_links_between_pages_lead_somewhere() -> None:
    assert [c for page in pages() for c in dead_links(page)] == []


def test_every_file_of_the_documentation_can_be_found_from_its_index() -> None:
    assert lost_pages(ROOT / "docs/README.md") == []


@pytest.mark.parametrize("lock", ["runtime", "dev", "image", "oracle", "fuzz"])
def test_a_lock_has_a_hash_for_everything_and_no_address(lock: str) -> None:
    text = (ROOT / f"requirements/{lock}.txt").read_text()
    packages = re.split(r"\n(?=[a-z])", text)
    assert [package.splitlines()[0] for package in packages if "--hash=sha256:" not in package] == []
    assert "://" not in text
    assert "index-url" not in text


def test_the_two_locks_agree() -> None:
    runtime, dev = (pinned((ROOT / f"requirements/{name}.txt").read_text()) for name in ("runtime", "dev"))
    assert runtime
    assert {name: version for name, version in runtime.items() if dev.get(name) != version} == {}


def entry_points() -> list[str]:
    groups = project()["project"]["entry-points"]
    return [target for group in groups.values() for target in group.values()]


@pytest.mark.parametrize("target", [*entry_points(), *project()["project"]["scripts"].values()])
def test_an_entry_point_leads_to_something(target: str) -> None:
    module, _, name = target.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("package", ["adapters", "actions"])
def test_siblings_that_must_not_know_one_another_are_all_listed(package: str) -> None:
    names = {path.stem for path in (SRC / "penstock" / package).iterdir() if path.stem.isidentifier()}
    public = {f"penstock.{package}.{name}" for name in names if not name.startswith("_")}
    assert public
    contracts = project()["tool"]["importlinter"]["contracts"]
    listed = [set(contract["modules"]) for contract in contracts if contract["type"] == "independence"]
    assert public in listed


BAD_SAMPLE = "\n".join(
    [
        "import httpx",
        "from socket import socket",
        "from acme.client import Client",
        "def wide(self, a, b, c, d, /, e, *rest, f, **more): ...  # TODO",
        "async def long():",
        *["    ..."] * FUNCTION_LINES,
        "class Wide(Protocol):",
        *[f"    def m{number}(self): ..." for number in range(PORT_METHODS + 1)],
    ]
)


def test_the_rules_can_fail() -> None:
    """A checker that finds nothing in bad code would also find nothing in ours."""
    assert len(long_file("bad.py", "x\n" * FILE_LINES)) == 1
    assert big_functions("bad.py", BAD_SAMPLE) == [
        "bad.py: wide: 8 parameters, at most 6",
        "bad.py: long: 51 lines, at most 50",
    ]
    assert wide_ports("bad.py", BAD_SAMPLE) == ["bad.py: Wide: 6 methods, at most 5"]
    assert undocumented("bad.py", BAD_SAMPLE) == ["bad.py: no module docstring"]
    assert len(unfinished("bad.py", BAD_SAMPLE)) == 1
    named = "`core.gone.it` `core.here` `x.y` ``core.other``"
    assert lost_modules("bad.py", named, {"core.here"}) == ["bad.py: no module core.gone"]
    assert impure_imports("bad.py", BAD_SAMPLE, set()) == [
        "bad.py: imports httpx",
        "bad.py: imports acme.client",
    ]
    assert impure_imports("bad.py", BAD_SAMPLE, {"httpx", "acme"}) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# The *one* heading\n[a](#the-one-heading) [b](#two) [c](gone.md) [d](https://example.org)\n"
    )
    assert dead_links(page) == ["page.md: no such heading: #two", "page.md: no such file: gone.md"]


def test_a_page_that_no_page_leads_to_is_found(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("[a](a.md#top) [out](../elsewhere.md)\n```\n[lost](lost.md)\n```\n")
    (tmp_path / "a.md").write_text("# Top\n[b](below/b.md)\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below/b.md").write_text("[a](../a.md)\n")
    (tmp_path / "lost.md").write_text("[a](a.md)\n")
    assert lost_pages(tmp_path / "README.md") == ["lost.md: no page leads there"]


def test_a_rule_within_its_budget_is_silent() -> None:
    good = '"""Says what it is for."""\n\n\ndef fine(self, a, b, c, d, e, f): ...\n'
    assert [
        *long_file("g", good),
        *big_functions("g", good),
        *undocumented("g", good),
        *unfinished("g", good),
    ] == []
