"""What a `Router` may do beyond weights: chains of dark releases, rules, experiments and mirrors.

The second half of `contracts.router`: subclass both, or the parts that fit. Must not know which router it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from contracts.router import ENVIRONMENT, SERVICE, Subject
from penstock.core.experiment import Goal, Seen
from penstock.core.fence import Fence
from penstock.core.traffic import (
    COPY_HEADER,
    MIRROR_HEADER,
    PREVIEW_HEADER,
    TOKEN_HEADER,
    Egress,
    Field,
    Handling,
    Mirror,
    Rule,
    TrafficPlan,
    TrafficState,
    Visit,
    Weight,
)
from penstock.errors import Invalid, Unavailable

SHOP = Fence(f"shop/{ENVIRONMENT}", 1, "key")


class ChainsContract:
    """Dark releases of several services are tested together."""

    async def test_a_dark_release_calls_the_dark_releases_of_its_chain(self, subject: Subject) -> None:
        await subject.serving("web-1", "web-2", "web-3")
        caller = await self._caller(subject, "shop-1", "web-2")
        for address in (calls(caller, "shop-1"), calls(caller, "shop-0")):
            wanted = "web-2" if address == calls(caller, "shop-1") else "web-1"
            assert await subject.who(address, 5) == {wanted: 5}
        spoofed = {"penstock-caller": "shop-1"}
        assert await subject.who(calls(caller, "shop-0"), 5, spoofed) == {"web-1": 5}
        assert await subject.who((await subject.read()).address, 5, spoofed) == {"web-1": 5}

    async def test_a_chain_goes_on_past_whoever_forwards_baggage(self, subject: Subject) -> None:
        await subject.serving("web-1", "web-2")
        caller = await self._caller(subject, "shop-1", "web-2")
        await subject.fetch(calls(caller, "shop-1"), {"baggage": "user=7"}, "/")
        lines = [
            line for line in subject.world.seen("web-2")[-1].split("\r\n") if line.startswith("baggage:")
        ]
        baggage = ",".join(line.removeprefix("baggage: ") for line in lines)
        assert baggage.startswith("user=7,")
        stable = calls(caller, "shop-0")
        assert await subject.who(stable, 5, {"baggage": baggage}) == {"web-2": 5}
        assert await subject.who(stable, 5, {"baggage": baggage[:-1]}) == {"web-1": 5}
        assert await subject.who(stable, 5, {"baggage": "penstock-chain=shop-1"}) == {"web-1": 5}
        await subject.router.apply(caller.shifting(Weight("shop-1", 1000)), fence=SHOP)
        assert await subject.who(stable, 5, {"baggage": baggage}) == {"web-1": 5}

    async def test_a_chain_ends_when_its_release_gets_users(self, subject: Subject) -> None:
        await subject.serving("web-1", "web-2")
        caller = await self._caller(subject, "shop-1", "web-2")
        chained = next(b.backend for b in caller.backends if b.release == "shop-1")
        with pytest.raises(Invalid):
            replace(caller.plan, weights=(Weight("shop-1", 1000),))
        caller = await subject.router.apply(caller.shifting(Weight("shop-1", 1000)), fence=SHOP)
        assert await subject.who(calls(caller, "shop-1"), 5) == {"web-1": 5}
        with pytest.raises(Invalid):
            caller.exposing(chained)

    async def test_a_chain_may_lead_to_what_comes_later_and_goes_first(self, subject: Subject) -> None:
        state = await subject.serving("web-1")
        address = calls(await self._caller(subject, "shop-1", "web-2"), "shop-1")
        assert await subject.who(address, 3) == {"web-1": 3}
        state = await subject.apply(state.exposing(await subject.world.backend("web-2")))
        assert await subject.who(address, 3) == {"web-2": 3}
        await subject.apply(state.without("web-2"))
        assert await subject.who(address, 3) == {"web-1": 3}

    async def test_what_is_led_to_dark_releases_is_counted_by_whose_chain_it_was(
        self, subject: Subject
    ) -> None:
        assert await subject.metrics.led(SERVICE, ENVIRONMENT) == ()
        state = await subject.serving("web-1", "web-2")
        caller = await self._caller(subject, "shop-1", "web-2")
        before = await self._led(subject)
        assert before == {("web-1", ""): 0, ("web-2", ""): 0, ("web-2", "shop-1"): 0}
        await subject.who(calls(caller, "shop-1"), 3)
        await subject.who(calls(caller, "shop-0"), 4)
        preview = {PREVIEW_HEADER: "web-2", TOKEN_HEADER: state.preview_token}
        assert await subject.who(state.address, 5, preview) == {"web-2": 5}
        await subject.who(state.address, 6)
        assert await self._led(subject) == before | {("web-2", ""): 5, ("web-2", "shop-1"): 3}
        # Another plan of the service must not begin the counts anew.
        await subject.apply(state.exposing(await subject.world.backend("web-3")))
        await subject.who(calls(caller, "shop-1"), 1)
        assert (await self._led(subject))["web-2", "shop-1"] == 4
        found = {c.release: c.requests for c in await subject.metrics.counters(SERVICE, ENVIRONMENT)}
        assert found["web-2"] == 0

    @staticmethod
    async def _led(subject: Subject) -> dict[tuple[str, str], int]:
        found = await subject.metrics.led(SERVICE, ENVIRONMENT)
        assert len({led.epoch for led in found}) == 1
        return {(led.release, led.caller): led.requests for led in found}

    async def _caller(self, subject: Subject, release: str, *chain: str) -> TrafficState:
        """The service ``shop``: *release* dark and chained, and ``shop-0`` with users."""
        backends = []
        for name, targets in (("shop-0", ()), (release, chain)):
            egress = (Egress(SERVICE, subject.world.socket(name)),)
            backends.append(replace(await subject.world.backend(name), egress=egress, chain=targets))
        await subject.router.apply(TrafficPlan("shop", ENVIRONMENT, tuple(backends), ()), fence=SHOP)
        state = await subject.router.read("shop", ENVIRONMENT)
        return await subject.router.apply(state.shifting(Weight("shop-0", 1000)), fence=SHOP)


class RulesContract:
    """Some users are led by what their requests have."""

    async def test_rules_are_asked_in_order_before_the_weights(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2", "web-3")
        rules = (
            Rule((Weight("web-3", 1000),), "/shop", (Field("X-Beta", "yes"),)),
            Rule((Weight("web-2", 1000),), "/shop"),
            Rule((Weight("web-2", 1000),), cookies=(Field("ab", "B=2"),)),
            Rule((Weight("web-2", 1000),), headers=(Field("x-team", "a b"), Field("x-on", "1"))),
        )
        state = await subject.apply(replace(state.plan, rules=rules))
        assert (state.rules, state.weights) == (rules, (Weight("web-1", 1000),))
        for path, headers, release in (
            ("/shop", {"x-beta": "yes"}, "web-3"),
            ("/shop/1", {"x-beta": "no"}, "web-2"),
            ("/shop", {}, "web-2"),
            ("/shopping", {}, "web-1"),
            ("/", {"x-beta": "yes"}, "web-1"),
            ("/", {"cookie": "x=1; ab=B=2"}, "web-2"),
            ("/", {"cookie": "ab=B=22"}, "web-1"),
            ("/", {"cookie": "xab=B=2"}, "web-1"),
            ("/", {"x-team": "a b", "x-on": "1"}, "web-2"),
            ("/", {"x-team": "a b"}, "web-1"),
        ):
            assert await subject.fetch(state.address, headers, path) == (200, release), (path, headers)

    async def test_rules_stay_until_traffic_settles(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        rules = (Rule((Weight("web-1", 250), Weight("web-2", 750)), "/shop"),)
        state = await subject.apply(replace(state.plan, rules=rules))
        state = await subject.apply(state.exposing(await subject.world.backend("web-3")))
        state = await subject.apply(state.shifting(Weight("web-1", 900), Weight("web-3", 100)))
        with pytest.raises(Invalid):
            state.without("web-2")
        assert state.rules == rules
        state = await subject.apply(state.settling("web-3"))
        assert (state.rules, state.weights) == ((), (Weight("web-3", 1000),))
        await subject.apply(state.without("web-1", "web-2"))
        assert await subject.fetch(state.address, {}, "/shop") == (200, "web-3")

    async def test_a_rule_never_leads_to_what_cannot_be_reached(self, subject: Subject) -> None:
        state = await subject.serving("web-1")
        state = await subject.apply(state.exposing(subject.world.dead("web-2")))
        rule = Rule((Weight("web-2", 1000),), "/shop")
        with pytest.raises(Unavailable):
            await subject.apply(replace(state.plan, rules=(rule,)))
        assert (await subject.read()).rules == ()
        assert await subject.fetch(state.address, {}, "/shop") == (200, "web-1")


class HandlingContract:
    """How long answers may take, and what is sent again."""

    async def test_how_answers_are_handled_is_kept(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        handling = Handling(timeout_seconds=2.5005, retries=0, idle_seconds=60.25)
        state = await subject.apply(replace(state.plan, handling=handling))
        assert state.handling == handling
        state = await subject.apply(state.settling("web-2"))
        assert (await subject.apply(state.settling())).handling == handling

    async def test_each_release_brings_its_own_way_and_it_comes_back_with_it(self, subject: Subject) -> None:
        state = await subject.serving("web-1")
        own = {"web-1": Handling(2.0, 0), "web-2": Handling(3.0, 1, 60.0)}
        for name, handling in own.items():
            backend = replace(await subject.world.backend(name), handling=handling)
            state = await subject.apply(state.exposing(backend))
        assert state.handling == Handling(), "nobody has moved"
        for name in ("web-1", "web-2", "web-1"):
            state = await subject.apply(state.settling(name))
            assert state.handling == own[name]
        state = await subject.apply(state.shifting(Weight("web-1", 500), Weight("web-2", 500)))
        assert state.handling == own["web-1"], "of the one that users move away from"


class DriftContract:
    """What somebody else has changed is seen, and put right."""

    async def test_what_somebody_else_has_changed_is_drift_until_the_next_plan(
        self, subject: Subject
    ) -> None:
        state = await subject.serving("web-1", "web-2")
        assert state.asked is None
        await subject.world.meddle(replace(state.plan, weights=(Weight("web-2", 1000),)))
        found = await subject.read()
        assert (found.weights, found.drift) == (
            (Weight("web-2", 1000),),
            "users on web-2 100% instead of web-1 100%",
        )
        assert await subject.who(found.address, 5) == {"web-2": 5}
        assert await subject.apply(found.plan) == state
        assert await subject.who(state.address, 5) == {"web-1": 5}


class ExperimentContract:
    """Users keep their place."""

    async def test_a_user_moves_once_while_a_weight_rises(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        users: list[dict[str, str]] = [{} for _ in range(60)]
        moved: set[int] = set()
        for share in (1, 100, 500, 800, 1000):
            plan = state.shifting(Weight("web-1", 1000 - share), Weight("web-2", share))
            state = await subject.apply(replace(plan, sticky="web-2"))
            assert state.sticky == "web-2"
            for number, cookies in enumerate(users):
                for _ in range(2):
                    release = await self._visit(subject, state.address, cookies)
                    assert release == "web-2" or number not in moved, f"user {number} went back at {share}"
                    moved |= {number} if release == "web-2" else set()
            if share == 500:
                assert 10 < len(moved) < 50
        assert len(moved) == 60
        state = await subject.apply(state.settling("web-1"))
        assert state.sticky == ""
        assert {await self._visit(subject, state.address, cookies) for cookies in users} == {"web-1"}

    async def test_the_next_experiment_deals_users_anew(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        halves = (Weight("web-1", 500), Weight("web-2", 500))
        users: list[dict[str, str]] = [{} for _ in range(40)]
        seen = []
        for salt in ("web-2", "web-3"):
            state = await subject.apply(replace(state.shifting(*halves), sticky=salt))
            seen.append([await self._visit(subject, state.address, cookies) for cookies in users])
        assert seen[0] != seen[1]
        assert all(len(cookies) == 2 for cookies in users)

    async def test_users_of_an_experiment_are_counted_once_and_those_who_reach_its_goal(
        self, subject: Subject
    ) -> None:
        state, goal = await subject.serving("web-1", "web-2"), Goal("/thanks")
        place = (SERVICE, ENVIRONMENT)
        begun = await subject.metrics.users(*place, "exp-1", goal)
        assert (dict(begun.seen), begun.moved, begun.full, begun.lost) == ({}, 0, False, "")
        halves = (Weight("web-1", 500), Weight("web-2", 500))
        state = await subject.apply(replace(state.shifting(*halves), sticky="exp-1"))
        users: list[dict[str, str]] = [{} for _ in range(40)]
        where = [await self._visit(subject, state.address, cookies) for cookies in users]
        for cookies in users[:10]:
            for path in ("/thanks", "/thanks", "/thanks/no", "/"):
                await self._visit(subject, state.address, cookies, path)
        expected = {r: Seen(where.count(r), where[:10].count(r)) for r in ("web-1", "web-2")}
        deadline = asyncio.get_running_loop().time() + 10  # what is logged is written a moment later
        while (found := await subject.metrics.users(*place, "exp-1", goal)).seen != expected:
            assert asyncio.get_running_loop().time() < deadline, (found, expected)
            await asyncio.sleep(0.05)
        assert (found.epoch, found.moved) == (begun.epoch, 0)
        anew = await subject.metrics.users(*place, "exp-2", goal)
        assert (dict(anew.seen), anew.epoch != begun.epoch) == ({}, True)

    @staticmethod
    async def _visit(subject: Subject, address: str, cookies: dict[str, str], path: str = "/") -> str:
        """A user's request, with all his cookies; the new ones are kept."""
        header = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        found = await subject.world.visit(address, header if cookies else {}, path)
        cookies.update(found.cookies)
        return found.release


