"""How many copies run: the table of what is wanted, and the story of each change, one look at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from penstock.core.fence import Fence
from penstock.core.traffic import Backend, BackendState, TrafficPlan, TrafficState, Weight
from penstock.core.workload import Instance, Later, Phase, Placement, Scaling, Workload
from penstock.errors import Conflict
from penstock.node.scaler import Scaler, Seen, wanted

FENCE = Fence("web/production", 7, "scaling")
BUSY = Scaling(most=6, in_flight=10, idle_seconds=30.0)


class Scene:
    """``web-1`` is placed and has a share of users; each `look` is a second."""

    def __init__(self) -> None:
        self.platform, self.router = FakePlatform(), FakeRouter()
        self.now = 100.0
        self.scaler = Scaler(self.platform, self.router, lambda: self.now)

    async def begin(self, replicas: int, scaling: Scaling = BUSY, share: int = 1000) -> Scene:
        workload = Workload(
            "web",
            "production",
            "web-1",
            "sha256:1",
            ("serve",),
            replicas=replicas,
            scaling=scaling,
            drain_seconds=5.0,
        )
        await self.platform.place(workload, fence=FENCE)
        await self.tend()
        other = Backend("web-0", ("unix:/other",))
        self.router.up.add("unix:/other")
        backend = (await self.placement()).backend
        weights = (Weight("web-0", 1000 - share), Weight("web-1", share))
        kept = tuple(weight for weight in weights if weight.share)
        await self.router.apply(TrafficPlan("web", "production", (other, backend), kept), fence=FENCE)
        return self

    async def tend(self) -> None:
        await self.platform.tend()
        for instance in (await self.placement()).instances:
            if instance.phase is Phase.READY:
                self.router.up.add(instance.address)

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += 1.0
            await self.scaler.look(FENCE, ("web-1",))
            await self.tend()

    async def placement(self) -> Placement:
        placement = await self.platform.observe("web-1")
        assert placement is not None
        return placement

    async def known(self) -> BackendState:
        state = await self.router.read("web", "production")
        return next(known for known in state.backends if known.release == "web-1")

    async def copies(self) -> tuple[int, int, int]:
        """How many run, how many of them have users, and how many drain."""
        backend = (await self.known()).backend
        return len((await self.placement()).instances), len(backend.addresses), len(backend.draining)

    async def load(self, each: int) -> None:
        """So many requests in flight at each copy that may get some."""
        self.router.active.clear()
        self.router.active.update(dict.fromkeys((await self.known()).backend.addresses, each))


async def test_a_burst_adds_one_copy_at_a_time_and_each_gets_users_once_it_is_ready() -> None:
    scene = await Scene().begin(1)
    await scene.load(11)
    await scene.look()
    assert await scene.copies() == (2, 1, 0), "it has only just been started"
    await scene.look()
    assert await scene.copies() == (2, 2, 0)
    await scene.load(11)
    await scene.look(20)
    assert (await scene.copies())[0] == 3, "what was added last has nothing yet: 22 are for three"
    for _ in range(20):
        await scene.load(11)
        await scene.look()
    assert await scene.copies() == (6, 6, 0), "and never more than allowed"


async def test_what_load_added_goes_when_the_busiest_moment_lately_needed_fewer() -> None:
    scene = await Scene().begin(1)
    for _ in range(8):
        await scene.load(11)
        await scene.look()
    grown, _, _ = await scene.copies()
    assert grown > 2
    scene.router.active.clear()
    scene.router.active[(await scene.known()).backend.addresses[0]] = 15  # two copies' worth
    await scene.look(29)
    assert (await scene.copies())[0] == grown, "not before it was low for so long"
    await scene.look(2 * grown)
    assert await scene.copies() == (2, 2, 0)


async def test_a_copy_drains_before_it_goes() -> None:
    scene = await Scene().begin(3, Scaling())
    await scene.platform.scale("web-1", 3, fence=FENCE, then=(Later(1, 0.0),))
    await scene.router.apply((await scene.router.read("web", "production")).settling("web-0"), fence=FENCE)
    await scene.tend()
    last = (await scene.placement()).instances[2].address
    scene.router.active[last] = 1
    await scene.look(3)
    assert await scene.copies() == (3, 2, 1), "it has not answered"
    scene.router.active.clear()
    await scene.look()
    assert await scene.copies() == (2, 2, 0)
    await scene.look(10)
    assert await scene.copies() == (1, 1, 0)


async def test_nobody_waits_for_an_endless_stream_for_longer_than_it_was_said() -> None:
    scene = await Scene().begin(2, Scaling(), share=0)
    await scene.platform.scale("web-1", 2, fence=FENCE, then=(Later(1, 0.0),))
    await scene.tend()
    scene.router.active[(await scene.placement()).instances[1].address] = 1
    await scene.look(5)
    assert await scene.copies() == (2, 1, 1)
    await scene.look(2)
    assert await scene.copies() == (1, 1, 0)


async def test_what_drains_and_is_needed_again_comes_back() -> None:
    scene = await Scene().begin(2, Scaling(), share=0)
    await scene.platform.scale("web-1", 2, fence=FENCE, then=(Later(1, 0.0),))
    await scene.tend()
    scene.router.active[(await scene.placement()).instances[1].address] = 1
    await scene.look()
    assert await scene.copies() == (2, 1, 1)
    await scene.platform.scale("web-1", 2, fence=FENCE)
    await scene.look()
    assert await scene.copies() == (2, 2, 0)


async def test_what_was_given_users_in_between_drains_anew() -> None:
    scene = await Scene().begin(2, Scaling(), share=0)
    await scene.platform.scale("web-1", 2, fence=FENCE, then=(Later(1, 0.0),))
    await scene.tend()
    scene.router.active[(await scene.placement()).instances[1].address] = 1
    await scene.look()
    again = (await scene.placement()).backend  # as a deployment makes it known once more
    state = await scene.router.read("web", "production")
    await scene.router.apply(state.exposing(again), fence=FENCE)
    scene.router.active.clear()
    await scene.look()
    assert await scene.copies() == (2, 1, 1), "it may have been given something just now"
    await scene.look()
    assert await scene.copies() == (1, 1, 0)


async def test_a_release_with_users_keeps_what_its_share_needs_whatever_was_asked_for() -> None:
    scene = await Scene().begin(4, Scaling(), share=500)
    await scene.platform.scale("web-1", 4, fence=FENCE, then=(Later(0, 0.0),))
    await scene.tend()
    await scene.look(20)
    assert await scene.copies() == (2, 2, 0)


async def test_users_whom_nobody_announced_bring_copies_back() -> None:
    """As where somebody else moved them, and nothing was asked for."""
    scene = await Scene().begin(4, Scaling(), share=0)
    await scene.platform.scale("web-1", 1, fence=FENCE)
    state = await scene.router.read("web", "production")
    backend = replace((await scene.placement()).backend)
    state = await scene.router.apply(state.exposing(backend), fence=FENCE)
    await scene.router.apply(state.settling("web-1"), fence=FENCE)
    await scene.look(2)
    assert await scene.copies() == (4, 4, 0)


async def test_what_an_action_has_taken_out_of_the_proxy_stays_out() -> None:
    scene = await Scene().begin(3, Scaling(), share=0)
    state = await scene.router.read("web", "production")
    out = replace((await scene.known()).backend, addresses=())
    await scene.router.apply(state.exposing(out), fence=FENCE)
    applied = len(scene.router.applied)
    await scene.look(3)
    assert (await scene.copies(), len(scene.router.applied)) == ((3, 0, 0), applied)


async def test_drift_is_left_to_whoever_records_it() -> None:
    scene = await Scene().begin(1)
    state = await scene.router.read("web", "production")
    scene.router.meddled["web", "production"] = replace(state.plan, weights=(Weight("web-0", 1000),))
    with pytest.raises(Conflict, match="users on web-0 100% instead of web-1 100%"):
        await scene.look()


async def test_without_a_need_nothing_is_told_to_the_proxy() -> None:
    scene = await Scene().begin(2)
    applied = len(scene.router.applied)
    await scene.load(9)
    await scene.look(60)
    assert (await scene.copies(), len(scene.router.applied)) == ((2, 2, 0), applied)


# --- the table ---------------------------------------------------------------------------------------------


def at(count: int, asked: int, *, full: int = 2, able: int | None = None) -> Placement:
    ready = count if able is None else able
    instances = tuple(
        Instance(str(n), f"unix:/{n}", Phase.READY if n < ready else Phase.STARTING) for n in range(count)
    )
    return Placement("web-1", instances, full=full, asked=asked, most=6, scaling=BUSY)


@pytest.mark.parametrize(
    ("placement", "share", "active", "peak", "count"),
    [
        (at(2, 2), 1000, 0, 0, 2),
        (at(2, 2), 1000, 20, 20, 2),
        (at(2, 2), 1000, 21, 21, 3),
        (at(3, 2, able=2), 1000, 99, 99, 3),  # the last one is not ready
        (at(6, 2), 1000, 99, 99, 6),  # no more are allowed
        (at(4, 2), 1000, 0, None, 4),  # not watched for long enough
        (at(4, 2), 1000, 0, 31, 4),
        (at(4, 2), 1000, 0, 30, 3),
        (at(4, 4), 1000, 0, 0, 4),  # a delivery asked for them
        (at(4, 1, full=4), 900, 0, 0, 4),  # its share needs them
        (at(4, 1, full=4), 500, 0, 0, 3),
        (at(1, 1, full=4), 1000, 0, 0, 4),  # users whom nobody announced
        (at(4, 1), 0, 99, 99, 3),  # no users: load says nothing
        (at(1, 0), 0, 0, 0, 0),
        (at(0, 3), 0, 0, 0, 3),
    ],
)
def test_how_many_are_wanted(
    placement: Placement, share: int, active: int, peak: int | None, count: int
) -> None:
    weights = tuple(w for w in (Weight("web-0", 1000 - share), Weight("web-1", share)) if w.share)
    known = BackendState(placement.backend, placement.able, len(placement.instances), active)
    assert wanted(placement, TrafficState("web", "production", weights), known, peak) == count


def test_the_peak_is_of_the_time_asked_for() -> None:
    seen = Seen()
    assert [seen.peak(float(n), load, 3.0) for n, load in enumerate((9, 1, 2, 0, 0, 0, 0))] == [
        None,
        None,
        None,
        9,
        2,
        2,
        0,
    ]
