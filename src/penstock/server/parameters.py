"""What callers of the API give, as far as several calls take the same: texts, numbers, limits.

Called by whoever has routes.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator

#: What a database takes for a number.
MAX_INT = 2**62


def _well_formed(text: str) -> str:
    # JSON can name half of a character; nothing that is signed or stored can hold it.
    if not text.isascii():
        text.encode()
    return text


Text = Annotated[str, AfterValidator(_well_formed)]
#: How many of a list.
Limit = Annotated[int, Query(ge=1, le=1000)]
#: Of an entry of the ledger.
Index = Annotated[int, Path(ge=0, le=MAX_INT)]
