"""Digests and canonical JSON (RFC 8785), the same everywhere.

Called by everything that names a thing by its content. Must not read files or clocks.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import rfc8785

from penstock.core.codec import Json, encode
from penstock.errors import Invalid

PREFIX = "sha256:"


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value, or of anything `codec.encode` accepts."""
    try:
        return canonical_json(encode(value))
    except RecursionError as error:
        raise Invalid("cannot be written as canonical JSON: nested too deeply") from error


def canonical_json(plain: Json) -> bytes:
    """RFC 8785 bytes of what is JSON already."""
    try:
        if _is_common(plain):
            return _COMMON.encode(plain).encode()
        return bytes(rfc8785.dumps(plain))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise Invalid(f"cannot be written as canonical JSON: {error}") from error


#: Gives the canonical form of what `_is_common` lets through, several times faster than `rfc8785`.
_COMMON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
#: Up to here a JSON number is exact in every implementation (2^53 - 1).
EXACT = 9007199254740991


def _is_common(value: Any) -> bool:
    """Whether Python's own encoder writes a JSON value as RFC 8785 does.

    Keys in ASCII sort the same by code points and by UTF-16; and floats that are no whole numbers are
    written the same where neither uses an exponent.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is dict:
        return all(type(key) is str and key.isascii() and _is_common(item) for key, item in value.items())
    if kind is list:
        return all(map(_is_common, value))
    if kind is int:
        return bool(-EXACT <= value <= EXACT)
    if kind is float:
        return 1e-4 <= abs(value) < 1e15 and bool(value % 1)
    return False


def digest(data: bytes) -> str:
    """``sha256:<64 hex digits>`` of the bytes."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """The digest of a value's canonical JSON."""
    return digest(canonical(value))


def hex_of(name: str) -> str:
    """The 64 hex digits of a ``sha256:`` digest; anything else is `Invalid`."""
    digits = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise Invalid(f"not a sha256 digest: {name[:80]!r}", next_move="write it as sha256:<64 hex digits>")
    return digits


def short(name: str) -> str:
    """Twelve hex digits for people; never used to look anything up."""
    return hex_of(name)[:12]
