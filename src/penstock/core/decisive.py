"""The facts that decided a rule, in one line for people. Pure.

Used by the pages and by ``penstock why``. Must not be used where every fact counts: evidence has them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

#: Characters from which a text is not told twice.
LONG = 40


def decided_by(values: Mapping[str, str], says: str) -> str:
    """The facts (JSON texts by name), less long ones whose words the rule *says* already."""
    told = (f"{name} = {value}" for name, value in values.items() if not _repeated(value, says))
    return ", ".join(told)


def _repeated(value: str, says: str) -> bool:
    return len(value) > LONG and value.startswith('"') and json.loads(value) in says
