"""The functions of Rego that a policy may call. Deterministic, and never silently undefined.

Called by `check`. Left out on purpose: what asks the clock, chance or the network; what the engine has
otherwise than Rego says; and what is undefined rather than wrong for some values (``max`` of nothing).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from penstock.adapters.rego.types import ARRAY, BOOL, NUMBER, OBJECT, SET, TEXT, Type, together

TEXTS, NUMBERS = Type("array", TEXT), Type("array", NUMBER)
WORDS, AMOUNTS = (TEXTS, Type("set", TEXT)), (NUMBERS, Type("set", NUMBER))
Parameter = Type | tuple[Type, ...]

#: Name → what it takes, what it gives. None gives the type of the first argument.
FUNCTIONS: dict[str, tuple[tuple[Parameter, ...], Type | None]] = {
    "abs": ((NUMBER,), NUMBER),
    "sum": ((AMOUNTS,), NUMBER),
    "product": ((AMOUNTS,), NUMBER),
    "numbers.range": ((NUMBER, NUMBER), NUMBERS),
    "count": (((TEXT, ARRAY, SET, OBJECT),), NUMBER),
    "concat": ((TEXT, WORDS), TEXT),
    "contains": ((TEXT, TEXT), BOOL),
    "startswith": ((TEXT, TEXT), BOOL),
    "endswith": ((TEXT, TEXT), BOOL),
    "indexof": ((TEXT, TEXT), NUMBER),
    "lower": ((TEXT,), TEXT),
    "upper": ((TEXT,), TEXT),
    "replace": ((TEXT, TEXT, TEXT), TEXT),
    "split": ((TEXT, TEXT), TEXTS),
    "substring": ((TEXT, NUMBER, NUMBER), TEXT),
    "trim": ((TEXT, TEXT), TEXT),
    "trim_left": ((TEXT, TEXT), TEXT),
    "trim_right": ((TEXT, TEXT), TEXT),
    "trim_prefix": ((TEXT, TEXT), TEXT),
    "trim_suffix": ((TEXT, TEXT), TEXT),
    "trim_space": ((TEXT,), TEXT),
    "regex.match": ((TEXT, TEXT), BOOL),
    "semver.compare": ((TEXT, TEXT), NUMBER),
    "semver.is_valid": ((TEXT,), BOOL),
    "array.concat": ((ARRAY, ARRAY), None),
    "array.reverse": ((ARRAY,), None),
    "array.slice": ((ARRAY, NUMBER, NUMBER), None),
    "sort": ((ARRAY,), None),
    "object.keys": ((OBJECT,), Type("set", TEXT)),
}
#: These have rules of their own in `check`.
SPECIAL = ("object.get", "set", "sprintf")
#: What the first part of a name may not be given to anything else.
ROOTS = frozenset(name.partition(".")[0] for name in (*FUNCTIONS, *SPECIAL))
REFUSED = {
    "http.send": "asks the network",
    "net.lookup_ip_addr": "asks the network",
    "opa.runtime": "depends on the machine",
    "rand.intn": "depends on chance",
    "uuid.rfc4122": "depends on chance",
    "time.now_ns": "depends on the clock",
    "print": "has an effect",
    "trace": "has an effect",
    "ceil": "goes wrong in the engine for large numbers; sprintf has %.0f",
    "floor": "goes wrong in the engine for large numbers; sprintf has %.0f",
    "round": "goes wrong in the engine for large numbers; sprintf has %.0f",
    "max": "is undefined for nothing, and the rule then never fires",
    "min": "is undefined for nothing, and the rule then never fires",
}

#: They see a quotation mark inside a text as the engine keeps it: with a backslash before it.
_LOOK = """
contains count endswith indexof lower regex.match replace semver.compare semver.is_valid sort split
startswith substring trim trim_left trim_prefix trim_right trim_space trim_suffix upper
"""
LOOK_INSIDE = frozenset(_LOOK.split())
#: The engine changes the case of A to Z only.
FOLD = frozenset({"lower", "upper"})

VERB = re.compile(r"%[-+0]*\d{0,2}(?:\.\d{1,2})?(.)", re.DOTALL)
VERBS = {"s": TEXT, "d": NUMBER, "f": NUMBER, "t": BOOL, "v": None}


def mismatch(name: str, given: Sequence[Type]) -> str:
    """What is wrong with calling the function with these types; "" if nothing is."""
    wanted = FUNCTIONS[name][0]
    if len(given) != len(wanted):
        return f"{name} takes {len(wanted)}, not {len(given)}"
    for number, (parameter, found) in enumerate(zip(wanted, given, strict=True), 1):
        allowed = parameter if isinstance(parameter, tuple) else (parameter,)
        if not any(_takes(one, found) for one in allowed):
            return f"{name} takes {' or '.join(map(str, allowed))} as number {number}, not {found}"
    return ""


def _takes(wanted: Type, found: Type) -> bool:
    bare = wanted.item is None and wanted.kind == found.kind
    return bare or together(wanted, found) is not None


def unprintable(form: str, given: Sequence[Type]) -> str:
    """What is wrong with a sprintf of a literal text; "" if nothing is."""
    verbs = [verb for verb in VERB.findall(form) if verb != "%"]
    unknown = [verb for verb in verbs if verb not in VERBS]
    if unknown or re.search(r"%$", VERB.sub("", form)):
        return f"sprintf knows %{' %'.join(VERBS)} and %%, not %{''.join(unknown[:1])}"
    if len(verbs) != len(given):
        return f"sprintf has {len(verbs)} places and {len(given)} values"
    for verb, found in zip(verbs, given, strict=True):
        if VERBS[verb] not in (None, found):
            return f"sprintf %{verb} takes {VERBS[verb]}, not {found}"
    return ""
