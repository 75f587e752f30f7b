"""Digests and canonical JSON (RFC 8785), the same everywhere.

Called by everything that names a thing by its content. Must not read files or clocks.
"""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from penstock.core.codec import encode
from penstock.core.jcs import Uncommon, text_of
from penstock.errors import Invalid

PREFIX = "sha256:"


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value, or of anything `codec.encode` accepts."""
    try:
        try:
            return text_of(value).encode()
        except Uncommon:
            return bytes(rfc8785.dumps(encode(value)))
    except RecursionError as error:
        raise Invalid("cannot be written as canonical JSON: nested too deeply") from error
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise Invalid(f"cannot be written as canonical JSON: {error}") from error


def digest(data: bytes) -> str:
    """``sha256:<64 hex digits>`` of the bytes."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """The digest of a value's canonical JSON."""
    return digest(canonical(value))


def hex_of(name: str) -> str:
    """The 64 hex digits of a ``sha256:`` digest; anything else is `Invalid`."""
    digits = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or len(digits) != 64 or digits.strip("0123456789abcdef"):
        raise Invalid(f"not a sha256 digest: {name[:80]!r}", next_move="write it as sha256:<64 hex digits>")
    return digits


def short(name: str) -> str:
    """Twelve hex digits for people; never used to look anything up."""
    return hex_of(name)[:12]
