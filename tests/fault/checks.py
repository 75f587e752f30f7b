"""What must hold after a delivery with kills in it, as if nobody had been killed.

Used by `rig` and `clustered`. Each function says in words what is wrong; nothing is loosened because somebody
was killed.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.machine import Machine

View = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """What an undisturbed delivery leaves: keys of its records in order, and how many statements of a kind.

    Looks are left aside: their number depends on the time. Of what runs side by side, either may end first.
    """

    keys: tuple[str, ...]
    kinds: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, view: View) -> Shape:
        keys = tuple(step["key"] for step in view["steps"] if "/look/" not in step["key"])
        kinds = Counter(entry["what"] for entry in view["evidence"] if entry["what"] != "Look")
        return cls(_in_order(keys), tuple(sorted(kinds.items())))


#: Both come after the build and before the deployment, and neither after the other.
SIDE_BY_SIDE = ("scan/scan/0", "tests/suite/0")


def _in_order(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys with those that stand side by side, and next to one another, in alphabetical order."""
    groups = itertools.groupby(keys, lambda key: key in SIDE_BY_SIDE)
    return tuple(key for beside, group in groups for key in (sorted(group) if beside else group))


def world_wrong(machine: Machine, view: View) -> list[str]:
    """What the data plane and the node do not agree with."""
    home = machine.home
    placed = {path.stem for path in (home.node / "w" / "releases").glob("*.json")}
    processes = Counter(_instances(home.node))
    wrong = [
        (placed != {view["release"], predecessor(view)}, f"placed: {sorted(placed)}"),
        (processes != Counter(placed), f"processes of instances: {dict(processes)}"),
        (_envoys(home.node) != 1, f"{_envoys(home.node)} Envoys run"),
    ]
    return traffic_wrong(machine, view, placed) + [words for bad, words in wrong if bad]


def traffic_wrong(machine: Machine, view: View, placed: set[str]) -> list[str]:
    """What the data plane does not agree with, where *placed* is what should be known to it."""
    (row,) = machine.client.get("/v1/status")["services"]
    live, known = view["release"], {release["release"]: release for release in row["releases"]}
    wrong = [
        (row["live"] != live, f"{row['live']} is live, not {live}"),
        (row["weights"] != [{"release": live, "per_cent": 100.0}], f"weights: {row['weights']}"),
        (row["drift"], "drift"),
        (bool(row["problem"]), row["problem"]),
        (row["delivering"], f"{row['delivering']} is still delivering"),
        (known.get(live, {}).get("ready") != 1, f"{live} is not ready"),
        (set(known) != placed, f"the proxy knows {sorted(known)}, placed are {sorted(placed)}"),
    ]
    return [words for bad, words in wrong if bad]


def predecessor(view: View) -> str:
    (begin,) = [step for step in view["steps"] if step["key"] == "begin/begin/0"]
    return str(begin["reason"]).removeprefix("live: ")


def _instances(node: Path) -> Iterator[str]:
    """The release of every instance's outermost process."""
    pattern = re.compile(re.escape(f"{node}/w/data/") + r"([^ /]+)")
    found = {}
    for process, words in _processes():
        if match := pattern.search(words):
            with contextlib.suppress(psutil.NoSuchProcess):
                found[process.pid] = (process.ppid(), match[1])
    for parent, release in found.values():
        if parent not in found:
            yield release


def _envoys(node: Path) -> int:
    mark = f" -c {node}/envoy/envoy.json "
    return sum(mark in f"{words} " for _, words in _processes())


def record_wrong(view: View, shape: Shape) -> list[str]:
    """How its records and evidence differ from those of an undisturbed delivery."""
    own = Shape.of(view)
    cited = [index for step in view["steps"] for index in step["entries"]]
    ends = [entry["index"] for entry in view["evidence"] if entry["what"] == "Ended"]
    wrong = [
        (own.keys != shape.keys, f"records {own.keys}"),
        (own.kinds != shape.kinds, f"evidence {own.kinds}"),
        (len(ends) != 1, f"{len(ends)} entries say that it ended"),
        (len(set(cited)) != len(cited), "an entry is cited twice"),
        (
            {*cited, *ends} != {entry["index"] for entry in view["evidence"]},
            "evidence that no record cites, or a record without its evidence",
        ),
    ]
    return [words for bad, words in wrong if bad]


def _processes() -> Iterator[tuple[psutil.Process, str]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process, " ".join(process.cmdline())
