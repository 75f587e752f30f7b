"""Nobody dies, but somebody is away: a worker that was believed dead, and a database.

A paused worker does not know that time has gone by. Whatever it was about to do, its fence is the lower one.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from penstock.core.fence import Fence
from penstock.core.traffic import WHOLE, Weight
from penstock.errors import Conflict
from penstock.node.client import NodeClient, NodeRouter
from tests.fault.listening import PAUSE, Kill
from tests.fault.place import Place, comes_true
from tests.fault.rig import LEASE_SECONDS, Rig
from tests.fault.test_matrix import FULL

#: A paused worker's next call gives users to what is not live any more, or starts or ends instances.
EFFECTS = ["canary/shift/0 router.apply #1 before"] + [
    "deploy/deploy/0 platform.place #1 before",
    "deploy/deploy/0 router.apply #1 before",
    "promote/promote/0 router.apply #1 before",
    "promote/promote/0 platform.remove #1 before",
] * FULL


@pytest.mark.timeout(300)
@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.long
def test_the_node_refuses_a_worker_that_was_believed_dead(place: Place, effect: str) -> None:
    made, shape, before = place, place.shape, place.times_said("let go: ")
    # It is paused until another one has ended the delivery.
    with made.machine.load(40) as file:
        done = made.deliver([Kill(effect, PAUSE)], None, shape)
    counts = json.loads(file.read_text())
    assert counts["failed_by_switching"] == 0, counts["errors"]
    assert done.run.killed
    assert not done.wrong, done.wrong
    # It went on with what was done meanwhile, or with what must not be any more. Either it looks at its lease
    # first, or its call is on the way already, and the node has to refuse it: both in time.
    assert comes_true(lambda: made.times_said("let go: ") > before)
    with pytest.raises(Conflict, match="is stale"):
        asyncio.run(send_too_late(made))
    assert made.wrong_now(done.view) == []


async def send_too_late(made: Rig) -> None:
    """What a paused worker does between its check and its effect, as late as it can be."""
    router = NodeRouter(NodeClient(made.home.node_socket))
    highest = json.loads((made.home.node / "fences.json").read_text())["shop/production"]
    state = await router.read("shop", "production")
    half = (Weight(backend.release, WHOLE // 2) for backend in state.backends)
    fence = Fence("shop/production", highest - 1, "shop-0/canary/shift/0")
    await router.apply(state.shifting(*half), fence=fence)


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_worker_that_pauses_in_its_commit_holds_up_but_breaks_nothing(place: Place) -> None:
    made, shape = place, place.shape
    made.pause_seconds = 3 * LEASE_SECONDS
    done = made.deliver([Kill("canary/shift/0 commit drive._commit #1 before", PAUSE)], None, shape)
    assert done.run.killed
    assert not done.wrong, done.wrong
    assert done.seconds > made.pause_seconds


@pytest.mark.timeout(900)
@pytest.mark.parametrize("running", ["postgres"], indirect=True)
@pytest.mark.long
def test_a_database_that_is_away_and_comes_back(place: Place) -> None:
    made, shape = place, place.shape
    made.database_seconds = 150.0 if FULL else 8.0
    for boundary in ("deploy/deploy/0 platform.place #1 after", "promote/promote/0 router.apply #1 after"):
        done = made.deliver([Kill(boundary, "postgres")], None, shape)
        assert done.run.killed
        assert not done.wrong, done.wrong
