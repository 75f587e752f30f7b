"""What every `Router` must do about who gets in: callers, users, rates and circuit breakers.

The third part of `contracts.router`: subclass all. Must not know which router it tests.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.router import ENVIRONMENT, SERVICE, Subject
from penstock.core.admission import ANYBODY, Admission, Breakers, Refused
from penstock.core.fence import Fence
from penstock.core.traffic import PREVIEW_HEADER, TOKEN_HEADER, Egress, TrafficPlan, TrafficState, Weight
from penstock.errors import Invalid

SHOP_ONLY = Admission(callers=("shop", "cart-2"))


class AdmissionContract:
    """Who gets in: what the live release says, and nobody can talk his way around it."""

    # --- callers ------------------------------------------------------------------------------------------

    async def test_without_a_word_whoever_calls_gets_in(self, subject: Subject) -> None:
        state = await self._serving(subject, {"web-1": ANYBODY})
        assert await status(subject, await caller(subject, "shop"), 3) == {200}
        assert (state.admission, await status(subject, state.address, 3)) == (ANYBODY, {200})

    async def test_only_the_callers_that_are_named_get_in(self, subject: Subject) -> None:
        state = await self._serving(subject, {"web-1": SHOP_ONLY})
        assert state.admission == SHOP_ONLY
        assert await subject.who(await caller(subject, "shop"), 3) == {"web-1": 3}
        assert await subject.who(await caller(subject, "cart-2"), 3) == {"web-1": 3}
        assert await subject.who(state.address, 3) == {"web-1": 3}, "users are no callers"
        for stranger in ("cart", "shop2", "cart-22"):
            assert await subject.fetch(await caller(subject, stranger), {}, "/") == (403, ""), stranger

    async def test_no_callers_are_nobody_but_users(self, subject: Subject) -> None:
        state = await self._serving(subject, {"web-1": Admission(callers=())})
        assert state.admission == Admission(callers=())
        assert await status(subject, await caller(subject, "shop"), 3) == {403}
        assert await status(subject, state.address, 3) == {200}

    async def test_nobody_can_say_that_he_is_another(self, subject: Subject) -> None:
        state = await self._serving(subject, {"web-1": SHOP_ONLY}, "web-2")
        await caller(subject, "shop")
        stranger = await caller(subject, "cart")
        token = {PREVIEW_HEADER: "web-2", TOKEN_HEADER: state.preview_token}
        for headers in (
            {"penstock-calling-service": "shop"},
            {"penstock-calling-service": "shop", "penstock-caller": "shop-1"},
            {"x-forwarded-for": "10.0.0.1", "x-envoy-internal": "true"},
            token,
        ):
            assert await subject.fetch(stranger, headers, "/") == (403, ""), headers

    async def test_what_holds_is_what_the_live_release_says(self, subject: Subject) -> None:
        said = {"web-1": SHOP_ONLY, "web-2": Admission(callers=("cart",))}
        state = await self._serving(subject, said)
        shop, cart = await caller(subject, "shop"), await caller(subject, "cart")
        halves = (Weight("web-1", 500), Weight("web-2", 500))
        for move, first, second in (
            (halves, 200, 403),
            ((Weight("web-2", 1000),), 403, 200),
            ((Weight("web-1", 1000),), 200, 403),
        ):
            state = await subject.apply(state.shifting(*move))
            assert state.admission == said[move[0].release]
            assert (await status(subject, shop, 5), await status(subject, cart, 5)) == ({first}, {second})
        state = await subject.apply(state.settling())
        assert (state.admission, await status(subject, shop, 2)) == (ANYBODY, {503})

    async def test_a_chain_leads_to_its_dark_release_all_the_same(self, subject: Subject) -> None:
        await self._serving(subject, {"web-1": Admission(callers=())}, "web-2")
        shop = await caller(subject, "shop", chain=("web-2",))
        assert await subject.who(shop, 3) == {"web-2": 3}
        await subject.apply((await subject.read()).without("web-2"))
        assert await status(subject, shop, 3) == {403}

    # --- users --------------------------------------------------------------------------------------------

    async def test_a_service_may_be_for_other_services_alone(self, subject: Subject) -> None:
        state = await self._serving(subject, {"web-1": Admission(public=False)}, "web-2")
        assert state.admission == Admission(public=False)
        spoofed = {"penstock-calling-service": "shop", "penstock-caller": "shop-1"}
        for headers in ({}, spoofed, {PREVIEW_HEADER: "web-2"}):
            assert await subject.fetch(state.address, headers, "/") == (403, "")
        token = {PREVIEW_HEADER: "web-2", TOKEN_HEADER: state.preview_token}
        assert await subject.who(state.address, 3, token) == {"web-2": 3}
        assert await subject.who(await caller(subject, "shop"), 3) == {"web-1": 3}

    # --- how many -----------------------------------------------------------------------------------------

    async def test_above_a_rate_nobody_gets_in(self, subject: Subject) -> None:
        few = Admission(per_second=1, burst=4)
        state = await self._serving(subject, {"web-1": few, "web-2": ANYBODY})
        assert state.admission == few
        shop = await caller(subject, "shop")
        state = await subject.apply(state.shifting(Weight("web-2", 1000)))
        state = await subject.apply(state.shifting(Weight("web-1", 1000)))
        first = [(await subject.fetch(address, {}, "/"))[0] for address in (state.address, shop) * 2]
        assert first == [200] * 4, "a burst gets in"
        more = [(await subject.fetch(address, {}, "/"))[0] for address in (state.address, shop) * 4]
        assert set(more) <= {200, 429}
        assert more.count(429) >= 4, "users and callers have one rate between them"
        token = {PREVIEW_HEADER: "web-2", TOKEN_HEADER: state.preview_token}
        assert await subject.who(state.address, 6, token) == {"web-2": 6}

    async def test_above_its_circuit_breaker_a_release_is_asked_no_more(self, subject: Subject) -> None:
        limits = {"web-1": Breakers(requests=2), "web-2": Breakers(requests=1, connections=7)}
        state = await self._serving(subject, {"web-1": ANYBODY, "web-2": ANYBODY}, breakers=limits)
        assert {known.release: known.backend.breakers for known in state.backends} == limits
        async with subject.world.holding("web-1", state.address, 2):
            assert await subject.fetch(state.address, {}, "/") == (503, "web-1")
        assert await status(subject, state.address, 3) == {200}

    async def test_what_the_proxy_refuses_is_no_error_of_the_release(self, subject: Subject) -> None:
        said = {"web-1": Admission(callers=(), per_second=1, burst=1000)}
        state = await self._serving(subject, said, breakers={"web-1": Breakers(requests=1)})
        await status(subject, await caller(subject, "shop"), 5)
        async with subject.world.holding("web-1", state.address, 1):
            assert await status(subject, state.address, 4) == {503}
        assert await subject.fetch(state.address, {}, "/err") == (500, "web-1")
        (found,) = await subject.metrics.counters(SERVICE, ENVIRONMENT)
        assert (found.requests, found.errors, found.refused) == (2, 1, 4)
        assert await subject.metrics.refused(SERVICE, ENVIRONMENT) == (Refused("callers", 5),)

    async def test_what_the_proxy_refuses_is_counted_by_rule(self, subject: Subject) -> None:
        assert await subject.metrics.refused(SERVICE, ENVIRONMENT) == ()
        said = {"web-1": Admission(public=False), "web-2": Admission(("cart",), per_second=1, burst=1)}
        state = await self._serving(subject, said)
        shop, cart = await caller(subject, "shop"), await caller(subject, "cart")
        await status(subject, state.address, 2)
        state = await subject.apply(state.shifting(Weight("web-2", 1000)))
        await status(subject, shop, 3)
        limited = [(await subject.fetch(cart, {}, "/"))[0] for _ in range(6)].count(429)
        assert limited
        assert await subject.metrics.refused(SERVICE, ENVIRONMENT) == (
            Refused("callers", 3),
            Refused("public", 2),
            Refused("rate", limited),
        )
        assert await subject.metrics.refused("shop", ENVIRONMENT) == ()

    # --- drift and mistakes -------------------------------------------------------------------------------

    async def test_who_gets_in_is_put_right_like_everything_else(self, subject: Subject) -> None:
        state = await self._serving(subject, {"web-1": SHOP_ONLY}, breakers={"web-1": Breakers(5, 6)})
        (backend,) = state.plan.backends
        for odd, word in (
            (replace(backend, admission=ANYBODY), "admission"),
            (replace(backend, breakers=Breakers(9)), "breakers of web-1"),
        ):
            await subject.world.meddle(replace(state.plan, backends=(odd,)))
            found = await subject.read()
            assert word in found.drift
            assert await subject.apply(found.plan) == state
            assert (await subject.read()).drift == ""

    async def test_a_limit_that_is_none_is_refused(self, subject: Subject) -> None:
        state = await self._serving(subject, {"web-1": ANYBODY})
        (backend,) = state.plan.backends
        for bad in (
            Admission(callers=("shop|.*",)),
            Admission(callers=("shop", "shop")),
            Admission(per_second=-1),
            Admission(per_second=5, burst=4),
            Admission(burst=4),
        ):
            with pytest.raises(Invalid):
                state.exposing(replace(backend, admission=bad))
        for limit in (Breakers(requests=-1), Breakers(connections=2_000_000)):
            with pytest.raises(Invalid):
                state.exposing(replace(backend, breakers=limit))

    async def _serving(
        self,
        subject: Subject,
        said: dict[str, Admission],
        *dark: str,
        breakers: dict[str, Breakers] | None = None,
    ) -> TrafficState:
        """All users on the first; every other release is dark."""
        state = await subject.read()
        for release in (*said, *dark):
            backend = await subject.world.backend(release)
            limits = (breakers or {}).get(release, Breakers())
            backend = replace(backend, admission=said.get(release, ANYBODY), breakers=limits)
            state = await subject.apply(state.exposing(backend))
        return await subject.apply(state.shifting(Weight(next(iter(said)), 1000)))


async def caller(subject: Subject, service: str, chain: tuple[str, ...] = ()) -> str:
    """Where a release of *service* calls."""
    egress = (Egress(SERVICE, subject.world.socket(f"{service}-1")),)
    backend = replace(await subject.world.backend(f"{service}-1"), egress=egress, chain=chain)
    plan = TrafficPlan(service, ENVIRONMENT, (backend,), ())
    await subject.router.apply(plan, fence=Fence(f"{service}/{ENVIRONMENT}", 1, "key"))
    return egress[0].address


async def status(subject: Subject, address: str, times: int) -> set[int]:
    return {(await subject.fetch(address, {}, "/"))[0] for _ in range(times)}