class MirrorContract:
    """A dark release gets copies of requests."""

    async def test_a_part_of_the_requests_is_copied(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        state = await subject.apply(replace(state.plan, mirror=Mirror("web-2", 300)))
        assert state.mirror == Mirror("web-2", 300)
        await subject.who(state.address, 60)
        assert 3 <= len(await self._copies(subject, 3)) <= 40

    async def test_a_mirror_ends_when_its_release_gets_users_or_goes(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2", "web-3")
        ends: list[Callable[[TrafficState], TrafficPlan]] = [
            lambda now: now.shifting(Weight("web-1", 900), Weight("web-2", 100)),
            lambda now: now.settling("web-1"),
            lambda now: now.without("web-2"),
        ]
        for end in ends:
            state = await subject.apply(state.settling("web-1"))
            state = await subject.apply(replace(state.plan, mirror=Mirror("web-2", 500)))
            kept = await subject.apply(state.shifting(Weight("web-1", 900), Weight("web-3", 100)))
            assert kept.mirror == Mirror("web-2", 500)
            state = await subject.apply(end(kept))
            assert state.mirror is None
        with pytest.raises(Invalid):
            replace(state.plan, mirror=Mirror("web-1", 500))
        with pytest.raises(Invalid):
            replace(state.plan, mirror=Mirror("web-3", 0))

    @staticmethod
    async def _copies(subject: Subject, least: int) -> Sequence[str]:
        """What has reached the mirror, once it is at least so much: nobody waits for copies."""
        async with asyncio.timeout(10):
            while len(subject.world.seen("web-2")) < least:
                await asyncio.sleep(0.01)
        return tuple(subject.world.seen("web-2"))


class MarkedCopiesContract(MirrorContract):
    """The copies say that they are copies; and what users ask for is known."""

    async def test_a_mirror_gets_marked_copies_that_nobody_counts(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        state = await subject.apply(replace(state.plan, mirror=Mirror("web-2", 1000)))
        assert state.mirror == Mirror("web-2", 1000)
        assert await subject.who(state.address, 10, {"baggage": "user=7"}) == {"web-1": 10}
        copies = await self._copies(subject, 10)
        assert all(f"{MIRROR_HEADER}: 1" in copy and "user=7" in copy for copy in copies)
        assert not any(MIRROR_HEADER in head for head in subject.world.seen("web-1"))
        found = {c.release: c.requests for c in await subject.metrics.counters(SERVICE, ENVIRONMENT)}
        assert found == {"web-1": 10, "web-2": 0}

    async def test_a_copy_is_never_copied_again(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        shop = replace(
            await subject.world.backend("shop-1"), egress=(Egress(SERVICE, subject.world.socket("shop-1")),)
        )
        await subject.router.apply(TrafficPlan("shop", ENVIRONMENT, (shop,), ()), fence=SHOP)
        await subject.apply(replace(state.plan, mirror=Mirror("web-2", 1000)))
        address = shop.egress[0].address
        for marked in ({MIRROR_HEADER: "1"}, {"baggage": f"user=7,{MIRROR_HEADER}=1"}):
            assert await subject.who(address, 5, marked) == {"web-1": 5}
        await subject.who(address, 1, {"x-last": "1"})
        assert len(await self._copies(subject, 1)) == 1
        await subject.who(state.address, 1, {MIRROR_HEADER: "1"})  # a user is no copy, whatever he says
        assert len(await self._copies(subject, 2)) == 2

    async def test_a_preview_may_be_marked_as_a_copy_and_users_may_not(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        preview = {PREVIEW_HEADER: "web-2", TOKEN_HEADER: state.preview_token}
        asked = {**preview, COPY_HEADER: "1", "baggage": "user=7"}
        assert await subject.who(state.address, 1, asked) == {"web-2": 1}
        copy = subject.world.seen("web-2")[-1]
        assert f"{MIRROR_HEADER}: 1" in copy
        assert f"{MIRROR_HEADER}=1" in copy
        assert "user=7" in copy
        assert COPY_HEADER not in copy
        assert await subject.who(state.address, 1, preview) == {"web-2": 1}
        assert MIRROR_HEADER not in subject.world.seen("web-2")[-1]
        assert await subject.who(state.address, 1, {COPY_HEADER: "1"}) == {"web-1": 1}
        assert f"{MIRROR_HEADER}:" not in subject.world.seen("web-1")[-1]

    async def test_what_users_ask_for_is_known_without_their_queries(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        preview = {PREVIEW_HEADER: "web-2", TOKEN_HEADER: state.preview_token}
        for headers, path in (({}, "/shop?key=1"), (preview, "/dark"), ({}, "/cart")):
            await subject.fetch(state.address, headers, path)
        found = await self._visits(subject, 2)
        assert [visit.path for visit in found] == ["/shop", "/cart"]
        assert await subject.metrics.visits(SERVICE, ENVIRONMENT, found[-1].at) == ()
        assert await subject.metrics.visits("nobody", ENVIRONMENT, 0.0) == ()

    async def _visits(self, subject: Subject, count: int) -> tuple[Visit, ...]:
        """The log is written a moment later."""
        async with asyncio.timeout(10):
            while len(found := await subject.metrics.visits(SERVICE, ENVIRONMENT, 0.0)) < count:
                await asyncio.sleep(0.02)
        return found


class FinerContract(
    ChainsContract, RulesContract, HandlingContract, DriftContract, ExperimentContract, MarkedCopiesContract
):
    """Chains, rules, experiments and mirrors: the second half of what a router that can do all must do."""


def calls(state: TrafficState, release: str) -> str:
    """Where *release* calls its neighbour."""
    return next(b.backend.egress[0].address for b in state.backends if b.release == release)
