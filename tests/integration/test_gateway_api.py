"""The Gateway API's router where things go wrong: foreign edits, gateways that refuse or are away, rights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from contracts.router import FENCE, SERVICE, Subject
from contracts.test_router_cluster import ATTACHED, ClusterWorld, over_gateway
from fakes.cluster import rules
from penstock.adapters._kubernetes.failures import Drift
from penstock.adapters._kubernetes.kinds import SERVICES
from penstock.adapters._meshes import written
from penstock.adapters.gateway_api import GatewayApi
from penstock.core.traffic import (
    PREVIEW_HEADER,
    TOKEN_HEADER,
    Field,
    Handling,
    Rule,
    TrafficState,
    Weight,
)
from penstock.errors import Broken, Conflict, Invalid, Refused, Unavailable
from penstock.testing.kubernetes import Fault
from penstock.testing.kubernetes.gateway import ROUTES, Gateways

NAME = "web.production"
HOST = "web.production.localhost"
#: What Penstock may do; the guide lists the same.
RIGHTS = rules("rbac-gateway-api.yaml")


@dataclass(frozen=True)
class Place:
    """Unpacks into the router's subject and the world; *gateways* decide what is confirmed."""

    subject: Subject
    world: ClusterWorld
    gateways: Gateways

    def __iter__(self) -> Iterator[Any]:
        return iter((self.subject, self.world))


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Place]:
    async with over_gateway(tmp_path) as found:
        yield Place(*found)


def impatient(world: ClusterWorld) -> GatewayApi:
    return world.keep(GatewayApi(world.client, ATTACHED, seconds=0.2))


def rules_of(world: ClusterWorld) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.cluster.api.get(ROUTES, "default", NAME)["spec"]["rules"]
    return found


# --- foreign edits ------------------------------------------------------------------------------------------


async def test_a_foreign_edit_is_drift_and_is_never_taken_back_in_silence(both: Place) -> None:
    subject, world = both
    state = await subject.serving("web-1", "web-2")
    *others, users = rules_of(world)
    refs = [{"name": name, "port": 8080, "weight": weight} for name, weight in (("web-1", 1), ("web-2", 3))]
    rules = [*others, {**users, "backendRefs": refs}]
    world.cluster.edit(ROUTES.full, NAME, {"spec": {"rules": rules}}, manager="kubectl-edit")
    found = await subject.read()
    assert found.weights == (Weight("web-1", 250), Weight("web-2", 750))
    assert found.drift == "users on web-1 25%, web-2 75% instead of web-1 100%"
    assert found.plan == state.plan, "what was asked is not forgotten"
    with pytest.raises(Drift, match=r"kubectl-edit changed .*rules") as raised:
        await subject.apply(found.plan)
    assert raised.value.managers == ("kubectl-edit",)
    assert rules_of(world) == rules


async def test_what_no_plan_could_say_is_drift_too(both: Place) -> None:
    subject, world = both
    state = await subject.serving("web-1")
    rules = rules_of(world)
    header = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["x-frame-options"]}}
    rules[-1]["filters"] = [header]
    world.cluster.edit(ROUTES.full, NAME, {"spec": {"rules": rules}}, manager="kubectl-edit")
    found = await subject.read()
    assert (found.weights, found.drift) == (state.weights, "kubectl-edit changed spec.rules")


async def test_another_host_name_is_drift(both: Place) -> None:
    subject, world = both
    await subject.serving("web-1")
    world.cluster.edit(ROUTES.full, NAME, {"spec": {"hostnames": ["evil.example"]}}, manager="helm")
    assert (await subject.read()).drift == "helm changed spec.hostnames"
    with pytest.raises(Conflict, match="helm changed"):
        await subject.apply((await subject.read()).plan)


