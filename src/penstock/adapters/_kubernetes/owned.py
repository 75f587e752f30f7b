"""What of an object is ours, as the API itself has noted it. Pure.

Called by adapters that change a few fields of an object: an apply must name all that we own, or the rest of
it is taken away. What somebody else has made theirs is no part of it, so it is not put back by accident.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from penstock.adapters._kubernetes.kinds import Object


def extract(object: Object, manager: str) -> Object:
    """The fields of *object* that *manager* has applied, and who the object is: its name, uid and version, so
    that applying it again is refused once anything has changed."""
    found: Object = {}
    for entry in object["metadata"].get("managedFields", ()):
        who = (entry.get("manager"), entry.get("operation"), entry.get("subresource", ""))
        if who == (manager, "Apply", ""):
            found = _taken(object, entry["fieldsV1"])
    metadata = found.setdefault("metadata", {})
    metadata |= {name: object["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
    return found


def _taken(value: Any, fields: Object) -> Any:
    """*fields* as in ``fieldsV1``: ``f:name`` is a field, ``k:{…}`` the element of a list that has these, and
    a field without any of its own is taken whole."""
    inner = {name: below for name, below in fields.items() if name != "."}
    if not inner:
        return copy.deepcopy(value)
    if isinstance(value, list):
        taken = [_element(value, mark, below) for mark, below in inner.items() if mark.startswith("k:")]
        return [element for element in taken if element is not None]
    names = ((mark[2:], below) for mark, below in inner.items() if mark.startswith("f:"))
    return {name: _taken(value[name], below) for name, below in names if name in value}


def _element(value: list[Any], mark: str, fields: Object) -> Any:
    wanted = json.loads(mark[2:]).items()
    found = next((element for element in value if wanted <= element.items()), None)
    return None if found is None else _taken(found, fields)
