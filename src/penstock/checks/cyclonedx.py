"""Reads a CycloneDX file, what bill-of-materials tools write, into components and findings.

Called by `intake`. Pure. The document stays outside: evidence holds its counts and its digest. Only the JSON
form is read.
"""

from __future__ import annotations

from penstock.checks.reports import MAX_BYTES, MAX_DEPTH
from penstock.core.bom import read_bom
from penstock.core.outside import read_json
from penstock.core.predicates import Components, Findings, Origin
from penstock.errors import Invalid

BLANK = b"\xef\xbb\xbf \t\r\n"


def parse_cyclonedx(data: bytes, name: str, origin: Origin) -> tuple[Components | Findings, ...]:
    """`Components`, and `Findings` if the document lists vulnerabilities; *name* is the file in errors."""
    if data.lstrip(BLANK).startswith(b"<"):
        raise Invalid(
            "CycloneDX is read as JSON, not as XML",
            where=name,
            next_move="have the tool write JSON, or convert: cyclonedx convert --output-format json",
        )
    return read_bom(read_json(data, name, limit=MAX_BYTES, depth=MAX_DEPTH), name, origin)
