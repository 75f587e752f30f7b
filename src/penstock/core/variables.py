"""What a process can be given as an environment. Pure.

Called where environment data are checked and where a step is described. Must not know what is in them.
"""

from __future__ import annotations

from penstock.errors import Invalid

#: Ends every word that a system hands to a process.
NUL = "\0"


def check_variable(name: str, value: str) -> None:
    """`Invalid` for what cannot be a variable. The value is not repeated: it may be a secret."""
    if not name or "=" in name or NUL in name:
        raise Invalid(f"{name[:80]!r} cannot be the name of a variable", where="environment")
    if NUL in value:
        raise Invalid(f"{name[:80]} holds NUL, which no variable can", where="environment")
