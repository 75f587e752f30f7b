"""Signer: an ed25519 key in a file of its own, readable by its owner alone.

Found as ``penstock.signer: ed25519``. The file holds the raw 32-byte seed in hex. The private key never
leaves this object.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from penstock.adapters._keyfile import read_private
from penstock.errors import Invalid
from penstock.ports import Signature


class Ed25519:
    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw()
        self.keyid = hashlib.sha256(self.public_key).hexdigest()

    @classmethod
    def create(cls, path: Path) -> Ed25519:
        """Make a key and keep it at *path* (0600). `Invalid` if something is there already.

        Whole or not at all: half of one, of a machine that stopped, would keep every later start from it. And
        it is on the disk before anything that it signs is.
        """
        key = Ed25519PrivateKey.generate()
        try:
            _keep(path, key.private_bytes_raw().hex() + "\n")
        except OSError as error:
            raise Invalid(f"cannot keep a new key: {error.strerror}", where=str(path)) from error
        return cls(key)

    @classmethod
    def load(cls, path: Path) -> Ed25519:
        """Read a key. `Invalid` if others may read the file, or it holds no key."""
        text = read_private(path)
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text.decode().strip())))
        except ValueError as error:
            raise Invalid("not an ed25519 seed of 32 bytes in hex", where=str(path)) from error

    def sign(self, payload: bytes) -> Signature:
        return Signature(self.keyid, self._key.sign(payload))


def _keep(path: Path, text: str) -> None:
    """Write a file of one's own where none is (`FileExistsError`)."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
