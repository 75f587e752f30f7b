"""``penstock ledger witness``: the list of witnesses that are asked to cosign the ledger's checkpoints.

Called by `verbs.ledger`. The server keeps the list, and asks them.
"""

from __future__ import annotations

import argparse
from typing import Any

from penstock.cli.client import Client
from penstock.cli.show import mark, table, told
from penstock.errors import Invalid

#: Each verb's words after it.
WORDS = {"list": (), "add": ("URL", "KEY"), "remove": ("NAME",)}


def witness(given: argparse.Namespace) -> int:
    verb, *words = given.words or ["list"]
    if verb not in WORDS or len(words) != len(WORDS[verb]):
        forms = "; ".join(" ".join((name, *wanted)) for name, wanted in WORDS.items())
        raise Invalid(f"ledger witness has the forms: {forms}", next_move="penstock ledger witness --help")
    client = Client.find()
    if verb == "list":
        view = client.get("/v1/ledger/witnesses")
        return told(given, view, _listed(view["witnesses"]))
    if verb == "add":
        view = client.post("/v1/ledger/witnesses", {"url": words[0], "key": words[1]})
        return told(given, view, f"✓ {view['name']} is asked from now on; penstock ledger witness list")
    view = client.post("/v1/ledger/witnesses/remove", {"name": words[0]})
    return told(given, view, f"✓ {view['name']} is asked no more; its cosignatures stay")


def _listed(witnesses: list[dict[str, Any]]) -> str:
    rows = [(w["name"], w["signed"], mark(not w["problem"]), w["url"], w["problem"]) for w in witnesses]
    head = ("witness", "entries signed", "", "url", "problem")
    return table(head, rows) if rows else "nobody is asked; penstock ledger witness add URL KEY"
