"""The matrix: its parts put together, and its page, a table for each configuration in the order of delivery.

Pure. Called by `matrix`; the figures are those of the run that writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Document = dict[str, Any]

HEAD = """\
# The fault matrix

Written by `make fault`, or from saved runs of single configurations (`--write`); do not edit.

One delivery for each cell: the victim was killed with SIGKILL at that
boundary, what a supervisor brings back was brought back, and afterwards all of this held:

* the delivery ended once, promoted, with the same records in the same order and the same evidence as if
  nobody had been killed (looks of the canary aside: their number depends on the time), each of it in the
  ledger once;
* `penstock ledger verify` passes;
* the data plane agrees: the live release has all traffic and is ready, nothing else is placed but the
  release before it, each instance is one process, and there is one Envoy.

A boundary lies before or after a call that changes something outside, or before or after a commit. They were
recorded during the run, first without a kill and then with kills; *after …* names the kill that leads to one
that an undisturbed delivery does not come by. *worker* is whoever drives the delivery, be it a worker or the
server; where there are several, the *server* is killed by name too, whether or not it drives. A cell says how
many seconds longer than an undisturbed delivery it took until all of the above held; empty: not run.

Where releases run in a cluster (the fake one, with a real registry, a real Prometheus and processes as pods),
each write that reaches its API has boundaries too. *api* is no kill: the API is away for 1.5 seconds, every
connection and watch is cut, and once it is back its first answers are 503. *pods* are all pods of all
releases, deleted without notice; the cluster makes others, at other addresses. Before a write, and there
alone, four more things go wrong: *busy*, it is answered 429 with Retry-After; *quota*, it is answered with
the conflict (409) of a quota in which others are counted too; *meddler*, somebody else changes every object
of its kind, so that what was read is old (409); *history*, the API forgets what was, and watches end
with 410.

Afterwards the cluster agrees too: there is nothing in the namespace but what the live release and the one
before it are made of, each with one copy; who asks at the gateway gets the new version; and no object ever
got a lower fence than it had.
"""


def page(documents: Sequence[Document]) -> str:
    summary = [
        "| configuration | boundaries | deliveries with kills | as if nothing had been | slowest "
        "| took | commit |"
    ]
    summary += ["|---|---:|---:|---:|---:|---:|---|"]
    for document in documents:
        results = document.get("results", [])
        good = [r for r in results if is_good(r)]
        slowest = max((r["seconds"] for r in good), default=0.0)
        counts = f"{len(document.get('boundaries', []))} | {len(results)} | {len(good)}"
        took = f"{document.get('seconds', 0.0) / 60:.0f} min | {document.get('commit', '')}"
        summary.append(f"| {title(document)} | {counts} | +{slowest:.1f} s | {took} |")
    parts = [HEAD, "\n".join(summary), *(_section(document) for document in documents)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def merged(documents: Sequence[Document]) -> list[Document]:
    """One for each configuration: several processes may have found a part of it each.

    Of a cell that was run twice, what was wrong stands; else what was reached.
    """
    parts: dict[str, list[Document]] = {}
    for document in documents:
        parts.setdefault(title(document), []).append(document)
    return [_whole(found) for found in parts.values()]


def _whole(parts: Sequence[Document]) -> Document:
    boundaries: Document = {}
    cells: dict[tuple[str, str], Document] = {}
    for part in parts:
        for name, after in part["boundaries"].items():
            boundaries[name] = min(boundaries.get(name, after), after, key=len)
        for result in part["results"]:
            cell = result["boundary"], result["victim"]
            cells[cell] = max(cells.get(cell, result), result, key=_weight)
    return {
        "configuration": parts[0]["configuration"],
        "boundaries": boundaries,
        "undisturbed": min(part["undisturbed"] for part in parts),
        "seconds": sum(part["seconds"] for part in parts),
        "commit": ", ".join(dict.fromkeys(one for part in parts for one in part["commit"].split(", "))),
        "results": list(cells.values()),
    }


def _weight(result: Document) -> tuple[bool, bool]:
    return bool(result["wrong"]), bool(result["reached"])


def title(document: Document) -> str:
    made = document.get("configuration", {"store": "?", "workers": 0})
    words = f"{made['store']}, {made['workers']} worker{'s' if made['workers'] > 1 else ''}"
    return words if made.get("target", "node") == "node" else f"{words}, {made['target']}"


def is_good(result: Document) -> bool:
    return bool(result["reached"] and not result["wrong"])


def _section(document: Document) -> str:
    results = document.get("results", [])
    victims = list(dict.fromkeys(result["victim"] for result in results))
    cells = {(r["boundary"], r["victim"]): _cell(r) for r in results}
    after = {r["boundary"]: r["after"] for r in results}
    lines = [
        f"## {title(document)}",
        "",
        f"| boundary | {' | '.join(victims)} |",
        "|---|" + "---:|" * len(victims),
    ]
    for boundary in _ordered(after):
        row = " | ".join(cells.get((boundary, victim), "") for victim in victims)
        lines.append(f"| {boundary}{_path(after[boundary])} | {row} |")
    wrong = [r for r in results if not is_good(r)]
    lines += [
        "",
        *(f"* {r['victim']} at {r['boundary']}: {'; '.join(r['wrong']) or 'not reached'}" for r in wrong),
    ]
    return "\n".join(lines)


def _cell(result: Document) -> str:
    return f"+{result['seconds']:.1f}" if is_good(result) else "✗"


def _path(after: Iterable[Document]) -> str:
    kills = ", ".join(f"{kill['victim']} at {kill['boundary']}" for kill in after)
    return f" *(after {kills})*" if kills else ""


def _ordered(boundaries: Iterable[str]) -> Iterator[str]:
    """By intent in the order of the first finding; ones that belong to no intent come first."""
    listed = list(boundaries)
    intents = list(dict.fromkeys(["-", *(intent_of(name) for name in listed)]))
    return iter(sorted(listed, key=lambda name: (intents.index(intent_of(name)), listed.index(name))))


def intent_of(boundary: str) -> str:
    return boundary.removeprefix("node: ").split(" ")[0]
