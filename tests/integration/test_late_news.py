"""Routers in a cluster: what they ask for, what they leave to watches, and what becomes of late news."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.router import SERVICE, Subject
from contracts.test_router_cluster import ClusterWorld, over_gateway, over_istio
from penstock.adapters.istio import Istio
from penstock.core.traffic import TrafficState, Weight
from penstock.errors import Refused, Unavailable
from penstock.testing.kubernetes import Fault
from penstock.testing.kubernetes.kinds import SLICES

NAME = "web.production"
ALL_TO_2 = (Weight("web-2", 1000),)


@dataclass(frozen=True)
class Place:
    """*plural* is what the router writes."""

    subject: Subject
    world: ClusterWorld
    plural: str

    @property
    def full(self) -> str:
        group = "networking.istio.io" if self.plural == "virtualservices" else "gateway.networking.k8s.io"
        return f"{self.plural}.{group}"

    async def asked(self, work: Callable[[], object]) -> Counter[str]:
        """What the API was asked meanwhile."""
        before = len(self.world.cluster.asked)
        await work()  # type: ignore[misc]
        return Counter(self.world.cluster.asked[before:])

    async def until_asked(self, what: str, before: int = 0) -> None:
        async with asyncio.timeout(10):
            while what not in self.world.cluster.asked[before:]:
                await asyncio.sleep(0.01)

    def label(self, value: str) -> None:
        """What somebody else does to the route, which moves its version."""
        self.world.cluster.edit(self.full, NAME, {"metadata": {"labels": {"team": value}}})


@pytest.fixture(params=[over_gateway, over_istio])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with request.param(tmp_path) as (subject, world, _):
        plural = "virtualservices" if isinstance(subject.router, Istio) else "httproutes"
        yield Place(subject, world, plural)


# --- requests --------------------------------------------------------------------------------------------


async def test_a_look_is_one_request_and_a_change_another(place: Place) -> None:
    state = await place.subject.serving("web-1", "web-2")
    assert await place.asked(place.subject.read) == {f"get {place.plural}": 1}
    first = state.shifting(Weight("web-1", 500), Weight("web-2", 500))
    # Before a release gets users, or more of them, the API itself says that it is ready.
    sure = {f"patch {place.plural}": 1, "list endpointslices": 1, "get services": 1}
    assert await place.asked(lambda: place.subject.apply(first)) == sure
    assert await place.asked(lambda: place.subject.apply(first)) == {f"patch {place.plural}": 1}
    assert await place.asked(lambda: place.subject.apply(state.settling("web-2"))) == sure


async def test_what_does_not_come_up_is_not_asked_about_at_every_look(place: Place) -> None:
    state = await place.subject.exposed("web-1")
    await place.subject.apply(state.exposing(place.world.dead("web-2")))

    async def look() -> None:
        for _ in range(10):
            assert not (await place.subject.read()).ready("web-2")

    asked = await place.asked(look)
    assert asked[f"get {place.plural}"] == 10
    assert asked["list endpointslices"] <= 5


# --- news that is late -----------------------------------------------------------------------------------


async def test_a_write_made_of_an_old_version_is_made_anew(place: Place) -> None:
    state = await place.subject.serving("web-1", "web-2")
    place.world.cluster.fail(Fault("watch", place.plural, how="mute"))
    place.label("shop")
    asked = await place.asked(lambda: place.subject.apply(state.settling("web-2")))
    assert asked[f"patch {place.plural}"] == 2
    found = await place.subject.read()
    assert (found.weights, found.drift) == (ALL_TO_2, "")
    live = await place.world.client.get(place.subject.router.kind, NAME)  # type: ignore[attr-defined]
    assert live is not None
    assert live["metadata"]["labels"]["team"] == "shop"


async def test_a_look_does_not_wait_for_news_of_what_others_changed(place: Place) -> None:
    state = await place.subject.serving("web-1", "web-2")
    place.world.cluster.fail(Fault("watch", place.plural, how="mute"))
    await place.world.meddle(state.settling("web-2"))
    assert (await place.subject.read()).drift == "users on web-2 100% instead of web-1 100%"


async def test_a_release_that_is_ready_is_led_to_although_nobody_tells_of_it(place: Place) -> None:
    await place.subject.serving("web-1")
    for plural in ("services", "endpointslices"):
        place.world.cluster.fail(Fault("watch", plural, how="mute"))
    state = await place.subject.exposed("web-2")
    assert state.ready("web-2")
    assert (await place.subject.apply(state.settling("web-2"))).weights == ALL_TO_2


async def test_nobody_is_led_to_what_was_ready_when_somebody_last_told_of_it(place: Place) -> None:
    state = await place.subject.serving("web-1", "web-2")
    place.world.cluster.fail(Fault("watch", "endpointslices", how="mute"))
    piece = place.world.cluster.api.get(SLICES, "default", "web-2-1")
    gone = [{**endpoint, "conditions": {"ready": False}} for endpoint in piece["endpoints"]]
    place.world.cluster.edit(SLICES.full, "web-2-1", {"endpoints": gone})
    with pytest.raises(Unavailable, match="0 of 1 copies are ready: no traffic was moved"):
        await place.subject.apply(state.settling("web-2"))
    assert (await place.subject.read()).weights == state.weights


async def test_a_route_that_was_taken_away_unseen_is_made_again(place: Place) -> None:
    state = await place.subject.serving("web-1", "web-2")
    place.world.cluster.fail(Fault("watch", place.plural, how="mute"))
    kind = place.subject.router.kind  # type: ignore[attr-defined]
    assert await place.world.client.delete(kind, NAME)
    assert await place.subject.read() == TrafficState(SERVICE, "production")
    assert (await place.subject.apply(state.settling("web-2"))).weights == ALL_TO_2


async def test_a_label_that_somebody_took_off_is_put_back(place: Place) -> None:
    """Without it no watch tells of the route."""
    state = await place.subject.serving("web-1", "web-2")
    off = {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}
    for weights in ((Weight("web-1", 500), Weight("web-2", 500)), ALL_TO_2):
        place.world.cluster.edit(place.full, NAME, off, manager="penstock")
        assert (await place.subject.apply(state.shifting(*weights))).weights == weights


# --- watches that break ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plural", ["routes", "services", "endpointslices"])
@pytest.mark.parametrize(
    ("ends", "again"),
    [
        (Fault("watch", status=410, how="break"), None),
        (Fault("watch", status=500, how="break"), Fault("watch", status=429)),
        (Fault("watch", status=500, how="break"), Fault("watch", how="cut")),
        (Fault("watch", status=500, how="break"), Fault("watch", how="hang")),
    ],
    ids=["410", "429", "cut", "hang"],
)
async def test_a_watch_that_ends_keeps_nobody_waiting(
    place: Place, plural: str, ends: Fault, again: Fault | None
) -> None:
    state = await place.subject.serving("web-1", "web-2")
    resource = place.plural if plural == "routes" else plural
    before = len(place.world.cluster.asked)
    for fault in (ends, again):
        if fault is not None:
            place.world.cluster.fail(Fault(fault.verb, resource, fault.status, how=fault.how))
    place.label("shop")  # so that every watch finds out
    await place.until_asked(f"{'list' if ends.status == 410 else 'watch'} {resource}", before)
    assert (await place.subject.read()).weights == state.weights
    assert (await place.subject.apply(state.settling("web-2"))).weights == ALL_TO_2


async def test_while_watches_are_away_the_api_is_asked(place: Place) -> None:
    for plural in (place.plural, "services", "endpointslices"):
        place.world.cluster.fail(Fault("watch", plural, status=503, times=1000))
    state = await place.subject.serving("web-1", "web-2")
    assert state.ready("web-2")
    place.world.cluster.heal()


async def test_a_right_that_is_missing_is_told(place: Place) -> None:
    group, every = place.full.partition(".")[2], ["get", "list", "watch", "create", "patch"]
    place.world.cluster.allow(
        [
            {"apiGroups": [group], "resources": [place.plural], "verbs": every},
            {"apiGroups": [group], "resources": ["gateways"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ]
    )

    async def keep_checking() -> None:
        while True:
            await place.subject.router.check()  # type: ignore[attr-defined]

    with pytest.raises(Refused, match="watch on services"):
        await asyncio.wait_for(keep_checking(), 10)
