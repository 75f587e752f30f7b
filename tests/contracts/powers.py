"""What a router that cannot do everything must do about the rest: refuse it by name, and change nothing.

Subclass `PowersContract` beside the parts of `contracts.router` that fit, and say in *powers* what is left.
Must not know which router it tests.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar, get_args

import pytest

from contracts.router import FENCE, Subject
from penstock.core.admission import Admission, Breakers
from penstock.core.mesh import Export, Remote
from penstock.core.powers import Power
from penstock.core.traffic import Backend, Egress, Handling, Mirror, TrafficPlan, TrafficState
from penstock.errors import Conflict, Invalid

REMOTE = Egress("far", "10.0.0.9:80", Remote("here", "there", "far.example:8843", ""))


def asking(state: TrafficState, power: Power) -> TrafficPlan:
    """The plan that asks for one thing more: of ``web-2``, which is dark."""
    plan = state.plan
    match power:
        case "mirror":
            return replace(plan, mirror=Mirror("web-2", 500))
        case "sticky":
            return replace(plan, sticky="salt")
        case "retries":
            return replace(plan, handling=Handling(retries=0))
        case "idle":
            return replace(plan, handling=Handling(idle_seconds=5.0))
    ways: dict[Power, Backend] = {
        "callers": replace(plan.backends[1], admission=Admission(callers=("shop",))),
        "public": replace(plan.backends[1], admission=Admission(public=False)),
        "rate": replace(plan.backends[1], admission=Admission(per_second=5, burst=5)),
        "breakers": replace(plan.backends[1], breakers=Breakers(requests=7)),
        "chains": replace(plan.backends[1], chain=("shop-2",)),
        "peers": replace(plan.backends[1], egress=(REMOTE,)),
    }
    return replace(plan, backends=(plan.backends[0], ways[power]))


class PowersContract:
    """*powers* are those that the router says it has."""

    powers: ClassVar[Collection[Power]] = ()

    @pytest.mark.parametrize("power", get_args(Power))
    async def test_what_it_cannot_do_is_refused_by_name_and_the_rest_is_kept(
        self, subject: Subject, power: Power
    ) -> None:
        state = await subject.serving("web-1", "web-2")
        plan = asking(state, power)
        if power in self.powers:
            found = await subject.apply(plan)
            assert (found.plan, (await subject.read()).plan) == (plan, plan)
            return
        with pytest.raises(Invalid, match="cannot do this: ") as raised:
            await subject.apply(plan)
        assert raised.value.next_move
        assert await subject.read() == state

    async def test_what_is_exported_to_peers_is_refused_too(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        backend = replace(state.plan.backends[1], export=Export("here", "0.0.0.0:8843", ()))
        with pytest.raises(Invalid, match="between machines"):
            await subject.apply(state.exposing(backend))

    async def test_an_older_fence_changes_nothing(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        newer = replace(FENCE, number=9)
        await subject.router.apply(state.plan, fence=newer)
        with pytest.raises(Conflict, match="older"):
            await subject.apply(state.settling("web-2"))
        assert (await subject.read()).weights == state.weights
