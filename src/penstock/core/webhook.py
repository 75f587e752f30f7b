"""Webhooks: their names, secrets and signatures, as Standard Webhooks (standardwebhooks.com) writes them.

Called by `engine.webhooks` and by the server, which makes the secrets. Must not read or keep one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass

from penstock.errors import Invalid

PREFIX = "whsec_"
#: In bytes; the specification asks for 24 to 64.
SECRET_BYTES = 32
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class Webhook:
    """Somebody who is told of events. *disabled* says why nothing is sent any more; "" while it is."""

    name: str
    url: str
    disabled: str = ""


def name_of(text: str) -> str:
    """The text, if it can name a webhook."""
    if not NAME.fullmatch(text):
        raise Invalid(
            f"{text[:60]!r} cannot name a webhook",
            where="name",
            next_move="use 1 to 40 of a-z, 0-9 and -, beginning with a letter or digit",
        )
    return text


def written(secret: bytes) -> str:
    """The secret as people hand it on."""
    return PREFIX + base64.b64encode(secret).decode()


def read_secret(text: str) -> bytes:
    """The inverse of `written`."""
    try:
        secret = base64.b64decode(text.strip().removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("not a webhook's secret", next_move="remove the webhook and add it again") from error
    if len(secret) < 24:
        raise Invalid("a webhook's secret is too short", next_move="remove the webhook and add it again")
    return secret


def headers(secret: bytes, name: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message called *name*: whoever has the secret can check them."""
    signed = f"{name}.{timestamp}.".encode() + body
    value = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": name, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{value}"}
