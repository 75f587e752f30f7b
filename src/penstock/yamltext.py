"""YAML from outside, as nodes that know their lines: what is a trick is refused before it is expanded.

Called by `config`, `manifests` and whoever reads a kubeconfig. It must not know what the documents mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from penstock.errors import Invalid

#: libyaml's reader is many times as fast, where the package was built with it.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: Deeper than anything that people write. Readers recurse into what is nested, libyaml's until it crashes.
MAX_DEPTH = 200
#: What most syntax errors come of.
MOVE = "look at the indentation, and put quotes around text that holds ': ' or ' #'"


def documents(data: bytes, name: str, most: int) -> Iterator[tuple[yaml.Node, Any]]:
    """Each document that is not empty, with its value. `Invalid` with file *name* and line.

    *data* is *most* bytes or fewer: even without libyaml, two hundred thousand a second are read.
    """
    if len(data) > most:
        raise Invalid(f"larger than {most} bytes", where=name)
    with _translated(name):
        loader = _loader(data, name)
        while loader.check_node() and (node := loader.get_node()):
            refuse_tricks(node, name)
            yield node, loader.construct_document(node)


def plain(data: bytes, name: str) -> Any:
    """The value of the only document, aliases and all: for what its reader trusts. `Invalid` as above."""
    with _translated(name):
        return _loader(data, name).get_single_data()


def _loader(data: bytes, name: str) -> Any:
    data.decode()  # the library would take UTF-16 too, and nobody else
    depth = 0
    for event in yaml.parse(data, Loader=LOADER):  # events are read one after another: nothing recurses
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise Invalid(f"not valid YAML: nested more than {MAX_DEPTH} deep", where=f"{name}:{line}")
    return LOADER(data)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        what = ", ".join(filter(None, (error.problem, error.context)))
        raise Invalid(f"not valid YAML: {what}", where=f"{name}:{line}", next_move=MOVE) from error
    except (
        yaml.YAMLError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        # Given a tag that does not fit (`!!int ""`), the library raises whatever comes of it.
        raise Invalid(f"not valid YAML: {error}", where=name, next_move=MOVE) from error


def refuse_tricks(node: yaml.Node | None, name: str, seen: set[int] | None = None) -> None:
    """`Invalid` for aliases, of which a few nested ones expand to gigabytes and nobody needs one here; and
    for a key given twice, of which the last would count, and whoever reads would have read the first."""
    seen = set() if seen is None else seen
    if node is None:
        return
    if id(node) in seen:
        raise Invalid("YAML aliases are not supported", where=f"{name}:{node.start_mark.line + 1}")
    seen.add(id(node))
    keys: set[str] = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode) and key.value in keys:
            twice = f"the key {key.value[:80]!r} is given twice"
            raise Invalid(twice, where=f"{name}:{key.start_mark.line + 1}")
        keys |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
    for child in _children(node):
        refuse_tricks(child, name, seen)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def line_of(node: yaml.Node | None, path: str) -> int:
    """The line of the deepest part of *path* that the document has."""
    line = node.start_mark.line + 1 if node else 1
    for part in re.findall(r"[^.\[\]]+", path):
        found = _step(node, part)
        if found is None:
            break
        line, node = found
    return line


def _step(node: Any, part: str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        child = node.value[int(part)]
        return child.start_mark.line + 1, child
    return None
