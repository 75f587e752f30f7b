"""``penstock experiment``: how many users one would take, start one, how it stands, stop it.

Called by `main`. Planning needs no server; everything else asks one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from penstock.analysis.experiment import plan
from penstock.cli.client import Client
from penstock.cli.follow import follow, print_step
from penstock.cli.show import mark, read, table, told
from penstock.core.codec import encode
from penstock.errors import Invalid
from penstock.experimentfile import parse_experiment

FILE = "experiments/NAME.yaml"
#: An experiment may take so long (seconds), and be waited for.
LONGEST = 91 * 86400.0


def parsers(verb: Any) -> None:
    """The verbs of ``penstock experiment``; *verb* adds one."""
    what = "how many users it takes, and how long, before it begins"
    planning = verb("plan", planned, what, "penstock experiment plan button.yaml --rate 5 --per-day 2000")
    planning.add_argument("file", type=Path, metavar="FILE", help=FILE)
    planning.add_argument(
        "--rate", type=float, required=True, help="per cent of users who reach the goal now"
    )
    planning.add_argument("--per-day", type=float, default=0.0, help="users that come in a day")
    what = "deal users to what is live and to the variants"
    start = verb("start", started, what, "penstock experiment start button.yaml")
    start.add_argument("file", type=Path, metavar="FILE", help=FILE)
    start.add_argument("--wait", action="store_true", help="until it has ended")
    show = verb("status", shown, "how it stands", "penstock experiment status shop-1a2b3c4d")
    show.add_argument("delivery")
    stop = verb("stop", stopped, "end it now; users go back", "penstock experiment stop shop-1a2b3c4d")
    stop.add_argument("delivery")


def planned(given: argparse.Namespace) -> int:
    """Exit code 1 if it could not tell in its time."""
    if not 0 < given.rate < 100 or given.per_day < 0:
        raise Invalid(
            "a rate between 0 and 100 per cent, and users per day from 0", where="--rate, --per-day"
        )
    asked = parse_experiment(read(given.file), str(given.file))
    found = plan(asked, given.rate / 100, given.per_day)
    view = {"experiment": asked.name, **encode(found)}
    told(given, view, f"{mark(found.reachable)} {found.words}")
    return 0 if found.reachable else 1


def started(given: argparse.Namespace) -> int:
    """With ``--wait``: exit code 1 unless a variant is shown to be what was asked for."""
    source, client = read(given.file), Client.find()
    parse_experiment(source, str(given.file))
    body = {"source": source.decode(), "name": str(given.file)}
    delivery = client.post("/v1/experiments", body)["delivery"]
    if not given.wait:
        words = f"▸ {delivery}; next: penstock experiment status {delivery}"
        return told(given, {"delivery": delivery}, words)
    quiet = given.format == "json"
    ended = follow(client, delivery, (lambda step: None) if quiet else print_step, LONGEST)
    given.delivery = delivery
    shown(given)
    return 0 if ended["state"] == "success" else 1


def shown(given: argparse.Namespace) -> int:
    view = Client.find().get(f"/v1/deliveries/{given.delivery}/experiment")
    rows = [_row(one) for one in view["variants"]]
    head = ("variant", "users", "reached", "rate", "control", "change", "verdict")
    words = f"▸ {view['delivery']}  {view['outcome'] or view['state']}  {view['title']}"
    words += f"\n{table(head, rows)}" if rows else "\nno user has been looked at yet"
    return told(given, view, f"{words}\n{view['says']}" if view["says"] else words)


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    high = f"{100 * (one['high'] - 1):+.1f}%" if one["high"] is not None else "more"
    change = f"{100 * (one['low'] - 1):+.1f}% to {high}"
    rates = [
        f"{100 * arm['reached'] / arm['users']:.2f}%" if arm["users"] else "–"
        for arm in (one, one["control"])
    ]
    return one["variant"], one["users"], one["reached"], *rates, change, one["verdict"]


def stopped(given: argparse.Namespace) -> int:
    client = Client.find()
    view = client.get(f"/v1/deliveries/{given.delivery}/experiment")
    answer = client.post(f"/v1/deliveries/{view['delivery']}/abort")
    return told(given, answer, f"users go back to what is live; penstock status {view['delivery']}")
