"""What goes wrong while users ask: nobody of them notices, but for what a release itself answers.

One Penstock with three workers, and a steady load on its service in each test.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock.errors import Conflict
from tests.e2e.machine import SERVICE, Machine
from tests.fault.checks import View
from tests.fault.listening import Kill
from tests.fault.place import Place
from tests.fault.rig import CONFIG, DELIVERY_SECONDS, REPORT, SETTLE_SECONDS, until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.parametrize("running", ["sqlite"], indirect=True),
    # httpcore leaves the socket of a connection that a dead server refuses to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

RATE = 40
#: A weight is decided, set and recorded: between any two of these moments somebody dies.
MOMENTS = tuple(
    f"{intent} {moment}"
    for intent in ("canary/shift/0", "promote/promote/0")
    for moment in ("router.apply #1 before", "router.apply #1 after", "commit drive._commit #1 after")
)
#: How long Envoy may be away once it is killed, with room for a machine that is busy.
AWAY_SECONDS = 2.0
LONG_CANARY = "canary: {steps: [50], seconds_per_step: 4, look_every: 1, patience: 0}"
#: Half a second for an answer at /slow.
SLOW = SERVICE.replace(
    "    def do_GET(self):\n", "    def do_GET(self):\n        self.path != '/slow/' or time.sleep(2)\n"
)
SLOW = SLOW.replace(
    "import json, os, signal, sys, threading\n", "import json, os, signal, sys, threading, time\n"
)


@contextmanager
def users(m: Machine, rate: int = RATE, path: str = "") -> Iterator[dict[str, Any]]:
    """Their counts, filled in once they have gone."""
    counts: dict[str, Any] = {}
    name = f"load{time.monotonic_ns()}.json"
    with m.load(rate, m.address() + path, name) as file:
        yield counts
    counts |= json.loads(Path(file).read_text())
    assert counts["requests"] > 0


def ship(place: Place, canary: str = "", **more: str) -> str:
    """Begin to deliver a new version, with other lines of its configuration in place of the usual ones."""
    place.versions += 1
    kept = [line for line in CONFIG.splitlines() if not (canary and line.startswith("canary:"))]
    config = "\n".join([*kept, canary, more.pop("also", "")])
    place.machine.commit(f"v{place.versions}", penstock__yaml=config, report__xml=REPORT, **more)
    return place.machine.ship()


def release_of(view: View) -> str:
    return str(view["release"])


def live(m: Machine) -> str:
    (row,) = m.client.get("/v1/status")["services"]
    assert [weight["release"] for weight in row["weights"]] == [row["live"]], row
    assert not row["drift"]
    return str(row["live"])


@pytest.mark.parametrize("victim", ["worker", "node"])
@pytest.mark.long
def test_who_moves_users_dies_at_every_moment_of_it(place: Place, victim: str) -> None:
    with users(place.machine) as counts:
        done = place.deliver([Kill(moment, victim) for moment in MOMENTS], None, place.shape)
    assert len(done.run.killed) == len(MOMENTS)
    assert not done.wrong, done.wrong
    assert counts["failed_by_switching"] == 0, counts["errors"]


@pytest.mark.long
def test_envoy_dies_and_is_back_as_it_was(place: Place) -> None:
    """Who asks while it is away is refused; whoever asks after that is served by a release."""
    with users(place.machine) as counts:
        done = place.deliver([Kill(moment, "envoy") for moment in MOMENTS], None, place.shape)
    assert len(done.run.killed) == len(MOMENTS)
    assert not done.wrong, done.wrong
    assert counts["failed_by_switching"] <= RATE * AWAY_SECONDS * len(MOMENTS), counts["errors"]
    assert not [error for error in counts["errors"] if error[:3].isdigit()], counts["errors"]
    with users(place.machine) as counts:
        place.deliver()
    assert counts["failed_by_switching"] == 0, counts["errors"]


@pytest.mark.long
def test_a_newer_release_comes_in_mid_canary(place: Place) -> None:
    m = place.machine
    with users(m) as counts:
        first = ship(place, LONG_CANARY)
        m.await_step(first, "canary/shift/0")
        second = ship(place)
        views = [m.follow(delivery) for delivery in (first, second)]
    assert [view["outcome"] for view in views] == ["promoted", "promoted"]
    assert live(m) == release_of(views[1])
    assert len(counts["by_release"]) == 3
    assert counts["failed_by_switching"] == 0, counts["errors"]


@pytest.mark.long
def test_an_abort_is_asked_for_again_and_again_while_it_is_done(place: Place) -> None:
    """And who does it dies before and after users are moved back."""
    m = place.machine
    before = live(m)
    moments = [f"rollback/rollback/0 router.apply #1 {moment}" for moment in ("before", "after")]
    with users(m) as counts, place.killing(*(Kill(moment, "worker") for moment in moments)) as run:
        delivery = ship(place, LONG_CANARY)
        m.await_step(delivery, "canary/shift/0")
        asked = 0

        def ask() -> View | None:
            nonlocal asked
            asked += 1  # also of a server that is being killed
            with contextlib.suppress(Conflict):  # it has ended since it was looked at
                m.client.post(f"/v1/deliveries/{delivery}/abort")
            view: View = m.client.get(f"/v1/deliveries/{delivery}")
            return view if view["ended"] else None

        view = until(ask, DELIVERY_SECONDS)
    assert view is not None
    assert (view["outcome"], len(run.killed)) == ("aborted", 2)
    assert asked > 1
    assert until(lambda: live(m), SETTLE_SECONDS) == before
    assert counts["failed_by_switching"] == 0, counts["errors"]


@pytest.mark.long
def test_a_replica_dies_in_the_canary(place: Place) -> None:
    m = place.machine
    with users(m) as counts:
        delivery = ship(place, LONG_CANARY, also="replicas: 3")
        m.await_step(delivery, "canary/shift/0")
        assert copies_told(m, delivery) == 2, "of one alone nobody could take the place"
        release = release_of(m.client.get(f"/v1/deliveries/{delivery}"))
        kill_one(m, release)
        view = m.follow(delivery)
    assert view["outcome"] == "promoted", view["reason"]
    assert live(m) == release
    # What it was answering when it died is lost with it; nobody is sent to it after that.
    assert set(counts["errors"]) <= {"503 UC"}, counts["errors"]
    assert counts["failed_by_switching"] <= 2, counts["errors"]


def copies_told(m: Machine, delivery: str) -> int:
    """How many copies the canary's step says that the new release has."""
    steps = m.client.get(f"/v1/deliveries/{delivery}")["steps"]
    (reason,) = (step["reason"] for step in steps if step["key"] == "canary/shift/0")
    found = re.search(r"(\d+) cop", reason)
    assert found, reason
    return int(found[1])