async def test_labels_and_annotations_of_others_are_nobodys_business(both: Place) -> None:
    subject, world = both
    state = await subject.serving("web-1", "web-2")
    labels = {"metadata": {"labels": {"team": "shop"}, "annotations": {"seen": "by-us"}}}
    world.cluster.edit(ROUTES.full, NAME, labels, manager="kubectl-label")
    assert await subject.read() == state
    state = await subject.apply(state.settling("web-2"))
    route = world.cluster.api.get(ROUTES, "default", NAME)
    assert (route["metadata"]["labels"]["team"], state.drift) == ("shop", "")


async def test_a_route_of_somebody_else_is_left_alone(both: Place) -> None:
    subject, world = both
    plan = TrafficState(SERVICE, "production").exposing(await world.backend("web-1"))
    spec = {"parentRefs": [ATTACHED.parent], "hostnames": [HOST], "rules": [{"name": "theirs"}]}
    head = {"apiVersion": ROUTES.api_version, "kind": ROUTES.kind}
    metadata = {"name": NAME, "namespace": "default"}
    world.cluster.api.create(ROUTES, {**head, "metadata": metadata, "spec": spec}, manager="helm")
    with pytest.raises(Conflict, match="did not write"):
        await subject.read()
    with pytest.raises(Conflict, match="did not write"):
        await subject.apply(plan)
    assert rules_of(world) == [{"name": "theirs"}]


async def test_an_annotation_that_is_no_plan_is_said_to_be_that(both: Place) -> None:
    subject, world = both
    await subject.serving("web-1")
    world.cluster.edit(ROUTES.full, NAME, {"metadata": {"annotations": {written.PLAN: "[]"}}})
    with pytest.raises(Broken, match="is no plan"):
        await subject.read()


# --- the gateway --------------------------------------------------------------------------------------------


async def test_a_refused_route_is_put_back_and_the_reason_is_the_gateways(both: Place) -> None:
    subject, world = both
    state = await subject.serving("web-1", "web-2")
    both.gateways.refuses.add(HOST)
    with pytest.raises(Invalid, match=f"Accepted is False: UnsupportedValue: not for {HOST}"):
        await subject.apply(state.settling("web-2"))
    assert (await subject.read()).weights == state.weights
    both.gateways.refuses.clear()
    # Whoever mends a gateway changes it, and then it looks at its routes again.
    mended = {"metadata": {"annotations": {"mended": "true"}}}
    world.cluster.edit("gateways.gateway.networking.k8s.io", "public", mended)
    await world.cluster.settled()
    await subject.router.apply(state.plan, fence=FENCE)
    assert await subject.read() == state
    assert await subject.who(state.address, 3) == {"web-1": 3}


async def test_what_a_newer_worker_has_written_is_not_put_back(both: Place) -> None:
    """It took over while this one had not yet undone what was refused."""
    subject, world = both
    state = await subject.serving("web-1", "web-2")
    both.gateways.refuses.add(HOST)
    newer = {"metadata": {"annotations": {written.FENCE: "99"}}}
    writes = 0

    async def take_over(what: str, moment: str) -> None:
        nonlocal writes
        writes += (what, moment) == ("patch httproutes", "before")
        if writes == 2:
            writes += 1
            world.cluster.edit(ROUTES.full, NAME, newer, manager="penstock")

    world.cluster.at_write(take_over)
    with pytest.raises(Invalid, match="Accepted is False"):
        await subject.apply(state.settling("web-2"))
    assert writes == 3
    route = world.cluster.api.get(ROUTES, "default", NAME)
    assert written.annotation(route, written.FENCE) == "99"


async def test_a_new_route_that_is_refused_goes(both: Place) -> None:
    subject, _ = both
    both.gateways.refuses.add(HOST)
    with pytest.raises(Invalid):
        await subject.exposed("web-1")
    assert await subject.read() == TrafficState(SERVICE, "production")


async def test_what_is_not_confirmed_in_time_may_be_asked_again(both: Place) -> None:
    subject, world = both
    state = await subject.serving("web-1", "web-2")
    both.gateways.away = True
    with pytest.raises(Unavailable, match="has not looked at it yet"):
        await impatient(world).apply(state.settling("web-2"), fence=FENCE)
    assert await subject.who(state.address, 3) == {"web-1": 3}
    both.gateways.away = False
    state = await subject.apply(state.settling("web-2"))
    assert await subject.who(state.address, 3) == {"web-2": 3}


