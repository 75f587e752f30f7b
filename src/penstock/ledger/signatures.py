"""Whose signature it is: the one question that every check of the ledger asks.

Called by the ledger when it appends, by `ledger.fsck` and `ledger.bundle` when they check, and for
checkpoints. It takes plain ed25519 signatures (machines, ssh-agent) and OpenSSH's (``ssh-keygen -Y sign``),
and must say no to everything else, whatever the bytes are.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from penstock.core.sshsig import MAGIC, NAMESPACE, parse, signed_data
from penstock.errors import Invalid

PLAIN = 64


def signed_by(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature over the message is this ed25519 key's. Never raises.

    64 bytes are a plain signature; what begins with ``SSHSIG`` is OpenSSH's and has to be made for us.
    """
    try:
        if len(signature) == PLAIN:
            return _verified(public_key, message, signature)
        return signature.startswith(MAGIC) and _signed_with_ssh(public_key, message, signature)
    except Invalid:
        return False


def _signed_with_ssh(public_key: bytes, message: bytes, signature: bytes) -> bool:
    found = parse(signature)
    if found.public_key != public_key or found.namespace != NAMESPACE:
        return False
    return _verified(public_key, signed_data(NAMESPACE, message, found.hash_name), found.signature)


def _verified(public_key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
