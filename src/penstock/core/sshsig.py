"""OpenSSH's signatures: what people make with the keys that they already have. Bytes to values and back.

Called by the ledger (statements signed by people), by the git adapter (signed commits) and by the ssh
signers. Pure: it takes signatures apart and says which bytes they are over; whoever calls it checks them.
Only ed25519 keys. There is one form of everything: what does not come out the same when written again is
`Invalid`, so that no byte of a signature can be changed without anybody noticing. That is stricter than
OpenSSH, which leaves the reserved field of a signature out of account.

Formats: PROTOCOL.sshsig and PROTOCOL.agent of OpenSSH; RFC 8709 for the keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from penstock.errors import Invalid

MAGIC = b"SSHSIG"
#: What a signature is for: one made for something else is never taken for one of ours.
NAMESPACE = "penstock"
GIT = "git"
ED25519 = "ssh-ed25519"
HASHES = ("sha512", "sha256")

VERSION = (1).to_bytes(4, "big")
BEGIN = "-----BEGIN SSH SIGNATURE-----"
END = "-----END SSH SIGNATURE-----"
WIDTH = 70
MAX_BYTES = 16 * 1024
MAKE_ONE = "use an ed25519 key; to make one: ssh-keygen -t ed25519"


@dataclass(frozen=True)
class SshSignature:
    """One signature as OpenSSH writes it. *public_key* (32) and *signature* (64) are raw bytes."""

    public_key: bytes
    namespace: str
    hash_name: str
    signature: bytes

    def blob(self) -> bytes:
        """The one binary form; `parse` is its inverse."""
        fields = (
            key_blob(self.public_key),
            self.namespace.encode(),
            b"",
            self.hash_name.encode(),
            string(ED25519.encode()) + string(self.signature),
        )
        return MAGIC + VERSION + b"".join(string(field) for field in fields)


def parse(blob: bytes) -> SshSignature:
    """Take a binary signature apart; `Invalid` unless it is ed25519 and in its one form."""
    key, namespace, _, hash_name, inner = _fields(blob)
    kind, rest = take(inner)
    value, _ = take(rest)
    found = SshSignature(_raw_key(key), _text(namespace), _text(hash_name), value)
    if kind != ED25519.encode() or len(value) != 64:
        raise Invalid("the signature is not of its key's kind", where="ssh signature")
    if not found.namespace:
        raise Invalid("the signature does not say what it is for", where="ssh signature")
    _known_hash(found.hash_name)
    if found.blob() != blob:
        raise Invalid("the signature's bytes are not in their one form", where="ssh signature")
    return found


def key_kind(blob: bytes) -> str:
    """The kind of key that a binary signature claims, as OpenSSH names it: also one that we cannot check."""
    return _text(take(_fields(blob)[0])[0])


def signed_data(namespace: str, message: bytes, hash_name: str) -> bytes:
    """The bytes that the inner ed25519 signature is over."""
    _known_hash(hash_name)
    hashed = hashlib.new(hash_name, message).digest()
    fields = (namespace.encode(), b"", hash_name.encode(), hashed)
    return MAGIC + b"".join(string(field) for field in fields)


def armour(blob: bytes, width: int = WIDTH) -> str:
    """The text form of a binary signature, as ``ssh-keygen -Y sign`` writes it."""
    text = base64.b64encode(blob).decode()
    lines = [text[start : start + width] for start in range(0, len(text), width)]
    return "\n".join((BEGIN, *lines, END, ""))


def dearmour(text: str) -> bytes:
    """The binary signature in a text; the inverse of `armour`.

    Other programs than OpenSSH break the lines elsewhere: the first line says where.
    """
    lines = text.split("\n") if len(text) <= MAX_BYTES else []
    if len(lines) < 4 or not lines[1]:
        raise Invalid("not an SSH signature", where="ssh signature")
    blob = _base64("".join(lines[1:-2]))
    if armour(blob, len(lines[1])) != text:
        raise Invalid("the signature's text is not in its one form", where="ssh signature")
    return blob


def parse_public_key(line: str) -> bytes:
    """The raw 32 bytes of ``ssh-ed25519 AAAA… comment``: a line of a ``.pub`` file."""
    words = line.split(None, 2) if len(line) <= MAX_BYTES else []
    if len(words) < 2 or "\n" in line.strip():
        raise Invalid(
            "not an OpenSSH public key",
            where="public key",
            next_move="give the one line of a .pub file: ssh-ed25519 AAAA… comment",
        )
    if words[0] != ED25519:
        raise _other_kind(words[0])
    raw = _raw_key(_base64(words[1]))
    if public_key_line(raw).split()[1] != words[1]:
        raise Invalid("the key's text is not in its one form", where="public key")
    return raw


def public_key_line(raw: bytes, comment: str = "") -> str:
    """The line of a ``.pub`` file, without its end; the inverse of `parse_public_key`."""
    return f"{ED25519} {base64.b64encode(key_blob(raw)).decode()} {comment}".rstrip()


def fingerprint(raw: bytes) -> str:
    """The name that ``ssh-keygen -l`` and ``ssh-add -l`` show for a key."""
    hashed = hashlib.sha256(key_blob(raw)).digest()
    return "SHA256:" + base64.b64encode(hashed).decode().rstrip("=")


def split_commit(raw: bytes) -> tuple[bytes, str]:
    """A git commit object's bytes as (what was signed, the signature's text or "").

    What was signed is the object without the header ``gpgsig`` (``gpgsig-sha256`` in a repository of
    SHA-256 ids), and also without the one for the other kind of ids, as git does it.
    """
    head, gap, message = raw.partition(b"\n\n")
    lines = head.split(b"\n")
    word, _, tree = lines[0].partition(b" ")
    if word != b"tree" or len(tree) not in (40, 64):
        raise Invalid("not a commit object", where="commit")
    ours = b"gpgsig" if len(tree) == 40 else b"gpgsig-sha256"
    kept: list[bytes] = []
    signature: list[bytes] = []
    name, times = b"", 0
    for line in lines:
        if not line.startswith(b" "):
            name = line.partition(b" ")[0]
            times += name == ours
        if name == ours:
            signature.append(line.removeprefix(ours).removeprefix(b" "))
        elif not name.startswith(b"gpgsig"):
            kept.append(line)
    if times > 1:
        raise Invalid("the commit is signed more than once", where="commit")
    text = b"\n".join((*signature, b"")) if signature else b""
    return b"\n".join(kept) + gap + message, text.decode("ascii", errors="replace")


def string(value: bytes) -> bytes:
    """SSH's ``string``: the length in four bytes, then the bytes."""
    return len(value).to_bytes(4, "big") + value


