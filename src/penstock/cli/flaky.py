"""Flaky tests: which there are, and what the test lead says of them.

Called by `main`. A quarantine is one signed statement; whoever is not the service's test lead is refused.
"""

from __future__ import annotations

import argparse
import time

from penstock.cli.client import Client
from penstock.cli.people import seconds
from penstock.cli.show import complain, table, told
from penstock.cli.signing import NOBODY, add_options, say
from penstock.core.people import Quarantine


def quarantine_parser(command: argparse.ArgumentParser) -> None:
    command.add_argument("service")
    command.add_argument("test", help="its name, as the report and `penstock flaky` write it")
    command.add_argument("--reason", required=True)
    command.add_argument("--for", dest="duration", default="14d", help="how long it holds (default 14d)")
    command.add_argument("--lift", action="store_true", help="end it now: its failure blocks again")
    add_options(command)


def flaky(given: argparse.Namespace) -> int:
    view = Client.find().get(f"/v1/services/{given.service}/flaky")
    rows = [
        (one["test"], one["suite"], one["failed"], one["passed"], _quarantine(one["quarantine"]))
        for one in view["flaky"]
    ]
    text = (
        table(("test", "suite", "failed", "passed", "quarantine"), rows)
        if rows
        else "no test is known to be flaky"
    )
    known = {one["test"] for one in view["flaky"]}
    others = [one for one in view["quarantines"] if one["test"] not in known]
    if others:
        text += "\n\n" + table(
            ("quarantined too", "quarantine"), [(o["test"], _quarantine(o)) for o in others]
        )
    return told(given, view, text)


def _quarantine(held: dict[str, object] | None) -> str:
    if held is None:
        return "–"
    ends = time.strftime("%d %b %H:%M UTC", time.gmtime(float(str(held["expires"]))))
    return f"until {ends}, by {held['by']}: {held['reason']}"


def quarantine(given: argparse.Namespace) -> int:
    client = Client.find()
    now = client.get("/v1/whoami")["now"]
    until = now if given.lift else now + seconds(given.duration)
    answer = say(given, client, Quarantine(NOBODY, given.service, given.test, given.reason, until))
    ends = time.strftime("%d %b %H:%M UTC", time.gmtime(until))
    words = (
        "blocks again"
        if given.lift
        else f"is quarantined until {ends}: its failure is shown and does not block"
    )
    if not given.lift and not answer["addresses"]:
        who = answer["identity"]
        complain(f"! this will not count: {who} has no known address, so any change could be their own")
        complain(f"  next: an administrator adds it: penstock identity add {who} --address NAME@EXAMPLE.ORG")
    text = f"✓ {given.test} {words} (entry {answer['index']}, signed as {answer['identity']})"
    return told(given, {"entries": [answer]}, text)
