"""What a `Router` must do: subclass `RouterContract`, give it a fixture ``subject``.

What its `Metrics` must do is in `contracts.metrics`.

One that cannot do everything subclasses `WeightsContract` and the others that fit it, and refuses the rest by
name (`contracts.powers`).
Must not know which router it tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import pytest

from penstock.core.fence import Fence
from penstock.core.traffic import (
    PREVIEW_COOKIE,
    PREVIEW_HEADER,
    TOKEN_HEADER,
    Backend,
    Egress,
    TrafficPlan,
    TrafficState,
    Weight,
    preview_host,
)
from penstock.errors import Invalid, PenstockError, Unavailable
from penstock.ports import Metrics, Router

SERVICE, ENVIRONMENT = "web", "production"
FENCE = Fence(f"{SERVICE}/{ENVIRONMENT}", 1, "key")
SHOP = Fence(f"shop/{ENVIRONMENT}", 1, "key")


@dataclass(frozen=True)
class Visit:
    """What a user got: the status, the release that answered ("" if none did), and cookies to keep."""

    status: int
    release: str
    cookies: Mapping[str, str]


class World(Protocol):
    """What is around a router.

    *backend* starts something that answers for a release, *copies* an elastic one; *served* is how often each
    of these copies was asked. *dead* is a backend that nobody can reach;
    *socket* is an address for an egress listener. *visit* asks (address, headers, path) as a user does;
    *seen* are the last requests that reached a release: their lines, in lower case. While it is *holding*, a
    release has not answered so many requests of users at *address*. *meddle* makes the data plane do a plan
    behind the router's back.
    """

    async def backend(self, release: str) -> Backend: ...
    async def copies(self, release: str, number: int) -> Backend: ...
    def served(self, release: str) -> Sequence[int]: ...
    def dead(self, release: str) -> Backend: ...
    def socket(self, name: str) -> str: ...
    async def visit(self, address: str, headers: dict[str, str], path: str) -> Visit: ...
    def seen(self, release: str) -> Sequence[str]: ...
    def holding(self, release: str, address: str, count: int) -> AbstractAsyncContextManager[None]: ...
    async def meddle(self, plan: TrafficPlan) -> None: ...


@dataclass(frozen=True)
class Subject:
    """A router, and the world around it."""

    router: Router
    metrics: Metrics
    world: World

    async def fetch(self, address: str, headers: dict[str, str], path: str) -> tuple[int, str]:
        found = await self.world.visit(address, headers, path)
        return found.status, found.release

    async def read(self) -> TrafficState:
        return await self.router.read(SERVICE, ENVIRONMENT)

    async def apply(self, plan: TrafficPlan) -> TrafficState:
        return await self.router.apply(plan, fence=FENCE)

    async def exposed(self, *releases: str) -> TrafficState:
        """Every release known, nobody served."""
        state = await self.read()
        for release in releases:
            state = await self.apply(state.exposing(await self.world.backend(release)))
        return state

    async def serving(self, release: str, *dark: str) -> TrafficState:
        """All users on *release*, the others dark."""
        state = await self.exposed(release, *dark)
        return await self.apply(state.shifting(Weight(release, 1000)))

    async def who(self, address: str, times: int, headers: dict[str, str] | None = None) -> Counter[str]:
        """Which releases answered *times* requests."""
        return Counter([(await self.fetch(address, headers or {}, "/"))[1] for _ in range(times)])


class WeightsContract:
    """What a router must do in any case: users go where they are led, and to nobody who is not ready."""

    async def test_an_unknown_service_has_an_empty_state(self, subject: Subject) -> None:
        assert await subject.read() == TrafficState(SERVICE, ENVIRONMENT)

    async def test_exposing_moves_nobody(self, subject: Subject) -> None:
        state = await subject.exposed("web-1")
        assert [backend.release for backend in state.backends] == ["web-1"]
        assert state.weights == ()
        assert await subject.fetch(state.address, {}, "/") == (503, "")

        state = await subject.apply(state.shifting(Weight("web-1", 1000)))
        state = await subject.apply(state.exposing(await subject.world.backend("web-2")))
        assert {backend.release for backend in state.backends} == {"web-1", "web-2"}
        assert state.weights == (Weight("web-1", 1000),)
        assert await subject.who(state.address, 20) == {"web-1": 20}

    async def test_a_shift_is_read_back_to_the_thousandth(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        for share in (1, 333, 999):
            wanted = (Weight("web-1", 1000 - share), Weight("web-2", share))
            state = await subject.apply(state.shifting(*wanted))
            assert set(state.weights) == set(wanted)
            assert await subject.read() == state

    async def test_users_follow_the_weights(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        state = await subject.apply(state.shifting(Weight("web-1", 500), Weight("web-2", 500)))
        seen = await subject.who(state.address, 60)
        assert seen.keys() == {"web-1", "web-2"}
        state = await subject.apply(state.shifting(Weight("web-2", 1000)))
        assert await subject.who(state.address, 20) == {"web-2": 20}

    async def test_users_are_never_sent_to_what_cannot_be_reached(self, subject: Subject) -> None:
        state = await subject.serving("web-1")
        state = await subject.apply(state.exposing(subject.world.dead("web-2")))
        assert not state.ready("web-2")
        with pytest.raises(Unavailable):
            await subject.apply(state.shifting(Weight("web-2", 1000)))
        assert (await subject.read()).weights == (Weight("web-1", 1000),)
        assert await subject.who(state.address, 20) == {"web-1": 20}

    async def test_users_are_never_sent_to_what_is_not_known(self, subject: Subject) -> None:
        state = await subject.serving("web-1")
        with pytest.raises(Invalid):
            await subject.apply(state.shifting(Weight("web-9", 1000)))
        assert (await subject.read()).weights == (Weight("web-1", 1000),)

    async def test_a_dark_release_is_seen_with_the_token_only(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        named = {PREVIEW_HEADER: "web-2"}
        key = {TOKEN_HEADER: state.preview_token}
        assert await subject.who(state.address, 5, named | key) == {"web-2": 5}
        for headers in (named, key, named | {TOKEN_HEADER: "guessed"}, key | {PREVIEW_HEADER: "web-9"}):
            assert await subject.who(state.address, 5, headers) == {"web-1": 5}

    async def test_the_same_plan_again_changes_nothing(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        assert await subject.apply(state.shifting(*state.weights)) == state
        assert await subject.read() == state

    async def test_what_is_forgotten_is_gone(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        state = await subject.apply(state.without("web-2"))
        assert [backend.release for backend in state.backends] == ["web-1"]
        headers = {PREVIEW_HEADER: "web-2", TOKEN_HEADER: state.preview_token}
        assert await subject.who(state.address, 5, headers) == {"web-1": 5}
        with pytest.raises(Invalid):
            state.without("web-1")

    async def test_a_refused_plan_leaves_the_last_good_one(self, subject: Subject) -> None:
        state = await subject.serving("web-1")
        good = await subject.world.backend("web-2")
        for bad in (
            replace(good, addresses=("999.1.1.1:80",)),
            replace(good, egress=(Egress(SERVICE, "999.1.1.1:81"),)),
        ):
            for _ in range(2):  # that it was refused once must not make it accepted
                with pytest.raises(Invalid):
                    await subject.apply(state.exposing(bad))
                assert await subject.read() == state
                assert await subject.who(state.address, 5) == {"web-1": 5}
        state = await subject.apply(state.exposing(good))
        state = await subject.apply(state.shifting(Weight("web-2", 1000)))
        assert await subject.who(state.address, 5) == {"web-2": 5}

    async def test_errors_are_of_the_house(self, subject: Subject) -> None:
        state = await subject.serving("web-1")
        with pytest.raises(PenstockError) as raised:
            await subject.apply(state.exposing(Backend("web-2", ("999.1.1.1:80",))))
        assert raised.value.where


class PreviewHostContract:
    """Dark releases have a host name of their own."""

    async def test_a_dark_release_has_a_host_name_that_needs_the_token_too(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        shop = TrafficPlan("shop", ENVIRONMENT, (await subject.world.backend("shop-1"),), ())
        other = await subject.router.apply(shop, fence=Fence(f"shop/{ENVIRONMENT}", 1, "key"))
        host, token = {"host": preview_host("web-2")}, state.preview_token
        key, cookie = {TOKEN_HEADER: token}, {"cookie": f"theme=dark; {PREVIEW_COOKIE}={token}"}
        shouted = {"host": preview_host("web-2").upper() + ":8600"}
        for headers in (host | key, host | cookie, shouted | key):
            assert await subject.who(state.address, 5, headers) == {"web-2": 5}
        assert token not in subject.world.seen("web-2")[0], "the token header goes no further"
        for headers in (
            host,
            cookie,
            host | {TOKEN_HEADER: "guessed"},
            host | {TOKEN_HEADER: other.preview_token},
            host | {TOKEN_HEADER: token.swapcase()},
            host | {TOKEN_HEADER: f"{token},{token}"},  # what two headers of one name become
            host | {"cookie": f"{PREVIEW_COOKIE}={token}x"},
            {"host": preview_host("web-9")} | key,
            {"host": f"x{preview_host('web-2')}"} | key,
        ):
            assert await subject.who(state.address, 5, headers) == {"web-1": 5}, headers


class CallersContract:
    """Callers have an address of their own, which tells who calls."""

    async def test_callers_follow_the_callees_weights(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        shop = replace(
            await subject.world.backend("shop-1"), egress=(Egress(SERVICE, subject.world.socket("shop-1")),)
        )
        caller = TrafficPlan("shop", ENVIRONMENT, (shop,), ())
        await subject.router.apply(caller, fence=Fence(f"shop/{ENVIRONMENT}", 1, "key"))
        assert await subject.who(shop.egress[0].address, 10) == {"web-1": 10}
        await subject.apply(state.shifting(Weight("web-2", 1000)))
        assert await subject.who(shop.egress[0].address, 10) == {"web-2": 10}

    async def test_a_callee_may_come_after_its_caller(self, subject: Subject) -> None:
        shop = replace(
            await subject.world.backend("shop-1"), egress=(Egress(SERVICE, subject.world.socket("shop-1")),)
        )
        caller = TrafficPlan("shop", ENVIRONMENT, (shop,), ())
        await subject.router.apply(caller, fence=Fence(f"shop/{ENVIRONMENT}", 1, "key"))
        assert await subject.fetch(shop.egress[0].address, {}, "/") == (503, "")
        await subject.serving("web-1")
        assert await subject.who(shop.egress[0].address, 5) == {"web-1": 5}


class RouterContract(WeightsContract, PreviewHostContract, CallersContract):
    """All of it."""