def kill_one(m: Machine, release: str) -> None:
    """The process that serves, of one instance."""
    ours = [process for process in psutil.process_iter() if serves(process, release)]
    assert ours, f"{release} does not run"
    ours[-1].kill()


def serves(process: psutil.Process, release: str) -> bool:
    """Whether it does, for *release*. Others of this machine come and go meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parents = (" ".join(parent.cmdline()) for parent in process.parents())
        return "serve.py" in " ".join(process.cmdline()) and any(release in parent for parent in parents)
    return False


@pytest.mark.long
def test_a_release_goes_while_it_has_long_requests(place: Place) -> None:
    """It is taken back in its canary: what it was asked before that is answered before it ends."""
    m = place.machine
    stable = release_of(m.follow(ship(place, serve__py=SLOW)))
    with users(m, 10, "/slow") as slow, users(m) as counts:
        delivery = ship(place, LONG_CANARY, serve__py=SLOW)
        m.await_step(delivery, "canary/look/0")
        m.penstock("abort", delivery)
        view = m.follow(delivery)
    assert view["outcome"] == "aborted"
    assert live(m) == stable
    assert release_of(view) not in placed(m)
    assert slow["by_release"][release_of(view)]["requests"] > 0
    assert slow["latency_ms"]["p50"] >= 2000
    assert {counts["failed_by_switching"], slow["failed_by_switching"]} == {0}, (counts, slow)


def placed(m: Machine) -> set[str]:
    (row,) = m.client.get("/v1/status")["services"]
    return {release["release"] for release in row["releases"]}
