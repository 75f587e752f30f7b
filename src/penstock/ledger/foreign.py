"""Statements signed elsewhere: whose key signed them, and whether it may say that.

Called by `ledger.log` for every entry that holds one, when it is appended and whenever it is checked again.
"""

from __future__ import annotations

import base64
import binascii

from penstock.core.authority import Authority, Key
from penstock.core.evidence import Statement, pre_authentication_encoding
from penstock.core.imported import Foreign, foreign
from penstock.core.predicates import Imported
from penstock.errors import Invalid, Refused
from penstock.ledger.signatures import signed_by


def check_imported(authority: Authority, said: Imported, statement: Statement) -> None:
    """`Refused` unless a trusted source signed these bytes; `Invalid` unless the entry repeats them truly."""
    try:
        inner = foreign(base64.b64decode(said.envelope, validate=True))
    except binascii.Error as error:
        raise Invalid("not base64", where="imported statement") from error
    signer = source_of(authority, inner)
    if signer.identity != said.source:
        raise Refused(f"signed by {signer.identity}, not by {said.source}", where="imported statement")
    if inner.predicate_type != said.predicate_type or inner.subjects != statement.subjects:
        raise Invalid("says something else than its entry", where="imported statement")


def source_of(authority: Authority, inner: Foreign) -> Key:
    """The trusted source that signed a statement. `Refused` if none did, or if it may not say such things."""
    message = pre_authentication_encoding(inner.payload)
    sources = [key for key in authority.keys.values() if key.purpose == "source"]
    for key in sources:
        if any(signed_by(key.public_key, message, signature) for _, signature in inner.signatures):
            if key.types is not None and inner.predicate_type not in key.types:
                raise Refused(
                    f"{key.identity} may not say {inner.predicate_type}", where="imported statement"
                )
            return key
    known = ", ".join(sorted({key.identity for key in sources})) or "none yet"
    raise Refused(
        "no trusted source signed this",
        where="imported statement",
        next_move=f"trusted: {known}; penstock identity add NAME --public-key FILE.pub --source",
    )
