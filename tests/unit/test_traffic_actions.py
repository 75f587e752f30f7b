"""What `traffic` in penstock.yaml makes of each action; and drift, found and put right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from fakes import copies
from fakes.copies import DATA, FENCE, NEW, STABLE, Images
from fakes.platform import FakePlatform
from penstock.actions import deploy
from penstock.config import ServiceConfig
from penstock.core.admission import ANYBODY, Admission
from penstock.core.digest import digest
from penstock.core.fence import Fence
from penstock.core.mesh import Mesh, Remote
from penstock.core.pipeline import State
from penstock.core.predicates import Drifted
from penstock.core.release import Release
from penstock.core.traffic import (
    WHOLE,
    Backend,
    Field,
    Handling,
    Mirror,
    Rule,
    TrafficPlan,
    TrafficState,
    Weight,
)
from penstock.core.trafficconfig import EarlyConfig, RateConfig, TrafficConfig
from penstock.core.workload import Afterwards, Placement, Workload
from penstock.errors import Invalid
from penstock.ports import Outcome

THIRD = Release("shop", "production", digest(b"3"), DATA.digest)
ASKED = TrafficConfig(
    sticky=True,
    mirror=5.0,
    early=(EarlyConfig(header="x-beta", value="yes"),),
    timeout_seconds=3.0,
    retries=1,
)
EARLY = Rule((Weight(NEW.id, WHOLE),), headers=(Field("x-beta", "yes"),))


class Scene(copies.Scene):
    """The stable release has everybody; a new one is on its way with ``traffic`` as *asked*."""

    def __init__(self, asked: TrafficConfig = ASKED) -> None:
        super().__init__(ServiceConfig(service="shop", traffic=asked))

    async def routed(self, *releases: Release) -> TrafficState:
        backends = []
        for release in releases:
            self.router.up.add(f"unix:/{release.id}")
            handling = self.config.traffic.handling if release == NEW else Handling()
            backends.append(Backend(release.id, (f"unix:/{release.id}",), handling=handling))
        plan = TrafficPlan("shop", "production", tuple(backends), (Weight(releases[0].id, WHOLE),))
        return await self.router.apply(plan, fence=FENCE)

    async def state(self) -> TrafficState:
        return await self.router.read("shop", "production")

    async def deploy(self, verb: str = "deploy") -> Outcome:
        await self.platform.place(
            Workload("shop", "production", NEW.id, NEW.artifact, ("serve",)), fence=FENCE
        )
        for _ in range(3):
            await self.platform.tend()
        placed = await self.platform.observe(NEW.id)
        assert placed is not None
        self.router.up.update(placed.backend.addresses)
        return await deploy.perform(
            self.task(verb), platform=self.platform, router=self.router, artifacts=Images(self.config)
        )

    async def deploy_afresh(self) -> Outcome:
        """As `deploy`, of what nobody has placed yet."""
        self.router.up.add(f"unix:/fake/{NEW.id}/0")
        task = self.task("deploy")
        images = Images(self.config)
        done = asyncio.ensure_future(
            deploy.perform(task, platform=self.platform, router=self.router, artifacts=images)
        )
        while not done.done():  # a deploy gives up by itself
            await self.platform.tend()
            await asyncio.sleep(0.01)
        return await done

    def meddle(self, state: TrafficState, *weights: Weight) -> None:
        """Somebody else has changed the weights."""
        self.router.meddled["shop", "production"] = replace(state.plan, weights=weights)


class Meanwhile(FakePlatform):
    """While the copies of one release are ended, something else goes on."""

    def __init__(self, what: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._what = what

    async def scale(self, release: str, replicas: int, *, fence: Fence, then: Afterwards = ()) -> Placement:
        if not replicas:
            await self._what()
        return await super().scale(release, replicas, fence=fence, then=then)


def drifted(outcome: Outcome) -> list[Drifted]:
    return [s.predicate for s in outcome.statements if isinstance(s.predicate, Drifted)]


# --- what is asked for -------------------------------------------------------------------------------------


async def test_a_canary_is_sticky_has_early_users_and_ends_plain() -> None:
    scene = Scene()
    state = await scene.routed(STABLE, NEW)
    await scene.router.apply(replace(state.plan, mirror=Mirror(NEW.id, 50)), fence=FENCE)
    for share in (1, 250, 500):
        assert (await scene.shift(share)).state is State.SUCCESS
        state = await scene.state()
        assert state.weights == (Weight(STABLE.id, WHOLE - share), Weight(NEW.id, share))
        assert (state.sticky, state.rules, state.mirror) == (NEW.id, (EARLY,), None)
        assert state.handling == Handling(), "the stable release's own, until another takes its place"
    await scene.promote()
    state = await scene.state()
    assert (state.weights, state.sticky, state.rules) == ((Weight(NEW.id, WHOLE),), "", ())
    assert state.handling == Handling(3.0, 1)


async def test_who_gets_in_changes_with_the_users_and_comes_back_with_them() -> None:
    asked = TrafficConfig(callers=("cart",), public=False, rate=RateConfig(per_second=5), most_requests=7)
    scene = Scene(asked)
    await scene.routed(STABLE)
    assert (await scene.deploy_afresh()).state is State.SUCCESS
    state = await scene.state()
    assert [(b.release, b.backend.breakers.requests) for b in state.backends] == [(STABLE.id, 0), (NEW.id, 7)]
    await scene.shift(500)
    assert (await scene.state()).admission == ANYBODY, "the stable release's own"
    await scene.promote()
    promoted = (await scene.state()).admission
    assert promoted == Admission(callers=("cart",), public=False, per_second=5, burst=5)
    await scene.undo()  # somebody has lost the record of the promotion
    assert (await scene.state()).admission == ANYBODY


async def test_how_long_answers_may_take_comes_back_with_the_users() -> None:
    scene = Scene()
    await scene.routed(STABLE)
    await scene.deploy_afresh()
    await scene.shift(500)
    assert (await scene.state()).handling == Handling(), "the stable release's own"
    await scene.promote()
    assert (await scene.state()).handling == Handling(3.0, 1)
    await scene.undo()  # somebody has lost the record of the promotion
    assert (await scene.state()).handling == Handling()


async def test_what_was_known_before_it_said_how_long_answers_may_take_changes_nothing_of_it() -> None:
    scene = Scene()
    state = await scene.routed(STABLE)
    known = replace(state.backends[0].backend, handling=None)
    kept = replace(state.exposing(known), handling=Handling(7.0))
    state = await scene.router.apply(kept, fence=FENCE)
    assert state.settling(STABLE.id).handling == Handling(7.0)


async def test_a_caller_is_told_at_once_that_it_will_be_refused() -> None:
    scene = Scene(TrafficConfig())
    scene.config = replace(scene.config, calls=("cart", "open", "absent"))
    for service, admission in (
        ("cart", Admission(callers=("till",))),
        ("open", Admission(callers=("shop",))),
    ):
        address = f"unix:/{service}"
        scene.router.up.add(address)
        backend = Backend(f"{service}-1", (address,), admission=admission)
        plan = TrafficPlan(service, "production", (backend,), (Weight(backend.release, WHOLE),))
        await scene.router.apply(plan, fence=FENCE)
    outcome = await scene.deploy_afresh()
    assert outcome.state is State.SUCCESS
    assert outcome.reason.endswith("; cart will refuse its calls (traffic.callers)")
    scene.data = replace(DATA, mesh=Mesh({"cart": Remote("west", "east", "east:8843", "pem")}))
    assert "refuse" not in (await scene.deploy()).reason, "it calls the cart of a peer, not this one"


async def test_a_dark_release_sees_copies_until_it_gets_users() -> None:
    scene = Scene()
    await scene.routed(STABLE)
    outcome = await scene.deploy()
    assert (outcome.state, outcome.reason.endswith("a mirror of 5% of user requests")) == (
        State.SUCCESS,
        True,
    )
    state = await scene.state()
    assert (state.mirror, state.weights) == (Mirror(NEW.id, 50), (Weight(STABLE.id, WHOLE),))
    assert (await scene.deploy()).state is State.SUCCESS  # once more, after a crash
    await scene.shift(10)
    assert (await scene.state()).mirror is None
    assert "mirror" not in (await scene.deploy()).reason, "and what has users sees no copies"


async def test_a_first_release_has_nothing_to_copy() -> None:
    scene = Scene()
    assert (await scene.deploy()).state is State.SUCCESS
    assert (await scene.state()).mirror is None


async def test_a_deployment_puts_drift_right_too() -> None:
    scene = Scene(TrafficConfig())
    scene.meddle(await scene.routed(STABLE, THIRD), Weight(THIRD.id, WHOLE))
    assert len(drifted(await scene.deploy())) == 1
    assert (await scene.state()).weights == (Weight(STABLE.id, WHOLE),)


async def test_without_the_section_nothing_of_it_happens() -> None:
    scene = Scene(TrafficConfig())
    await scene.routed(STABLE, NEW)
    await scene.shift(100)
    state = await scene.state()
    assert (state.sticky, state.rules, state.mirror, state.handling) == ("", (), None, Handling())


async def test_a_rollback_moves_everybody_early_users_too() -> None:
    scene = Scene()
    await scene.routed(STABLE, NEW)
    await scene.shift(100)
    await scene.undo()
    state = await scene.state()
    assert (state.weights, state.rules, state.sticky) == ((Weight(STABLE.id, WHOLE),), (), "")
    assert [backend.release for backend in state.backends] == [STABLE.id]


async def test_a_rollback_ends_a_mirror_of_a_release_that_nobody_saw() -> None:
    scene = Scene()
    state = await scene.routed(STABLE, NEW)
    await scene.router.apply(replace(state.plan, mirror=Mirror(NEW.id, 50)), fence=FENCE)
    await scene.undo()
    assert (await scene.state()).mirror is None


@pytest.mark.parametrize(("verb", "old"), [("undo", NEW), ("promote", THIRD)])
async def test_what_is_taken_out_keeps_no_copy_that_drains(verb: str, old: Release) -> None:
    """Or the node would take it for one whose copies come and go, and give it addresses again."""
    scene = Scene()
    state = await scene.routed(STABLE, NEW, THIRD)
    backend = next(known.backend for known in state.backends if known.release == old.id)
    drains = replace(backend, draining=("unix:/drains",), elastic=True)
    await scene.router.apply(state.exposing(drains), fence=FENCE)
    await (scene.undo() if verb == "undo" else scene.promote())
    known = (b for plan in scene.router.applied for b in plan.backends if b.release == old.id)
    out = [backend for backend in known if not backend.addresses]
    assert out
    assert not any(backend.draining for backend in out)


@pytest.mark.parametrize(("verb", "live"), [("undo", STABLE), ("promote", NEW)])
async def test_copies_that_change_while_another_release_drains_are_let_alone(
    verb: str, live: Release
) -> None:
    scene = Scene()
    await scene.routed(STABLE, NEW, THIRD)

    async def shrunk() -> None:
        state = await scene.state()
        known = next(found.backend for found in state.backends if found.release == live.id)
        await scene.router.apply(state.exposing(replace(known, addresses=("unix:/other",))), fence=FENCE)

    scene.platform = Meanwhile(shrunk)
    for release in (NEW, THIRD):
        workload = Workload("shop", "production", release.id, release.artifact, ("serve",))
        await scene.platform.place(workload, fence=FENCE)
    scene.router.up.add("unix:/other")
    await (scene.undo() if verb == "undo" else scene.promote())
    left = {known.release: known.backend.addresses for known in (await scene.state()).backends}
    assert left[live.id] == ("unix:/other",)


# --- drift -------------------------------------------------------------------------------------------------


async def test_drift_is_recorded_and_put_right_by_a_shift() -> None:
    scene = Scene(TrafficConfig())
    state = await scene.routed(STABLE, NEW, THIRD)
    found = (Weight(STABLE.id, 400), Weight(THIRD.id, 600))
    scene.meddle(state, *found)
    outcome = await scene.shift(100)
    (said,) = drifted(outcome)
    assert (said.delivery, said.service, said.weights) == ("shop-1", "shop", found)
    assert f"{THIRD.id} 60%" in said.found
    assert f"(drift: {said.found})" in outcome.reason
    state = await scene.state()
    assert state.weights == (Weight(STABLE.id, 900), Weight(NEW.id, 100))
    assert drifted(await scene.shift(200)) == []


@pytest.mark.parametrize("verb", ["promote", "undo"])
async def test_drift_is_recorded_and_put_right_by_the_last_step(verb: str) -> None:
    scene = Scene(TrafficConfig())
    state = await scene.routed(STABLE, NEW, THIRD)
    scene.meddle(state, Weight(THIRD.id, WHOLE))
    outcome = await (scene.promote() if verb == "promote" else scene.undo())
    assert len(drifted(outcome)) == 1
    served = NEW if verb == "promote" else STABLE
    assert (await scene.state()).weights == (Weight(served.id, WHOLE),)


async def test_what_is_asked_is_what_plans_are_made_of_where_weights_have_drifted() -> None:
    scene = Scene()
    state = await scene.routed(STABLE, NEW)
    scene.meddle(state, Weight(NEW.id, WHOLE))
    state = await scene.state()
    assert (state.share(NEW.id), state.drift) == (
        WHOLE,
        f"users on {NEW.id} 100% instead of {STABLE.id} 100%",
    )
    state = await scene.router.apply(state.exposing(Backend(THIRD.id, ())), fence=FENCE)
    assert (state.weights, state.drift) == ((Weight(STABLE.id, WHOLE),), "")


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (Rule((), "/shop"), "without weights"),
        (Rule((Weight("web-1", WHOLE),)), "matches everything"),
        (Rule((Weight("web-9", WHOLE),), "/shop"), "no backend"),
        (Rule((Weight("web-1", 999),), "/shop"), "sum to 1000"),
        (Rule((Weight("web-1", WHOLE),), "shop"), "no path prefix"),
        (Rule((Weight("web-1", WHOLE),), "/shop/"), "no path prefix"),
        (Rule((Weight("web-1", WHOLE),), headers=(Field("x beta", "1"),)), "no name"),
        (Rule((Weight("web-1", WHOLE),), headers=(Field("x-beta", "a\nb"),)), "printable"),
        (Rule((Weight("web-1", WHOLE),), headers=(Field("Penstock-Release", "web-1"),)), "Penstock's own"),
        (Rule((Weight("web-1", WHOLE),), cookies=(Field("ab", "a; b"),)), "in a cookie"),
    ],
)
def test_a_rule_that_no_proxy_could_follow_is_refused(rule: Rule, problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        TrafficPlan("web", "production", (Backend("web-1", ()),), (Weight("web-1", WHOLE),), (rule,))


@pytest.mark.parametrize("salt", ["a b", "a;b", "Ä", "x" * 200])
def test_a_salt_that_cannot_be_in_a_cookie_is_refused(salt: str) -> None:
    with pytest.raises(Invalid, match="salt"):
        TrafficPlan("web", "production", (Backend("web-1", ()),), (Weight("web-1", WHOLE),), sticky=salt)


@pytest.mark.parametrize(
    "handling",
    [Handling(0.0), Handling(idle_seconds=0.0), Handling(-1.0), Handling(4000.0), Handling(1.0, 11)],
)
def test_a_timeout_without_an_end_is_refused(handling: Handling) -> None:
    with pytest.raises(Invalid, match="timeout"):
        TrafficPlan("web", "production", (), (), handling=handling)
    with pytest.raises(Invalid, match="timeout"):
        TrafficPlan("web", "production", (Backend("web-1", (), handling=handling),), ())
