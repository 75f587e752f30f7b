"""Previews of a release by a Service of their own, as both routers of a cluster lead them: whoever counts by
Service counts users alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.router import Subject
from contracts.test_router_cluster import ClusterWorld, over_gateway, over_istio
from penstock.adapters._kubernetes.previews import PREVIEWS
from penstock.core.traffic import PREVIEW_HEADER, TOKEN_HEADER, TrafficState, Weight
from penstock.errors import Unavailable
from penstock.testing.kubernetes.kinds import SLICES
from penstock.testing.kubernetes.standard import Standard

Placed = tuple[Subject, ClusterWorld]


@pytest.fixture(params=[over_gateway, over_istio], ids=["gateway-api", "istio"])
async def placed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Placed]:
    async with request.param(tmp_path) as (subject, world, _):
        yield subject, world


def counted(standard: Standard) -> dict[str, int]:
    """Requests by the Service that they were led to, as the proxy tells whoever scrapes it."""
    lines = [line for line in standard.page().splitlines() if line.startswith("istio_requests_total")]
    named = (line.partition('destination_service_name="')[2].partition('"')[0] for line in lines)
    return dict(zip(named, (int(line.rpartition(" ")[2]) for line in lines), strict=True))


async def ask(subject: Subject, state: TrafficState) -> None:
    """A user, who gets web-1, and a preview of web-2."""
    assert await subject.fetch(state.address, {}, "/") == (200, "web-1")
    token = {PREVIEW_HEADER: "web-2", TOKEN_HEADER: state.preview_token}
    assert await subject.fetch(state.address, token, "/") == (200, "web-2")


async def test_previews_are_told_from_users_by_where_they_are_led(placed: Placed) -> None:
    subject, world = placed
    await ask(subject, await subject.serving("web-1", "web-2"))
    assert counted(world.proxy.counted) == {"web-1": 1, "web-2-preview": 1}
    assert (await subject.read()).drift == ""


async def test_a_release_that_an_older_penstock_has_placed_is_seen_where_its_users_are(
    placed: Placed,
) -> None:
    subject, world = placed
    await world.backend("web-2")
    world.cluster.edit("services", "web-2", {"metadata": {"annotations": {PREVIEWS: None}}})
    await ask(subject, await subject.serving("web-1", "web-2"))
    assert counted(world.proxy.counted) == {"web-1": 1, "web-2": 1}
    assert (await subject.read()).drift == ""


async def test_a_release_is_ready_once_its_previews_find_it_too(placed: Placed) -> None:
    """Or the first tests of a dark release would be answered by the gateway."""
    subject, world = placed
    state = await subject.serving("web-1", "web-2")
    assert state.ready("web-2")
    (endpoint,) = world.cluster.api.get(SLICES, "default", "web-2-preview-1")["endpoints"]
    late = {"endpoints": [{**endpoint, "conditions": {"ready": False}}]}
    world.cluster.edit(SLICES.full, "web-2-preview-1", late)
    state = await subject.read()
    assert (state.ready("web-1"), state.ready("web-2")) == (True, False)
    with pytest.raises(Unavailable, match="0 of 1 copies are ready"):
        await subject.apply(state.shifting(Weight("web-2", 1000)))
