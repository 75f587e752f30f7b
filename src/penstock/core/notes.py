"""C2SP signed notes and tree checkpoints: the text that fixes the ledger at one size, and who vouches for it.

Called by the ledger (which signs one in every transaction), by verification and by whoever asks witnesses.
Pure: signing and checking functions are passed in. Formats: c2sp.org/signed-note, c2sp.org/tlog-checkpoint,
c2sp.org/tlog-cosignature (version 1, Ed25519).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock.errors import Conflict, Invalid

ED25519 = b"\x01"
COSIGNATURE = b"\x04"
SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
#: A key's name holds no space, plus sign or control character.
NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}")
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f]")
LINE = re.compile(r"— (\S+) (\S+)")
#: A note with more than this is not looked at.
MAX_NOTE = 64 * 1024

#: Whether (public key, message, signature) fit together.
Verify = Callable[[bytes, bytes, bytes], bool]


class WitnessedSize(Conflict):
    """The witness last cosigned the log at *size*, not at the size that it was told."""

    def __init__(self, what: str, size: int) -> None:
        super().__init__(what)
        self.size = size


@dataclass(frozen=True)
class Checkpoint:
    """The tree head: *root* of the first *size* leaves of the log called *origin*."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True)
class VerifierKey:
    """Somebody's name and public key, and the *kind* of signature that it is for."""

    name: str
    public_key: bytes
    kind: bytes = COSIGNATURE

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """From ``name+hash+base64``; `Invalid` unless it is an Ed25519 key and its hash is right."""
        name, _, rest = text.partition("+")
        hashed, _, encoded = rest.partition("+")
        raw = _decode(encoded, "verifier key")
        key = cls(name, raw[1:], raw[:1])
        if not NAME.fullmatch(name) or len(raw) != 33 or raw[:1] not in (ED25519, COSIGNATURE):
            raise Invalid("not a verifier key: name+hash+base64 of an Ed25519 key", where=text[:100])
        if key.hash.hex() != hashed:
            raise Invalid("the verifier key's hash is not of its name and key", where=text[:100])
        return key

    @classmethod
    def cosigner(cls, text: str) -> VerifierKey:
        """A witness's key; `Invalid` if it is of another kind."""
        key = cls.parse(text)
        if key.kind != COSIGNATURE:
            raise Invalid("this key is not for cosignatures (its type is not 0x04)", where=key.name)
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.hash.hex()}+{base64.b64encode(self.kind + self.public_key).decode()}"

    @property
    def hash(self) -> bytes:
        """The four bytes that name this key in a signature line."""
        return key_hash(self.name, self.public_key, self.kind)


@dataclass(frozen=True)
class SignatureLine:
    """One signature under a note."""

    name: str
    hash: bytes
    signature: bytes

    @classmethod
    def parse(cls, line: str) -> SignatureLine:
        """One line without its end. `Invalid` unless it is in its one form."""
        match = LINE.fullmatch(line)
        blob = _decode(match[2], "signature line") if match else b""
        if match is None or len(blob) < 4 or not NAME.fullmatch(match[1]):
            raise Invalid("not a signature line", where=line[:100])
        return cls(match[1], blob[:4], blob[4:])

    def __str__(self) -> str:
        return f"— {self.name} {base64.b64encode(self.hash + self.signature).decode()}\n"

    def by(self, key: VerifierKey) -> bool:
        """Whether it says that this key made it."""
        return (self.name, self.hash) == (key.name, key.hash)


