"""Service level objectives: check, publish, retire, list, show.

Called by `main`. Checking a file needs no server; everything else asks one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from penstock.cli import spelling
from penstock.cli.client import Client
from penstock.cli.show import read, table, told
from penstock.cli.signing import NOBODY, add_options, say
from penstock.core.people import SloRetirement, SloVersion
from penstock.slofile import parse_slo

MARKS = {"ok": "✓", "burning": "✗", "exhausted": "✗", "quiet": "…", "unknown": "…"}


def parsers(verb: Any) -> None:
    """The verbs of ``penstock slo``; *verb* adds one."""
    verb("list", listed, "how the objectives of every service stand", "penstock slo list")
    show = verb("show", shown, "how a service's objectives stand, and their texts", "penstock slo show shop")
    show.add_argument("service")
    lint = verb("lint", lint_files, "check OpenSLO files, here", "penstock slo lint slos/*.yaml")
    lint.add_argument("files", nargs="+", type=Path)
    publish = verb("publish", published, "put a version in force", "penstock slo publish slos/shop.yaml")
    publish.add_argument("file", type=Path)
    add_options(publish)
    retire = verb("retire", retired, "take an SLO out of force", "penstock slo retire shop availability")
    retire.add_argument("service")
    retire.add_argument("name")
    retire.add_argument("--reason", required=True)
    add_options(retire)


def listed(given: argparse.Namespace) -> int:
    client, services = Client.find(), list[Any]()
    while page := client.get("/v1/slos", after=services[-1]["service"] if services else "")["services"]:
        services += page
    view = {"services": services}
    rows = [_row(service["service"], one) for service in view["services"] for one in service["objectives"]]
    head = ("", "service", "objective", "target", "window", "left", "burning", "requests", "bad")
    return told(given, view, table(head, rows) if rows else "no SLO is in force")


def _row(service: str, one: dict[str, Any]) -> tuple[object, ...]:
    left = f"{100 * one['left']:.0f}%" if one["left"] is not None else one["state"]
    fastest = max((rate["long_rate"] for rate in one["burns"]), default=0.0)
    target, days = f"{100 * one['target']:g}%", f"{one['window'] / 86400:g} d"
    mark = MARKS[one["state"]]
    return mark, service, one["objective"], target, days, left, f"{fastest:.3g}", one["total"], one["bad"]


def shown(given: argparse.Namespace) -> int:
    view = Client.find().get(f"/v1/slos/{given.service}")
    said = [f"{MARKS[one['state']]} {one['says']}" for one in view["objectives"]]
    texts = [f"# {slo['name']} (entry {slo['index']})\n{slo['source'].rstrip()}" for slo in view["slos"]]
    return told(
        given, view, "\n".join([*said, "", *texts]) if said else f"{given.service} has no SLO in force"
    )


def lint_files(given: argparse.Namespace) -> int:
    documents = [parse_slo(read(path), str(path)) for path in given.files]
    rows = [
        {"service": one.service, "slo": one.name, "objectives": [o.label for o in one.objectives]}
        for one in documents
    ]
    words = [f"✓ {row['slo']} of {row['service']}: {', '.join(row['objectives'])}" for row in rows]
    return told(given, rows, "\n".join(words))


def published(given: argparse.Namespace) -> int:
    source = read(given.file)
    document = parse_slo(source, str(given.file))
    client = Client.find()
    said = SloVersion(NOBODY, document.service, document.name, document.source)
    answer = say(given, client, said)
    spelling.warn_of_service(client, document.service)
    view = {"service": document.service, "slo": document.name, **answer}
    words = f"✓ {document.name} of {document.service} is in force from entry {answer['index']} on"
    return told(given, view, words)


def retired(given: argparse.Namespace) -> int:
    answer = say(given, Client.find(), SloRetirement(NOBODY, given.service, given.name, given.reason))
    view = {"service": given.service, "slo": given.name, **answer}
    return told(
        given, view, f"✓ {given.name} of {given.service} holds no longer, from entry {answer['index']} on"
    )