async def test_without_a_gateway_nobody_takes_the_route(both: Place) -> None:
    _, world = both
    router = world.keep(GatewayApi(world.client, replace(ATTACHED, gateway="private"), seconds=0.2))
    plan = TrafficState(SERVICE, "production").exposing(await world.backend("web-1"))
    with pytest.raises(Unavailable, match="no gateway has taken the route"):
        await router.apply(plan, fence=FENCE)
    assert (await router.read(SERVICE, "production")).address == ""


async def test_nobody_is_led_to_a_service_that_is_gone(both: Place) -> None:
    subject, world = both
    state = await subject.serving("web-1", "web-2")
    assert await world.client.delete(SERVICES, "web-2")
    async with asyncio.timeout(10):
        while (await subject.read()).ready("web-2"):  # a watch has to tell of it, as it tells a gateway
            await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="0 of 1 copies"):
        await subject.apply(state.settling("web-2"))


async def test_what_was_taken_out_may_be_gone_before_it_is_forgotten(both: Place) -> None:
    """Whoever died between a removal and its end asks for all of it again."""
    subject, world = both
    state = await subject.serving("web-2", "web-1")
    out = next(known.backend for known in state.backends if known.release == "web-1")
    state = await subject.apply(state.exposing(replace(out, addresses=(), draining=())))
    preview = {PREVIEW_HEADER: "web-1", TOKEN_HEADER: state.preview_token}
    assert (await subject.fetch(state.address, preview, "/"))[0] == 503
    assert await world.client.delete(SERVICES, "web-1")
    state = await impatient(world).apply(state.settling("web-2"), fence=FENCE)
    assert [known.release for known in state.backends] == ["web-2", "web-1"], "told until it is forgotten"
    assert state.drift == ""
    assert await subject.who(state.address, 3) == {"web-2": 3}
    state = await subject.apply(state.without("web-1"))
    assert [known.release for known in state.backends] == ["web-2"]


# --- the API ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "cut-after"])
async def test_a_write_that_nobody_knows_of_may_be_made_again(both: Place, how: Any) -> None:
    subject, world = both
    state = await subject.serving("web-1", "web-2")
    world.cluster.fail(Fault("patch", "httproutes", how=how))
    with pytest.raises(Unavailable):
        await subject.apply(state.settling("web-2"))
    state = await subject.apply(state.settling("web-2"))
    assert (state.weights, state.drift) == ((Weight("web-2", 1000),), "")


async def test_a_status_that_is_told_in_between_is_no_conflict(both: Place) -> None:
    """Gateways tell theirs whenever they like, and the version moves."""
    subject, world = both
    state = await subject.serving("web-1", "web-2")
    await world.cluster.settled()
    before = len(world.cluster.asked)
    change = asyncio.ensure_future(subject.apply(state.settling("web-2")))
    async with asyncio.timeout(10):
        while not any("endpointslices" in asked for asked in world.cluster.asked[before:]):
            await asyncio.sleep(0)
    both.gateways.away = True
    world.cluster.edit(ROUTES.full, NAME, {"status": {"parents": []}}, manager="gateway", part="status")
    both.gateways.away = False
    assert (await change).weights == (Weight("web-2", 1000),)
    assert [asked for asked in world.cluster.asked[before:] if asked == "patch httproutes"] == [
        "patch httproutes"
    ] * 2


async def test_of_two_writers_of_one_version_one_is_told(both: Place) -> None:
    subject, _ = both
    state = await subject.serving("web-1", "web-2")
    plans = (state.settling("web-2"), state.shifting(Weight("web-1", 500), Weight("web-2", 500)))
    ends = await asyncio.gather(*(subject.apply(plan) for plan in plans), return_exceptions=True)
    lost = [end for end in ends if isinstance(end, BaseException)]
    won = [end.weights for end in ends if isinstance(end, TrafficState)]
    assert all(isinstance(end, Conflict) for end in lost)
    assert won
    assert (await subject.read()).weights in won