def key_hash(name: str, public_key: bytes, kind: bytes = ED25519) -> bytes:
    """The four bytes that name a key in a signature line."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public_key).digest()[:4]


def sign_note(checkpoint: Checkpoint, public_key: bytes, sign: Callable[[bytes], bytes]) -> str:
    """The checkpoint with our signature line, the log's origin being the key's name."""
    body = checkpoint.body()
    hashed = key_hash(checkpoint.origin, public_key)
    return f"{body}\n{SignatureLine(checkpoint.origin, hashed, sign(body.encode()))}"


def open_note(text: str, origin: str, public_key: bytes, verify: Verify) -> Checkpoint:
    """The checkpoint in a note that *public_key* signed; `Invalid` if it did not.

    Lines by other keys (witnesses) are left alone, but must be signature lines.
    """
    body, lines = split(text)
    checkpoint = _parse(body)
    if checkpoint.origin != origin:
        raise Invalid(f"a checkpoint of {checkpoint.origin!r}, not of {origin!r}", where="checkpoint")
    key = VerifierKey(origin, public_key, ED25519)
    if not any(line.by(key) and verify(public_key, body.encode(), line.signature) for line in lines):
        raise Invalid("not signed by the log's key", where="checkpoint")
    return checkpoint


def split(text: str) -> tuple[str, tuple[SignatureLine, ...]]:
    """A note's signed text, with its final line end, and its signature lines."""
    body, separator, signatures = text.rpartition("\n\n")
    whole = text.encode("utf-8", "replace").decode() == text  # no half of a character
    plain = len(text) <= MAX_NOTE and whole and not CONTROLS.search(text)
    if not separator or not signatures.endswith("\n") or not plain:
        raise Invalid("not a signed note", where="checkpoint")
    return body + "\n", tuple(SignatureLine.parse(line) for line in signatures[:-1].split("\n"))


def claimed_size(text: str) -> int:
    """The number of entries that a note claims to cover, before anybody checked who signed it."""
    return _parse(split(text)[0]).size


def cosigned_message(body: str, time: int) -> bytes:
    """What a witness signs: a checkpoint's text, and when it saw it (seconds since 1970)."""
    return f"cosignature/v1\ntime {time}\n{body}".encode()


def cosign(body: str, key: VerifierKey, time: int, sign: Callable[[bytes], bytes]) -> SignatureLine:
    """A witness's signature under a checkpoint's text."""
    stamped = time.to_bytes(8) + sign(cosigned_message(body, time))
    return SignatureLine(key.name, key.hash, stamped)


def cosigned_at(body: str, line: SignatureLine, key: VerifierKey, verify: Verify) -> int:
    """When the witness cosigned. `Invalid` if the line is not a cosignature of this text by this key."""
    time, signature = int.from_bytes(line.signature[:8]), line.signature[8:]
    genuine = line.by(key) and key.kind == COSIGNATURE and len(signature) == 64 and time < 2**63
    if not genuine or not verify(key.public_key, cosigned_message(body, time), signature):
        raise Invalid(f"not a cosignature by {key.name}", where="checkpoint")
    return time


def cosigners(text: str, keys: Sequence[VerifierKey], verify: Verify) -> tuple[str, ...]:
    """Which of the keys cosigned the note, by name, each public key once.

    `Invalid` if a line says that it is by one of them and is not. Lines by unknown keys are left alone.
    """
    body, lines = split(text)
    found: dict[bytes, str] = {}
    for key in keys:
        for line in lines:
            if line.by(key):
                cosigned_at(body, line, key, verify)
                found.setdefault(key.public_key, key.name)
    return tuple(found.values())


def _parse(body: str) -> Checkpoint:
    lines = body.split("\n")
    if len(lines) < 4 or not SIZE.fullmatch(lines[1]):
        raise Invalid("not a checkpoint", where="checkpoint")
    checkpoint = Checkpoint(lines[0], int(lines[1]), _decode(lines[2], "checkpoint"))
    if not body.startswith(checkpoint.body()) or "" in lines[:-1] or len(checkpoint.root) != 32:
        raise Invalid("the checkpoint is not in its one canonical form", where="checkpoint")
    return checkpoint


def _decode(text: str, where: str) -> bytes:
    """Base64 in its one form, or `Invalid`."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("not base64", where=where) from error
    if base64.b64encode(raw).decode() != text:
        raise Invalid("base64 with stray bits", where=where)
    return raw
