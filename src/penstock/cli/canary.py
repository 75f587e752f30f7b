"""``penstock canary``: what a canary will be able to show, and what was or would have been said of one.

Called by `main`. A file of one's own is judged here; everything else asks a server.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from penstock.analysis.judge import spans_of
from penstock.analysis.replay import replay, rows_of
from penstock.cli.client import Client
from penstock.cli.ended import latest
from penstock.cli.show import complain, mark, read, table, told
from penstock.config import ServiceConfig, parse
from penstock.core.canaryconfig import DEFAULT_JUDGE, CanaryConfig
from penstock.core.codec import encode
from penstock.errors import Invalid

CANARY = "try the canary section of this penstock.yaml instead"


def parsers(verb: Any) -> None:
    """The verbs of ``penstock canary``; *verb* adds one."""
    what = "what a canary of a service could show, at the traffic it has now"
    plan = verb("plan", planned, what, "penstock canary plan shop")
    plan.add_argument("service")
    plan.add_argument("--canary", type=Path, metavar="FILE", help=CANARY)
    plan.add_argument("--seconds", type=float, default=3.0, help="watch traffic for so long (default 3)")
    what = "judge the looks of an earlier canary again, or those of a file"
    again = verb("replay", replayed, what, "penstock canary replay shop-1a2b3c4d")
    again.add_argument("delivery", nargs="?")
    again.add_argument("--file", type=Path, help="JSON or CSV, with a row for each interval")
    again.add_argument("--canary", type=Path, metavar="FILE", help=CANARY)
    again.add_argument("--slow-ms", type=float, help="what counts as slow in the file (default: not judged)")


def planned(given: argparse.Namespace) -> int:
    """Exit code 1 if the canary could not tell in its time."""
    body = {"seconds": given.seconds, "canary": encode(_canary(given.canary))}
    view = Client.find().post(f"/v1/services/{given.service}/canary/plan", body)
    head = ("step", "seconds", "new", "stable", "would find a rise to", "passes if it is as good")
    rows = [
        (
            f"{step['share'] / 10:g}%",
            f"{step['seconds']:g}",
            f"{step['new']:.0f}",
            f"{step['stable']:.0f}",
            f"{100 * step['detectable']:.2g}%" if step.get("detectable") is not None else "–",
            mark(step["passes"]),
        )
        for step in view["steps"]
    ]
    told(given, view, f"{mark(view['reachable'])} {view['words']}\n\n{table(head, rows)}")
    return 0 if view["reachable"] else 1


def replayed(given: argparse.Namespace) -> int:
    """Exit code 1 if the judge stops it, or cannot tell."""
    if (given.delivery is None) == (given.file is None):
        raise Invalid("a delivery, or a file", next_move="penstock canary replay --file looks.csv")
    canary = _canary(given.canary)
    if given.file is not None:
        view = _of_file(given, canary)
    else:
        client = Client.find()
        path = f"/v1/deliveries/{latest(client, given.delivery)}/canary/replay"
        view = client.post(path, {"canary": encode(canary)})
        complain(f"then: {view['then']['verdict']}: {view['then']['reason']}")
    rows = [
        (number, f"{look['at']:.0f}", f"{look['share'] / 10:g}%", look["verdict"], _effect(look))
        for number, look in enumerate(view["looks"], 1)
    ]
    head = ("look", "seconds", "share", "verdict", "failed more, points")
    where = f" at look {view['stopped']} of {len(rows)}" if view["stopped"] else ""
    told(given, view, f"{view['verdict']}{where}: {view['reason']}\n\n{table(head, rows)}")
    return 0 if view["verdict"] == "PASS" else 1


def _of_file(given: argparse.Namespace, canary: CanaryConfig | None) -> dict[str, Any]:
    """Without a plan of its own, the last row of a file is the declared last look."""
    rows = rows_of(read(given.file).decode(errors="replace"), str(given.file))
    planned = canary.planned if canary is not None else rows[-1][0] / 1000
    rule = ((canary and canary.judge) or DEFAULT_JUDGE).rule(planned, given.slow_ms)
    view: dict[str, Any] = encode(replay(spans_of(rows), rule))
    return {"stopped": None, **view}


def _effect(look: dict[str, Any]) -> str:
    if look.get("effect") is None:
        return "–"
    return f"{100 * look['effect']:+.2f} ({100 * look['low']:+.2f} to {100 * look['high']:+.2f})"


def _canary(path: Path | None) -> CanaryConfig | None:
    if path is None:
        return None
    found = parse(ServiceConfig, read(path), str(path)).canary
    found.check()
    return found
