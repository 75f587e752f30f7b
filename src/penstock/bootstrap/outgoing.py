"""What leaves this machine by itself: webhooks and traces, wired; and the webhooks' secrets, as files.

Called by `bootstrap.control`, and by the server, which makes and removes secrets. A secret is a file of its
own in ``keys/`` (0600), where no workload's sandbox looks; nothing else keeps it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import find
from penstock.core.webhook import SECRET_BYTES, name_of, read_secret, written
from penstock.engine.journal import Journal
from penstock.engine.webhooks import Outside, Webhooks
from penstock.errors import Unavailable
from penstock.ledger.log import Ledger
from penstock.ports import Store


def open_webhooks(home: Home, store: Store, ledger: Ledger, journal: Journal) -> Webhooks:
    """The sender of webhooks, not yet running."""
    outside = Outside(pages(home), find("receiver", "http"), lambda name: webhook_secret(home, name))
    return Webhooks(store, ledger, journal, outside)


def pages(home: Home) -> str:
    """Where people see deliveries."""
    return f"http://localhost:{home.settings.port}"


def webhook_secret(home: Home, name: str) -> bytes:
    try:
        return read_secret(_path(home, name).read_text(encoding="utf-8"))
    except OSError as error:
        raise Unavailable(
            f"the secret of webhook {name} cannot be read: {error.strerror}",
            where=str(_path(home, name)),
            next_move="put it back, or remove the webhook and add it again",
        ) from error


def new_webhook_secret(home: Home, name: str) -> str:
    """Make and keep a secret, in the place of an earlier one; returns it as people hand it on."""
    text = written(secrets.token_bytes(SECRET_BYTES))
    path = _path(home, name)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(
        os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text + "\n")
    fresh.replace(path)
    return text


def drop_webhook_secret(home: Home, name: str) -> None:
    _path(home, name).unlink(missing_ok=True)


def _path(home: Home, name: str) -> Path:
    return home.keys / f"webhook-{name_of(name)}.secret"
