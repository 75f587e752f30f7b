"""CODEOWNERS, read by GitHub's rules: who owns a path of a repository.

Called with the text of the file and one path. Pure. It must not read what GitHub would not: a line with
syntax that does not work there (``!``, ``[ ]``, an escaped ``#``, ``***``, something that is no owner) is
skipped, and the lines above it decide.

The rules: the last line whose pattern matches wins, also if it names nobody. A pattern without a slash
inside matches at any depth; with one it is counted from the root. ``*`` and ``?`` stay within a name, ``**``
spans folders. What names a folder covers all beneath it; ``docs/`` covers only folders, and ``docs/*`` only
what lies directly in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from penstock.errors import Invalid

#: GitHub does not load a larger file. Here that is an error: nobody's ownership is lost in silence.
MAX_TEXT = 3 * 1024**2
MAX_LINE = 4096
MAX_PATH = 1024

OWNER = re.compile(r"@[\w-]+(?:/[\w.-]+)?|[\w.%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}", re.ASCII)
#: The pattern ends at the first white space without a backslash before it.
PATTERN = re.compile(r"((?:\\.|[^\\\s])+)(?:\s|$)")
WILD = re.compile(r"[*?\\]")
#: A character of a pattern, with its backslash.
CHARACTER = re.compile(r"\\?.", re.DOTALL)


def owners(text: str, path: str) -> tuple[str, ...]:
    """The owners of *path* (relative to the repository's root) as they are written; () if it has none."""
    if len(text) > MAX_TEXT:
        raise Invalid("the file is larger than 3 MB, which GitHub does not load", where="CODEOWNERS")
    names = path.split("/")
    if "" in names or len(path) > MAX_PATH:
        raise Invalid(f"not a path in a repository: {path[:80]!r}", where="CODEOWNERS")
    for number, line in _lines_from_the_end(text):
        if len(line) > MAX_LINE:  # whoever skipped it would let the lines above it decide
            raise Invalid("the line is too long", where=f"CODEOWNERS:{number}")
        pattern, owned_by = _rule(line)
        if pattern and _matches(pattern, names):
            return owned_by
    return ()


def _lines_from_the_end(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines, the last first, without comments."""
    lines = text.removeprefix("\ufeff").split("\n")
    for number in range(len(lines), 0, -1):
        yield number, lines[number - 1].partition("#")[0].strip()


def _rule(line: str) -> tuple[str, tuple[str, ...]]:
    """The pattern and the owners of a line; no pattern if the line says nothing that counts."""
    found = PATTERN.match(line)
    if not found or not _supported(found[1]):
        return "", ()
    named = tuple(line[found.end() :].split())
    return (found[1], named) if all(OWNER.fullmatch(owner) for owner in named) else ("", ())


def _supported(pattern: str) -> bool:
    return pattern != "/" and not re.search(r"^!|[\[\]]|\*{3}|\\/", pattern)


def _matches(pattern: str, path: list[str]) -> bool:
    names = pattern.split("/")
    if names[0] == "":
        names = names[1:]
    elif len(names) == 1 or names[1:] == [""]:
        names = ["**", *names]
    beneath = names[-1] in ("", "**")
    if beneath:
        names = names[:-1]
    at = _ends(names, path)
    if beneath:
        return any(position < len(path) for position in at)
    return len(path) in at if names[-1] == "*" else bool(at)


def _ends(names: list[str], path: list[str]) -> set[int]:
    """How many names of the path the pattern may have used up, having matched from the beginning."""
    return _reached(names, path, "**", _named)


def _named(pattern: str, name: str) -> bool:
    if not WILD.search(pattern):
        return pattern == name
    return len(name) in _reached(CHARACTER.findall(pattern), name, "*", _spelt)


def _spelt(pattern: str, character: str) -> bool:
    return pattern == "?" or pattern[-1] == character


def _reached(
    pattern: Sequence[str], given: Sequence[str], star: str, fits: Callable[[str, str], bool]
) -> set[int]:
    """How much of *given* may be used up when all of *pattern* is; *star* stands for any run.

    Every place at once, because trying one after the other takes for ever on a hostile pattern.
    """
    at = {0}
    for part in pattern:
        if part == star:
            at = set(range(min(at), len(given) + 1))
        else:
            at = {place + 1 for place in at if place < len(given) and fits(part, given[place])}
        if not at:
            break
    return at
