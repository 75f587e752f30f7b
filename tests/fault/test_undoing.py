"""Killed while a delivery is undone that users had begun to see: it is undone once, they keep what they had.

The boundaries are those that such a delivery was seen to come by. All of them with `make fault`, a seeded
sample with `make test`.
"""

from __future__ import annotations

import random

import pytest

from tests.fault.checks import Shape, record_wrong, world_wrong
from tests.fault.listening import Kill
from tests.fault.place import Place, comes_true
from tests.fault.report import intent_of
from tests.fault.rig import Delivered
from tests.fault.test_far_database import DAY
from tests.fault.test_matrix import FULL, SEED

SAMPLE = 2
#: Recorded: what is over its deadline then is what would have come next.
SHIFTED = "canary/shift/0 commit drive._commit #1 after"
UNDO = "rollback/rollback/0"


def undo(place: Place, *kills: Kill, usual: dict[str, int] | None = None) -> Delivered:
    """Deliver, and be over every deadline once half of the users are there."""
    return place.deliver_while(SHIFTED, lambda _: place.move_clock(DAY), *kills, usual=usual)


# While the server is dead: httpcore leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.timeout(1800)
@pytest.mark.long
def test_killed_anywhere_while_it_is_undone(place: Place) -> None:
    live = place.deliver()
    assert not live.wrong, live.wrong
    undisturbed = undo(place)
    assert undisturbed.view["outcome"] == "rolled-back", undisturbed.view["reason"]
    shape, usual = Shape.of(undisturbed.view), undisturbed.run.counts()
    boundaries = [name for name in undisturbed.run.seen if intent_of(name) == UNDO]
    assert any("router.apply" in name for name in boundaries)
    cells = [Kill(name, victim) for name in boundaries for victim in place.victims]
    for kill in cells if FULL else random.Random(SEED).sample(cells, SAMPLE):
        done = undo(place, kill, usual=usual)
        assert done.run.due is None, (kill, "not reached")
        wrong = record_wrong(done.view, shape)
        assert (done.view["outcome"], wrong) == ("rolled-back", []), (kill, SEED)
        assert place.machine.client.post("/v1/ledger/verify")["verified"], kill
        assert comes_true(lambda: not world_wrong(place.machine, live.view)), (
            kill,
            world_wrong(place.machine, live.view),
        )