async def test_the_listed_rights_are_enough_and_each_is_needed(both: Place) -> None:
    subject, world = both
    world.cluster.allow(RIGHTS)
    state = await subject.serving("web-1", "web-2")
    await subject.apply(state.settling("web-2"))
    both.gateways.refuses.add("shop.production.localhost")
    plan = TrafficState("shop", "production").exposing(await world.backend("shop-1"))
    with pytest.raises(Invalid):  # what was refused is deleted again
        await subject.router.apply(plan, fence=FENCE)
    listed = {
        (verb, rule["apiGroups"][0], resource)
        for rule in RIGHTS
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }
    assert listed == world.cluster.rights.used


async def test_a_missing_right_and_a_missing_kind_say_what_is_missing(both: Place) -> None:
    subject, world = both
    plan = TrafficState(SERVICE, "production").exposing(await world.backend("web-1"))
    world.cluster.allow([rule for rule in RIGHTS if "httproutes" not in rule["resources"]])
    with pytest.raises(Refused, match=r"list on httproutes\.gateway"):
        await subject.apply(plan)
    world.cluster.allow(RIGHTS)
    world.cluster.api.unserve(ROUTES.full)
    with pytest.raises(Invalid, match="does not know httproutes"):
        await subject.apply(plan)


# --- what is written ----------------------------------------------------------------------------------------


async def test_a_preview_comes_before_every_rule(both: Place) -> None:
    """The API would ask a longer path first."""
    subject, _ = both
    state = await subject.serving("web-1", "web-2", "web-3")
    rules = (Rule((Weight("web-3", 1000),), "/shop/deep", (Field("x-beta", "1"), Field("x-team", "a"))),)
    state = await subject.apply(replace(state.plan, rules=rules))
    preview = {PREVIEW_HEADER: "web-2", TOKEN_HEADER: state.preview_token, "x-beta": "1", "x-team": "a"}
    assert await subject.fetch(state.address, preview, "/shop/deep/1") == (200, "web-2")
    del preview[TOKEN_HEADER]
    assert await subject.fetch(state.address, preview, "/shop/deep/1") == (200, "web-3")


@pytest.mark.parametrize(
    ("seconds", "said"), [(15.0, "15s"), (0.25, "250ms"), (2.5, "2s500ms"), (3600, "3600s")]
)
async def test_how_long_an_answer_may_take(both: Place, seconds: float, said: str) -> None:
    subject, world = both
    state = await subject.serving("web-1")
    state = await subject.apply(replace(state.plan, handling=Handling(timeout_seconds=seconds)))
    assert state.handling == Handling(timeout_seconds=seconds)
    assert rules_of(world)[-1]["timeouts"] == {"request": said}


async def test_more_than_a_route_can_hold_is_refused_before_anything_is_written(both: Place) -> None:
    subject, _ = both
    state = await subject.serving("web-1")
    rules = tuple(Rule((Weight("web-1", 1000),), f"/part/{number}") for number in range(15))
    with pytest.raises(Invalid, match="17 rules") as raised:
        await subject.apply(replace(state.plan, rules=rules))
    assert raised.value.next_move
    assert await subject.read() == state


async def test_cookies_of_one_rule_are_found_in_any_order(both: Place) -> None:
    subject, _ = both
    state = await subject.serving("web-1", "web-2")
    rule = Rule((Weight("web-2", 1000),), cookies=(Field("a", "1"), Field("b", "2")))
    state = await subject.apply(replace(state.plan, rules=(rule,)))
    for cookie, release in (
        ("a=1; b=2", "web-2"),
        ("b=2; x=9; a=1; y=8", "web-2"),
        ("a=1; b=22", "web-1"),
        ("a=1", "web-1"),
    ):
        assert await subject.fetch(state.address, {"cookie": cookie}, "/") == (200, release), cookie
