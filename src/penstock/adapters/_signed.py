"""Whose SSH signature a git commit carries: checked for the git adapter. Not for others."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from penstock.core import sshsig
from penstock.errors import Invalid


def signing_key(raw: bytes, where: str) -> str:
    """The public key in hex that signed the commit object *raw*.

    "" if it is not signed, or not with an ed25519 key of OpenSSH's; `Invalid` if it seems to be and is not.
    """
    try:
        payload, text = sshsig.split_commit(raw)
        if not text.startswith(sshsig.BEGIN):
            return ""
        blob = sshsig.dearmour(text)
        if sshsig.key_kind(blob) != sshsig.ED25519:
            return ""
        found = sshsig.parse(blob)
        if found.namespace != sshsig.GIT:
            raise Invalid(f"it is a signature for {found.namespace[:40]!r}, not for {sshsig.GIT!r}")
        signed = sshsig.signed_data(sshsig.GIT, payload, found.hash_name)
        Ed25519PublicKey.from_public_bytes(found.public_key).verify(found.signature, signed)
    except (Invalid, InvalidSignature, ValueError) as error:
        why = error.what if isinstance(error, Invalid) else "it is not over these bytes"
        raise Invalid(
            f"the commit's SSH signature is bad: {why}",
            where=where,
            next_move="sign it again: git commit --amend --no-edit -S",
        ) from error
    return found.public_key.hex()
