"""``penstock webhook``: the list of webhooks. The server keeps it, and sends them the events.

Called by `main`.
"""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import quote

from penstock.cli.client import Client
from penstock.cli.show import document, mark, say, table, told

NAME = "of a webhook: a-z, 0-9 and -"


def parsers(verb: Any) -> None:
    """*verb* adds one verb to ``penstock webhook``."""
    what = "tell one more of what happens from now on; its secret is shown once"
    command = verb("add", add, what, "penstock webhook add chat https://example.com/events")
    command.add_argument("name", help=NAME)
    command.add_argument("url")
    what = "who is told, how far each has been, and what is wrong"
    verb("list", every, what, "penstock webhook list")
    for name, handler, what in (
        ("remove", remove, "tell it no more, and forget its secret"),
        ("test", test, "send one test event now, and say what was answered"),
    ):
        verb(name, handler, what, f"penstock webhook {name} chat").add_argument("name", help=NAME)


def add(given: argparse.Namespace) -> int:
    view = Client.find().post("/v1/webhooks", {"name": given.name, "url": given.url})
    words = f"✓ {view['name']} is told from now on; secret (shown once): {view['secret']}"
    return told(given, view, f"{words}\n  next: penstock webhook test {view['name']}")


def every(given: argparse.Namespace) -> int:
    view = Client.find().get("/v1/webhooks")
    rows = [
        (h["name"], h["behind"], mark(not h["problem"]), h["url"], h["problem"]) for h in view["webhooks"]
    ]
    head = ("webhook", "entries behind", "", "url", "problem")
    return told(given, view, table(head, rows) if rows else "nobody is told; penstock webhook add NAME URL")


def remove(given: argparse.Namespace) -> int:
    view = Client.find().delete(_path(given.name))
    return told(given, view, f"✓ {view['name']} is told no more")


def test(given: argparse.Namespace) -> int:
    view = Client.find().post(f"{_path(given.name)}/test")
    if given.format == "json":
        document(view)
    else:
        say(f"{mark(view['delivered'])} {view['name']} answered {view['status']}")
    return 0 if view["delivered"] else 1


def _path(name: str) -> str:
    return f"/v1/webhooks/{quote(name, safe='')}"
