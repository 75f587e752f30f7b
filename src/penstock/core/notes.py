"""C2SP signed notes and tree checkpoints: the text that fixes the ledger at one size.

Called by the ledger (which signs one in every transaction) and by verification. Pure: signing and
checking functions are passed in. Formats: c2sp.org/signed-note, c2sp.org/tlog-checkpoint.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from penstock.errors import Invalid

ED25519 = b"\x01"
SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Checkpoint:
    """The tree head: *root* of the first *size* leaves of the log called *origin*."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def key_hash(name: str, public_key: bytes) -> bytes:
    """The four bytes that name a key in a signature line."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:4]


def sign_note(checkpoint: Checkpoint, public_key: bytes, sign: Callable[[bytes], bytes]) -> str:
    """The checkpoint with our signature line, the log's origin being the key's name."""
    body = checkpoint.body()
    blob = key_hash(checkpoint.origin, public_key) + sign(body.encode())
    return f"{body}\n— {checkpoint.origin} {base64.b64encode(blob).decode()}\n"


def open_note(
    text: str, origin: str, public_key: bytes, verify: Callable[[bytes, bytes, bytes], bool]
) -> Checkpoint:
    """The checkpoint in a note that *public_key* signed; `Invalid` if it did not.

    *verify* takes (public key, message, signature). Lines by other keys (witnesses) are left alone.
    """
    body, separator, signatures = text.partition("\n\n")
    unicode = text.encode("utf-8", "replace").decode() == text  # no half of a character
    if not unicode or not separator or not signatures.endswith("\n"):
        raise Invalid("not a signed note", where="checkpoint")
    checkpoint = _parse(body + "\n")
    if checkpoint.origin != origin:
        raise Invalid(f"a checkpoint of {checkpoint.origin!r}, not of {origin!r}", where="checkpoint")
    for line in signatures.splitlines():
        prefix = f"— {origin} "
        blob = _decode(line[len(prefix) :]) if line.startswith(prefix) else b""
        known = blob[:4] == key_hash(origin, public_key)
        if known and verify(public_key, (body + "\n").encode(), blob[4:]):
            return checkpoint
    raise Invalid("not signed by the log's key", where="checkpoint")


def _parse(body: str) -> Checkpoint:
    lines = body.split("\n")
    if len(lines) < 4 or not SIZE.fullmatch(lines[1]):
        raise Invalid("not a checkpoint", where="checkpoint")
    checkpoint = Checkpoint(lines[0], int(lines[1]), _decode(lines[2]))
    if not body.startswith(checkpoint.body()):
        raise Invalid("the checkpoint is not in its one canonical form", where="checkpoint")
    return checkpoint


def _decode(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("not base64", where="checkpoint") from error
    if base64.b64encode(raw).decode() != text:
        raise Invalid("base64 with stray bits", where="checkpoint")
    return raw
