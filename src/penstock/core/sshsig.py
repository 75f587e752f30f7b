"""SSH keys. Pure."""

from __future__ import annotations

import base64

from penstock.errors import Invalid


def public_key(text: str) -> bytes:
    """The raw 32 bytes of an ``ssh-ed25519`` public key line."""
    parts = text.split()
    if len(parts) < 2 or parts[0] != "ssh-ed25519":
        raise Invalid("not an ssh-ed25519 public key")
    blob = base64.b64decode(parts[1])
    return blob[-32:]
