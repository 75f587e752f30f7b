"""Commands about evidence and the ledger, and the offline ``verify``. Thin: they call and print.

Called by `main`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import find, names
from penstock.cli.client import Client
from penstock.cli.ended import latest
from penstock.cli.show import document, mark, read, say, table, told
from penstock.core.codec import decode, encode
from penstock.core.wording import plural
from penstock.errors import Invalid
from penstock.ledger.bundle import check
from penstock.ledger.fsck import Trust


def evidence(given: argparse.Namespace) -> int:
    client = Client.find()
    if given.verb == "list":
        view = client.get("/v1/evidence", delivery=given.name and latest(client, given.name))
        rows = [(e["index"], e["what"], e["subjects"][0]["name"], e["digest"][:19]) for e in view["entries"]]
        return told(given, view, table(("entry", "what", "about", "digest"), rows))
    if given.verb == "add":
        return _add_evidence(given, client)
    if not given.name:
        raise Invalid(f"evidence {given.verb} needs {'an index' if given.verb == 'show' else 'a delivery'}")
    if given.verb == "show":
        if not given.name.isdigit():
            raise Invalid(f"{given.name!r} is not the index of an entry", next_move="penstock evidence list")
        view = client.get(f"/v1/evidence/{given.name}")
        return told(given, view, json.dumps(view["predicate"], indent=2))
    text = client.text(f"/v1/deliveries/{latest(client, given.name)}/bundle")
    if given.file is None:
        print(text, end="")  # the exact bytes: a bundle has one form
        return 0
    given.file.write_text(text)
    return told(
        given,
        {"file": str(given.file)},
        f"✓ wrote {given.file}; check it with: penstock verify {given.file} --trust {Home.find().trust}",
    )


def _add_evidence(given: argparse.Namespace, client: Client) -> int:
    if not given.name:
        raise Invalid("evidence add needs a file", next_move="penstock evidence add junit.xml --for DELIVERY")
    path = Path(given.name)
    query = {"about": given.about, "format": given.kind, "suite": given.suite, "name": path.name}
    view = client.send("/v1/evidence", read(path), **query)
    rows = [f"✓ entry {e['index']}: {e['what']} about {e['subjects'][0]['name']}" for e in view["entries"]]
    return told(given, view, "\n".join(rows))


def ledger_checkpoint(given: argparse.Namespace) -> int:
    text = Client.find().text("/v1/ledger/checkpoint")
    return told(given, {"checkpoint": text}, text.rstrip())


def ledger_verify(given: argparse.Namespace) -> int:
    began = time.monotonic()
    kept = {"kept": read(given.kept).decode(errors="replace")} if given.kept else {}
    view = Client.find().post("/v1/ledger/verify", kept)
    if given.format == "json":
        document(view)
    else:
        for problem in view["problems"]:
            say(f"✗ {problem}")
        words = "verified" if view["verified"] else "DOES NOT VERIFY"
        again = f"{plural(view['entries'], 'entry')}, {plural(view['sign_offs'], 'sign-off')} computed again"
        took = f"{time.monotonic() - began:.1f} s"
        say(
            f"{mark(view['verified'])} {again}, {plural(view['checkpoints'], 'checkpoint')}: {words} ({took})"
        )
        say(f"  root {view['root']}")
        if kept and view["verified"]:
            say(f"  it begins with the entries of {given.kept}")
    return 0 if view["verified"] else 1


def verify(given: argparse.Namespace) -> int:
    """Offline: no server, no database, no network."""
    try:
        trust = decode(Trust, json.loads(read(given.trust)), given.trust.name)
    except ValueError as error:
        raise Invalid(f"not a trust file: {error}", where=str(given.trust)) from error
    languages = {name: find("language", name)() for name in names("language")}
    steps = check(read(given.bundle), trust, languages)
    good = all(step.ok for step in steps)
    if given.format == "json":
        document({"verified": good, "steps": [encode(step) for step in steps]})
    else:
        for number, step in enumerate(steps, 1):
            say(f"{number:>3}. {mark(step.ok)} {step.what}" + (f": {step.reason}" if step.reason else ""))
        say(f"{mark(good)} {'verified' if good else 'NOT verified'}")
    return 0 if good else 1