def take(data: bytes) -> tuple[bytes, bytes]:
    """The ``string`` that *data* begins with, and what follows it."""
    end = 4 + int.from_bytes(data[:4], "big")
    if len(data) < max(4, end):
        raise Invalid("it ends too early", where="ssh data")
    return data[4:end], data[end:]


def key_blob(raw: bytes) -> bytes:
    """A public key as it is inside signatures, ``.pub`` files and the agent's messages."""
    return string(ED25519.encode()) + string(raw)


def _fields(blob: bytes) -> list[bytes]:
    """Key, namespace, reserved, hash and inner signature. What comes after them is not looked at here."""
    start = MAGIC + VERSION
    if len(blob) > MAX_BYTES or not blob.startswith(start):
        raise Invalid("not an SSH signature of version 1", where="ssh signature")
    fields, rest = [], blob[len(start) :]
    for _ in range(5):
        field, rest = take(rest)
        fields.append(field)
    return fields


def _raw_key(blob: bytes) -> bytes:
    kind, rest = take(blob)
    if kind != ED25519.encode():
        raise _other_kind(_text(kind))
    raw, rest = take(rest)
    if len(raw) != 32 or rest:
        raise Invalid("not an ed25519 public key", where="public key")
    return raw


def _other_kind(kind: str) -> Invalid:
    if kind.startswith(("sk-ssh-ed25519", "sk-ecdsa")):
        return Invalid(
            "a key on a security token (sk-…), which cannot be checked here yet",
            where="public key",
            next_move=MAKE_ONE,
        )
    return Invalid(f"a key of kind {kind[:40]!r}, not {ED25519}", where="public key", next_move=MAKE_ONE)


def _known_hash(name: str) -> None:
    if name not in HASHES:
        raise Invalid(f"unknown hash {name[:40]!r}; known: {', '.join(HASHES)}", where="ssh signature")


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Invalid("not text", where="ssh data") from error


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("not base64", where="ssh data") from error
