"""A whole Penstock, its data plane included, while the database is slow, silent, held by somebody else, or
wrong about the time.

Nobody dies here. Afterwards everything is as `rig` demands it after a kill: the same records and evidence,
the ledger verified, and the data plane as the record says.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading

import pytest

from tests.fault.checks import record_wrong, world_wrong
from tests.fault.listening import Reached
from tests.fault.place import Place, comes_true
from tests.fault.proxy import EVERYBODY
from tests.fault.rig import LEASE_SECONDS, SETTLE_SECONDS
from tests.fault.test_matrix import FULL

#: Longer than a lease; and (`make fault`) longer than anybody is willing to wait for a lock.
AWAY = 150.0 if FULL else 2.5 * LEASE_SECONDS
#: Within the deadlines of all stages together, each time it jumps; and beyond any.
LEAP, DAY = 1.5 * LEASE_SECONDS, 86400.0
DEPLOY = "deploy/deploy/0 platform.place #1 before"
SHIFT = "canary/shift/0 router.apply #1 before"
SHIFTED = "canary/shift/0 router.apply #1 after"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("running", ["postgres"], indirect=True)
@pytest.mark.long
def test_every_answer_of_the_database_is_late(place: Place) -> None:
    place.far.delay = 0.02
    done = place.deliver()
    assert place.far.delayed > 100
    assert not done.wrong, done.wrong
    assert record_wrong(done.view, place.shape) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("running", ["postgres"], indirect=True)
@pytest.mark.long
def test_a_database_that_falls_silent_and_speaks_again(place: Place) -> None:
    """No connection is refused or closed: everybody waits for an answer that does not come."""
    place.database_seconds = AWAY

    def falls_silent(reached: Reached) -> None:
        place.far.fall_silent(EVERYBODY)
        threading.Timer(AWAY, place.far.speak).start()

    done = place.deliver_while(DEPLOY, falls_silent)
    assert done.run.killed
    assert place.far.held
    assert not done.wrong, done.wrong


@pytest.mark.timeout(300)
@pytest.mark.parametrize("running", ["postgres"], indirect=True)
@pytest.mark.long
def test_a_worker_that_is_cut_off_from_the_database_is_replaced(place: Place) -> None:
    let_go, held = place.times_said("let go: "), place.far.held
    again = threading.Timer(3 * LEASE_SECONDS, place.far.speak)

    def cut_off(reached: Reached) -> None:
        place.far.fall_silent(reached.pid)
        if reached.pid == place.server:  # it may drive, too, and is asked how the delivery goes
            again.start()

    done = place.deliver_while(SHIFT, cut_off)
    again.cancel()
    assert done.run.killed
    assert place.far.held > held
    assert not done.wrong, done.wrong
    # It went on with the data plane, and hears only now that it was taken for dead.
    place.far.speak()
    assert comes_true(lambda: place.times_said("let go: ") > let_go)
    assert place.wrong_now(done.view) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("running", ["sqlite"], indirect=True)
@pytest.mark.long
def test_somebody_else_holds_the_database(place: Place) -> None:
    """Everybody can read, and nobody can write."""
    place.database_seconds = AWAY
    held = threading.Event()
    holder = threading.Thread(target=_hold, args=(place, held))

    def hold(reached: Reached) -> None:
        holder.start()
        assert held.wait(SETTLE_SECONDS)

    done = place.deliver_while(DEPLOY, hold)
    holder.join()
    assert done.run.killed
    assert not done.wrong, done.wrong


def _hold(place: Place, held: threading.Event) -> None:
    with contextlib.closing(sqlite3.connect(place.home.store, timeout=SETTLE_SECONDS)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        held.set()
        threading.Event().wait(AWAY)
        connection.rollback()


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_clock_that_ends_every_lease_early(place: Place) -> None:
    """Whoever performs something may be taken for dead meanwhile, and is not."""
    place.gallop = LEAP
    done = place.deliver()
    assert place.jumps > 10
    place.gallop = 0.0
    assert not done.wrong, done.wrong
    assert record_wrong(done.view, place.shape) == []


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_clock_that_jumps_over_every_deadline(place: Place) -> None:
    """As if a day had gone by: the delivery is undone, users keep what they had, and the next one is as any
    other, though the clock has been set right."""
    before = place.deliver()
    assert not before.wrong, before.wrong
    late = place.deliver_while(SHIFTED, lambda _: place.move_clock(DAY))
    assert (late.view["state"], late.view["outcome"]) == ("timeout", "rolled-back"), late.view["reason"]
    assert place.machine.client.post("/v1/ledger/verify")["verified"]
    assert comes_true(lambda: not world_wrong(place.machine, before.view)), world_wrong(
        place.machine, before.view
    )
    after = place.deliver()
    assert not after.wrong, after.wrong
    assert record_wrong(after.view, place.shape) == []
