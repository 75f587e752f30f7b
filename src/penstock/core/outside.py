"""Reads text from outside Penstock safely: strict JSON, and text that is fit to be signed and shown.

Called by whatever reads reports and statements of others. Pure. JSON that programs read in different ways
(a key given twice, NaN, endless nesting) is `Invalid`: two readers of one signed document must never see
different things.
"""

from __future__ import annotations

import json
import math
from collections import Counter

from penstock.core.codec import Json
from penstock.errors import Invalid


def read_json(data: bytes, where: str, *, limit: int, depth: int) -> Json:
    """The value in UTF-8 bytes, at most *limit* of them, nested at most *depth* deep."""
    if len(data) > limit:
        raise Invalid(f"larger than {limit} bytes", where=where)
    try:
        text = data.decode("utf-8-sig")
        value = json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite_float
        )
    except (ValueError, RecursionError) as error:
        raise Invalid(f"not JSON: {clean(str(error), 200)}", where=where) from error
    if _deeper(value, depth):
        raise Invalid(f"nested deeper than {depth}", where=where)
    return value


def clean(text: str, limit: int) -> str:
    """Text that can be signed and shown: no lone surrogates, no control characters, at most *limit* long."""
    whole = text[:limit].encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() else " " for c in whole).strip()


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:80]!r} is given twice")
    return found


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not a JSON value")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond every number")
    return value


def _deeper(value: Json, depth: int) -> bool:
    """Whether lists and mappings in *value* are nested deeper. By levels: a loop has no stack to overflow."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        children = (item.values() if isinstance(item, dict) else item for item in level)
        level = [child for held in children for child in held if isinstance(child, (dict, list))]
        if not level:
            return False
    return bool(level)
