"""Server-side apply: who owns which field, what an apply conflicts with, and what it takes away. Pure.

Called by `api` for every write. A field is a path of ``f:name`` and ``k:{…}`` (an element of a list by what
tells it apart; its own mark is ``.``), as in the ``managedFields`` that the API shows. Lists without such
keys are one value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from penstock.testing.kubernetes.problems import Problem
from penstock.testing.kubernetes.storage import copied

Path = tuple[str, ...]
Keys = Callable[[tuple[str, ...]], tuple[str, ...]]
#: (manager, operation) → its fields.
Owners = dict[tuple[str, str], set[Path]]

#: What the API itself sets, and nobody owns.
NOBODYS = {
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
}


def owned(value: dict[str, Any], keys: Keys) -> dict[Path, Any]:
    """Every field of an object with its value."""
    found = dict(_leaves({k: v for k, v in value.items() if k not in ("apiVersion", "kind")}, keys, ()))
    return {
        p: v for p, v in found.items() if not (p[0] == "f:metadata" and len(p) > 1 and p[1][2:] in NOBODYS)
    }


def _leaves(value: Any, keys: Keys, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, keys, (*path, f"f:{name}"))
    elif isinstance(value, list) and (names := keys(_names(path))):
        for element in value:
            mark = (*path, _key(element, names))
            yield (*mark, "."), None
            for name, inner in element.items():
                yield from _leaves(inner, keys, (*mark, f"f:{name}"))
    elif path:
        yield path, value


def _names(path: Path) -> tuple[str, ...]:
    return tuple(part[2:] for part in path if part.startswith("f:"))


def _key(element: dict[str, Any], names: tuple[str, ...]) -> str:
    usual = {"protocol": "TCP"}
    return "k:" + json.dumps({name: element.get(name, usual.get(name)) for name in names}, sort_keys=True)


def apply(
    live: dict[str, Any], wanted: dict[str, Any], owners: Owners, manager: str, keys: Keys, *, force: bool
) -> tuple[dict[str, Any], Owners]:
    """*live* with the fields of *wanted*, and who then owns what. `Problem` 409 names whom it conflicts
    with."""
    new, now = owned(wanted, keys), owned(live, keys)
    changing = {path for path, value in new.items() if path not in now or now[path] != value}
    me = (manager, "Apply")
    others = {who: fields for who, fields in owners.items() if who != me}
    clashes = [(who, path) for who, fields in others.items() for path in sorted(fields & changing)]
    if clashes and not force:
        raise _clash(clashes)
    left = {who: fields - changing for who, fields in others.items()}
    held = set[Path]().union(*left.values(), new)
    result = copied(live)
    for path in sorted(owners.get(me, set()) - held, key=_inner_first, reverse=True):
        _remove(result, path)
    _merge(result, wanted, keys, ())
    return result, _tidy({**left, me: set(new)})


def _inner_first(path: Path) -> tuple[int, bool]:
    """An element's own mark before its fields: without them nobody would know it again."""
    return len(path), path[-1] == "."


def changed(
    before: dict[str, Any], after: dict[str, Any], owners: Owners, manager: str, keys: Keys
) -> Owners:
    """Who owns what after somebody wrote without apply: what changed is theirs, what is gone nobody's."""
    old, new = owned(before, keys), owned(after, keys)
    theirs = {path for path, value in new.items() if path not in old or old[path] != value}
    me = (manager, "Update")
    left = {who: (fields & set(new)) - theirs for who, fields in owners.items()}
    return _tidy({**left, me: left.get(me, set()) | theirs})


def _tidy(owners: Owners) -> Owners:
    return {who: fields for who, fields in owners.items() if fields}


def _clash(clashes: list[tuple[tuple[str, str], Path]]) -> Problem:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager}"' + (" with subresource" if operation == "Status" else ""),
            "field": _shown(path),
        }
        for (manager, operation), path in clashes
    ]
    said = f"Apply failed with {len(causes)} conflict{'s'[: len(causes) > 1]}: " + ", ".join(
        f"{cause['message']}: {cause['field']}" for cause in causes
    )
    return Problem(409, said, details={"causes": causes})


def _shown(path: Path) -> str:
    return "".join(
        f".{part[2:]}" if part.startswith("f:") else f"[{part[2:]}]" for part in path if part != "."
    )


def _merge(into: dict[str, Any], wanted: dict[str, Any], keys: Keys, path: tuple[str, ...]) -> None:
    for name, value in wanted.items():
        here = (*path, name)
        if isinstance(value, dict) and isinstance(into.get(name), dict) and value:
            _merge(into[name], value, keys, here)
        elif isinstance(value, list) and keys(here) and isinstance(into.get(name), list):
            known = {_key(element, keys(here)): element for element in into[name]}
            for element in value:
                mark = _key(element, keys(here))
                if mark in known:
                    _merge(known[mark], element, keys, here)
                else:
                    into[name].append(copied(element))
        else:
            into[name] = copied(value)


def _remove(value: Any, path: Path) -> None:
    """Take away one field; an element of a list goes with its own mark, and what is then empty goes too."""
    head, rest = path[0], path[1:]
    if head.startswith("k:"):
        wanted = json.loads(head[2:])
        for element in [e for e in value if _key(e, tuple(wanted)) == head]:
            if rest == (".",):
                value.remove(element)
            else:
                _remove(element, rest)
        return
    name = head[2:]
    if not isinstance(value, dict) or name not in value:
        return
    if not rest:
        del value[name]
        return
    _remove(value[name], rest)
    if value[name] in ({}, []):
        del value[name]


def read(managed: list[dict[str, Any]]) -> Owners:
    """From ``metadata.managedFields``."""
    return {(e["manager"], e["operation"]): set(_paths(e["fieldsV1"], ())) for e in managed}


def _paths(tree: dict[str, Any], path: Path) -> Iterator[Path]:
    for part, inner in tree.items():
        if inner:
            yield from _paths(inner, (*path, part))
        else:
            yield (*path, part)


def written(owners: Owners, api_version: str, time: str) -> list[dict[str, Any]]:
    """As ``metadata.managedFields``."""
    found = []
    for (manager, operation), fields in sorted(owners.items()):
        tree: dict[str, Any] = {}
        for path in sorted(fields):
            at = tree
            for part in path:
                at = at.setdefault(part, {})
        entry = {"manager": manager, "operation": operation, "apiVersion": api_version, "time": time}
        found.append({**entry, "fieldsType": "FieldsV1", "fieldsV1": tree})
    return found
