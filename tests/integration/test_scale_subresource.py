"""The number of copies by itself, as autoscalers set it: the ``scale`` subresource of the fake cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.cluster import cluster_and_client, config_map, deployment
from penstock.adapters._kubernetes import Client
from penstock.adapters._kubernetes.failures import Drift
from penstock.adapters._kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS
from penstock.adapters._kubernetes.owned import extract
from penstock.errors import Conflict, Invalid
from penstock.testing.kubernetes import FakeCluster


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[FakeCluster, Client]]:
    async with cluster_and_client(tmp_path) as found:
        yield found


async def test_it_is_set_by_version_and_belongs_to_who_set_it_last(both: tuple[FakeCluster, Client]) -> None:
    cluster, client = both
    made = await client.create(DEPLOYMENTS, deployment(replicas=1))
    await cluster.settled()
    with pytest.raises(Conflict, match="has been modified"):
        await client.resize(DEPLOYMENTS, made, 3)
    live = await client.get(DEPLOYMENTS, "web")
    assert live is not None
    three = await client.resize(DEPLOYMENTS, live, 3)
    found = await client.get(DEPLOYMENTS, "web")
    assert found is not None
    assert (found["spec"]["replicas"], three["spec"]["replicas"]) == (3, 3)
    assert int(found["metadata"]["resourceVersion"]) >= int(three["metadata"]["resourceVersion"])
    assert "replicas" not in extract(found, "penstock")["spec"], "no apply of ours takes it back"
    with pytest.raises(Drift, match=r"penstock changed \.spec\.replicas"):
        await client.apply(DEPLOYMENTS, deployment(replicas=1))


async def test_what_has_no_copies_is_given_none(both: tuple[FakeCluster, Client]) -> None:
    _, client = both
    made = await client.create(CONFIG_MAPS, config_map())
    with pytest.raises(Invalid, match="configmaps"):
        await client.resize(CONFIG_MAPS, {**made, "spec": {}}, 3)
