"""Finds the known name that an unknown one is probably a misspelling of. Pure.

Called where a name is refused or looks like a slip. It only suggests ("did you mean …"), and never decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], *, alike: float = 0.75) -> str:
    """The name that is most like it, whatever the case; "" if none is *alike* enough (0 to 1)."""
    plain = {other.casefold(): other for other in known}
    wanted = name[:200].casefold()
    found = get_close_matches(wanted, plain, 3, alike)
    # Two letters changed places more often than others were typed.
    found.sort(key=lambda other: sorted(other) != sorted(wanted))
    return plain[found[0]] if found else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean shop?``, or "": to be put behind what is wrong."""
    found = nearest(name, known, alike=0.6)
    return f"; did you mean {found}?" if found else ""
