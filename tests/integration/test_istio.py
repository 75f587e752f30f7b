"""The router for Istio where things go wrong, and what it writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.router import FENCE, SERVICE, Subject
from contracts.test_router_cluster import ClusterWorld, over_istio
from fakes.cluster import rules
from penstock.adapters._kubernetes.failures import Drift
from penstock.adapters._kubernetes.kinds import SERVICES
from penstock.adapters.istio import Istio, Meshed
from penstock.core.admission import Breakers
from penstock.core.traffic import Handling, Mirror, TrafficState, Weight
from penstock.errors import Conflict, Invalid
from penstock.testing.kubernetes.istio import RULES, VIRTUALS, Mesh

NAME = "web.production"
HOST = "web.default.svc.cluster.local"
#: What Penstock may do; the guide lists the same.
RIGHTS = rules("rbac-istio.yaml")

Placed = tuple[Subject, ClusterWorld, Mesh]


@pytest.fixture
async def placed(tmp_path: Path) -> AsyncIterator[Placed]:
    async with over_istio(tmp_path) as found:
        yield found


def routes_of(world: ClusterWorld) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.cluster.api.get(VIRTUALS, "default", NAME)["spec"]["http"]
    return found


async def test_a_foreign_edit_is_drift_and_is_never_taken_back_in_silence(placed: Placed) -> None:
    subject, world, _ = placed
    state = await subject.serving("web-1", "web-2")
    routes = routes_of(world)
    to = {"destination": {"host": "web-2.default.svc.cluster.local"}}
    routes[-1] = {**routes[-1], "route": [to]}
    world.cluster.edit(VIRTUALS.full, NAME, {"spec": {"http": routes}}, manager="kubectl-edit")
    found = await subject.read()
    assert found.drift == "users on web-2 100% instead of web-1 100%"
    assert found.plan == state.plan
    with pytest.raises(Drift, match=r"kubectl-edit changed .*http"):
        await subject.apply(found.plan)
    assert routes_of(world) == routes


@pytest.mark.parametrize(
    ("change", "drift"),
    [
        ({"exportTo": ["."]}, "kubectl-edit set spec.exportTo"),
        ({"gateways": ["other/gateway"]}, "kubectl-edit changed spec.gateways"),
    ],
)
async def test_what_no_plan_could_say_is_drift_too(
    placed: Placed, change: dict[str, Any], drift: str
) -> None:
    subject, world, _ = placed
    await subject.serving("web-1")
    world.cluster.edit(VIRTUALS.full, NAME, {"spec": change}, manager="kubectl-edit")
    assert (await subject.read()).drift == drift


async def test_limits_are_a_rule_that_goes_with_its_release(placed: Placed) -> None:
    subject, world, _ = placed
    state = await subject.serving("web-1", "web-2")
    limited = replace(state.plan.backends[1], breakers=Breakers(requests=7, connections=3))
    state = await subject.apply(state.exposing(limited))
    rule = world.cluster.api.get(RULES, "default", "web-2")
    pool = {"tcp": {"maxConnections": 3}, "http": {"http2MaxRequests": 7}}
    assert rule["spec"]["trafficPolicy"] == {"connectionPool": pool}
    with pytest.raises(Conflict, match="older"):
        await subject.router.apply(state.plan, fence=replace(FENCE, number=0))
    state = await subject.apply(state.exposing(replace(limited, breakers=Breakers(requests=9))))
    rule = world.cluster.api.get(RULES, "default", "web-2")
    assert rule["spec"]["trafficPolicy"] == {"connectionPool": {"http": {"http2MaxRequests": 9}}}
    await world.client.delete(SERVICES, "web-2")
    await world.cluster.settled()
    assert world.cluster.api.storage.get(RULES.full, "default", "web-2") is None


async def test_without_limits_there_is_no_rule_and_others_are_left_alone(placed: Placed) -> None:
    subject, world, _ = placed
    state = await subject.serving("web-1", "web-2")
    limited = replace(state.plan.backends[0], breakers=Breakers(requests=7))
    state = await subject.apply(state.exposing(limited))
    state = await subject.apply(state.exposing(replace(limited, breakers=Breakers())))
    assert world.cluster.api.all(RULES) == []
    theirs = {"apiVersion": RULES.api_version, "kind": RULES.kind}
    metadata = {"name": "web-2", "namespace": "default"}
    spec = {"host": "web-2", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 1}}}}
    world.cluster.api.create(RULES, {**theirs, "metadata": metadata, "spec": spec}, manager="helm")
    await subject.apply((await subject.read()).plan)
    (other,) = (backend for backend in state.plan.backends if backend.release == "web-2")
    with pytest.raises(Conflict, match="did not write"):
        await subject.apply(state.exposing(replace(other, breakers=Breakers(requests=5))))
    assert [rule["spec"] for rule in world.cluster.api.all(RULES)] == [spec]


async def test_what_istio_has_found_wrong_is_told_in_its_words(placed: Placed) -> None:
    subject, world, mesh = placed
    state = await subject.serving("web-1", "web-2")
    mesh.wrong.add(HOST)
    world.cluster.edit(VIRTUALS.full, NAME, {"metadata": {"labels": {"team": "shop"}}})
    await world.cluster.settled()
    with pytest.raises(Invalid, match="Istio refuses it: IST0101"):
        await subject.apply(state.plan)


async def test_retries_and_timeouts_are_written_and_read_back(placed: Placed) -> None:
    subject, world, _ = placed
    state = await subject.serving("web-1")
    for handling, retries in (
        (Handling(2.5, 0), {"attempts": 0}),
        (
            Handling(0.25, 5),
            {"attempts": 5, "retryOn": "connect-failure,refused-stream,reset-before-request"},
        ),
    ):
        state = await subject.apply(replace(state.plan, handling=handling))
        assert state.handling == handling
        assert routes_of(world)[-1]["retries"] == retries
        assert routes_of(world)[-1]["timeout"] == f"{handling.timeout_seconds:g}s"


async def test_a_share_of_a_tenth_of_a_per_cent(placed: Placed) -> None:
    subject, world, _ = placed
    state = await subject.serving("web-1", "web-2", "web-3")
    plan = state.shifting(Weight("web-1", 999), Weight("web-2", 1))
    state = await subject.apply(replace(plan, mirror=Mirror("web-3", 1)))
    assert [one["weight"] for one in routes_of(world)[-1]["route"]] == [999, 1]
    assert routes_of(world)[-1]["mirrors"][0]["percentage"] == {"value": 0.1}
    seen = await subject.who(state.address, 1000)
    assert seen == {"web-1": 999, "web-2": 1}


async def test_the_names_are_those_that_were_chosen(placed: Placed) -> None:
    _, world, _ = placed
    meshed = Meshed(("ingress/public",), "{service}-{environment}.example.org", "https://{host}")
    router = world.keep(Istio(world.client, meshed))
    plan = TrafficState(SERVICE, "production").exposing(await world.backend("web-1"))
    state = await router.apply(plan, fence=FENCE)
    assert state.address == "https://web-production.example.org"
    spec = world.cluster.api.get(VIRTUALS, "default", NAME)["spec"]
    assert (spec["hosts"], spec["gateways"]) == (["web-production.example.org"], ["ingress/public"])


async def test_the_listed_rights_are_enough_and_each_is_needed(placed: Placed) -> None:
    subject, world, _ = placed
    world.cluster.allow(RIGHTS)
    state = await subject.serving("web-1", "web-2")
    limited = replace(state.plan.backends[0], breakers=Breakers(requests=7))
    for requests in (7, 8, 0):
        state = await subject.apply(state.exposing(replace(limited, breakers=Breakers(requests=requests))))
    listed = {
        (verb, rule["apiGroups"][0], resource)
        for rule in RIGHTS
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }
    assert listed == world.cluster.rights.used
