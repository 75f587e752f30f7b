"""What an installation that delivers to a cluster asks of its drivers besides the ports: to be opened by its
file, to be checked before it is used, and to be reached where users do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.answers import Answer, FakePrometheus
from fakes.images import FakeImages
from fakes.registry import FakeRegistry, problem
from penstock.adapters._kubernetes import Access
from penstock.adapters.build import Layout
from penstock.adapters.gateway_api import GatewayApi
from penstock.adapters.istio import Istio
from penstock.adapters.istio_metrics import IstioMetrics
from penstock.adapters.kubernetes import Kubernetes
from penstock.adapters.kubernetes import Settings as Placing
from penstock.bootstrap.home import Home, Settings
from penstock.bootstrap.target import open_target
from penstock.bootstrap.up import Wanted, _cluster
from penstock.checks.preview import dark
from penstock.checks.sending import Ask, Target
from penstock.cluster import Cluster, Counts, Gateway, Registry
from penstock.core.fence import Fence
from penstock.core.traffic import TrafficState
from penstock.core.workload import Workload
from penstock.errors import Conflict, Invalid, Refused, Unavailable
from penstock.testing.kubernetes import Behaviour, FakeCluster
from penstock.testing.kubernetes.gateway import use_gateway
from penstock.testing.kubernetes.istio import use_istio

ARTIFACT = "sha256:" + "1" * 64
FENCE = Fence("web/production", 3, "key")
WORKLOAD = Workload("web", "production", "web-1", ARTIFACT, ("serve",), replicas=3, drain_seconds=0.1)


@pytest.fixture
async def fake() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(speed=20.0) as fake:
        fake.kubelet.behaviours[f"registry.test/shop/web@{ARTIFACT}"] = Behaviour()
        yield fake


@pytest.fixture
def named(fake: FakeCluster, tmp_path: Path) -> Cluster:
    return Cluster(
        images=Registry("http://registry.test/shop", "registry.test/shop"),
        gateway=Gateway("public", "{service}.example.org"),
        metrics=Counts("http://127.0.0.1:1"),
        kubeconfig=str(fake.kubeconfig(tmp_path)),
        reach="http://127.0.0.1:8001",
        neighbour="{service}.example.org:80",
    )


# --- checked before it is used ----------------------------------------------------------------------------


def platform(named: Cluster) -> Kubernetes:
    """Nothing is published here."""
    return Kubernetes.of(named, FakeImages(Path("/nowhere")), Layout(Path("/nowhere")))


#: All that is asked before a cluster is used.
OPENED = (platform, GatewayApi.of, Istio.of)


async def check(driver: Kubernetes | GatewayApi | Istio) -> None:
    try:
        await driver.check()
    finally:
        await driver.close()


async def test_a_cluster_that_has_it_all_is_taken(fake: FakeCluster, named: Cluster) -> None:
    use_gateway(fake)
    use_istio(fake)
    for opened in OPENED:
        await check(opened(named))


async def test_an_api_that_is_away_is_told(fake: FakeCluster, named: Cluster) -> None:
    await fake.disconnect()
    for opened in OPENED:
        with pytest.raises(Unavailable, match="does not answer"):
            await check(opened(named))


async def test_a_kind_that_the_cluster_does_not_know_is_named(fake: FakeCluster, named: Cluster) -> None:
    with pytest.raises(Invalid, match=r"does not know httproutes\.gateway\.networking") as caught:
        await check(GatewayApi.of(named))
    assert "install what brings the CRD of HTTPRoute" in caught.value.next_move
    with pytest.raises(Invalid, match=r"does not know virtualservices\.networking"):
        await check(Istio.of(named))


async def test_a_right_that_is_missing_is_named(fake: FakeCluster, named: Cluster) -> None:
    use_gateway(fake)
    fake.allow([])
    with pytest.raises(Refused, match=r"list on deployments\.apps in namespace default"):
        await check(platform(named))
    with pytest.raises(Refused, match=r"list on httproutes\.gateway\.networking\.k8s\.io"):
        await check(GatewayApi.of(named))


async def test_a_gateway_or_listener_that_is_not_there_is_named(fake: FakeCluster, named: Cluster) -> None:
    use_gateway(fake)
    with pytest.raises(Invalid, match="there is no such Gateway") as caught:
        await check(GatewayApi.of(replace(named, gateway=replace(named.gateway, name="private"))))
    assert caught.value.where.endswith("default/private")
    with pytest.raises(Invalid, match="no listener 'https'"):
        await check(GatewayApi.of(replace(named, gateway=replace(named.gateway, section="https"))))


# --- chosen when Penstock starts --------------------------------------------------------------------------


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    found = FakeRegistry()
    await found.server.start()
    yield found
    await found.server.stop()


@pytest.fixture
async def prometheus() -> AsyncIterator[FakePrometheus]:
    found = FakePrometheus()
    await found.server.start()
    yield found
    await found.server.stop()


@pytest.fixture
def file(fake: FakeCluster, registry: FakeRegistry, prometheus: FakePrometheus, tmp_path: Path) -> Path:
    """What ``penstock up --cluster`` is given."""
    fake.kubeconfig(tmp_path)
    text = f"""\
kubeconfig: kubeconfig
images: {{push: "{registry.url}/shop"}}
gateway: {{name: public, host: "{{service}}.example.org"}}
metrics: {{prometheus: "{prometheus.url}"}}
"""
    (tmp_path / "cluster.yaml").write_text(text)
    return tmp_path / "cluster.yaml"


def chosen(home: Home, file: Path | str, **more: int) -> Cluster | None:
    """As ``up`` does, in no loop."""
    return _cluster(home, home.settings.cluster, Wanted(cluster=str(file), **more))


async def test_a_cluster_that_is_named_is_kept_and_opened(
    fake: FakeCluster, file: Path, short_tmp: Path
) -> None:
    use_gateway(fake)
    home = Home(short_tmp)
    cluster = await asyncio.to_thread(chosen, home, file)
    home.keep(Settings(cluster=cluster))
    assert cluster is not None
    assert home.settings.cluster == cluster == _cluster(home, cluster, Wanted())
    target = open_target(home)
    kinds = (type(target.platform), type(target.router), type(target.metrics))
    assert kinds == (Kubernetes, GatewayApi, IstioMetrics)
    assert dict(target.meters) == {}, "no agent could ask copies, or read their logs"
    assert target.sandbox is None
    (tend,) = target.tend
    await tend()
    await target.close()


async def test_environments_of_a_file_are_asked_and_opened_too(
    fake: FakeCluster, file: Path, short_tmp: Path, tmp_path: Path
) -> None:
    use_gateway(fake)
    (tmp_path / "us").mkdir()
    async with FakeCluster() as other:
        other.kubeconfig(tmp_path / "us")
        file.write_text(file.read_text() + "environments: {us: {kubeconfig: us/kubeconfig}}\n")
        home = Home(short_tmp)
        with pytest.raises(Invalid, match="environment us: this cluster does not know httproutes"):
            await asyncio.to_thread(chosen, home, file)
        use_gateway(other)
        home.keep(Settings(cluster=await asyncio.to_thread(chosen, home, file)))
        target = open_target(home)
        assert await target.router.read("web", "us") == TrafficState("web", "us")
        before = len(fake.asked)
        await target.router.read("web", "us")
        assert len(fake.asked) == before, "the other cluster was asked"
        for tend in target.tend:
            await tend()
        assert "list deployments" in other.asked
        await target.close()


async def test_a_cluster_that_cannot_be_used_is_told_before_anything_starts(
    fake: FakeCluster, file: Path, short_tmp: Path
) -> None:
    home = Home(short_tmp)
    with pytest.raises(Invalid, match="does not know httproutes"):
        await asyncio.to_thread(chosen, home, file)
    file.write_text(file.read_text() + "router: envoy\n")
    with pytest.raises(Invalid, match="envoy leads nobody in a cluster; there are: gateway-api, istio"):
        await asyncio.to_thread(chosen, home, file)
    file.write_text(file.read_text().replace("envoy", "istio"))
    await fake.disconnect()
    with pytest.raises(Unavailable, match="does not answer"):
        await asyncio.to_thread(chosen, home, file)


async def test_a_registry_or_prometheus_that_is_away_is_told_at_once_and_the_next_start_goes_on(
    fake: FakeCluster, registry: FakeRegistry, prometheus: FakePrometheus, file: Path, short_tmp: Path
) -> None:
    use_gateway(fake)
    home = Home(short_tmp)
    kept = await asyncio.to_thread(chosen, home, file)
    await prometheus.server.stop()
    with pytest.raises(Unavailable, match="the Prometheus that is to count users cannot be used") as caught:
        await asyncio.to_thread(chosen, home, file)
    assert "metrics.prometheus in the file" in caught.value.next_move
    await registry.server.stop()
    with pytest.raises(Unavailable, match="the registry does not answer"):
        await asyncio.to_thread(chosen, home, file)
    home.keep(Settings(cluster=kept))
    assert await asyncio.to_thread(chosen, home, file) == kept, "deliveries wait for them, not the start"


async def test_what_answers_and_is_no_registry_or_no_prometheus_is_told(
    fake: FakeCluster, registry: FakeRegistry, prometheus: FakePrometheus, file: Path, short_tmp: Path
) -> None:
    use_gateway(fake)
    home = Home(short_tmp)
    prometheus.server.answer = lambda _: Answer(b"<html>")
    with pytest.raises(Unavailable, match="no JSON"):
        await asyncio.to_thread(chosen, home, file)
    registry.trouble = lambda _: Answer(status=404)
    with pytest.raises(Invalid, match="or no registry"):
        await asyncio.to_thread(chosen, home, file)
    registry.trouble = lambda _: problem(401, "UNAUTHORIZED", **{"www-authenticate": 'Basic realm="x"'})
    with pytest.raises(Refused, match="does not let us in"):
        await asyncio.to_thread(chosen, home, file)


async def test_a_data_folder_keeps_its_target(fake: FakeCluster, file: Path, short_tmp: Path) -> None:
    use_gateway(fake)
    home = Home(short_tmp)
    with pytest.raises(Invalid, match="a data folder keeps its target"):
        chosen(home, "")
    with pytest.raises(Invalid, match="users come through the cluster's gateway"):
        await asyncio.to_thread(chosen, home, file, ingress=8600)
    placed = home.node / "w/releases/web-1.json"
    placed.parent.mkdir(parents=True)
    placed.write_text("{}")
    with pytest.raises(Conflict, match="releases run on this machine") as caught:
        await asyncio.to_thread(chosen, home, file)
    assert "PENSTOCK_HOME" in caught.value.next_move


# --- reached where users do not ---------------------------------------------------------------------------


async def test_a_dark_release_is_asked_for_at_another_address_by_the_name_that_users_have() -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        users = TrafficState("web", "production", address="http://web.example.org", preview_token="t")
        way = dark(replace(users, reach=f"http://127.0.0.1:{port}"), "web-2")
        assert (await Target(way.address, headers=way.headers).ask(Ask(path="/"))).status == 200
    (request,) = asked
    assert request.count(b"\r\nHost: ") == 1
    assert b"\r\nHost: web.example.org\r\n" in request
    assert b"\r\npenstock-release: web-2\r\n" in request
    assert dark(users, "web-2").address == "http://web.example.org"
    assert "Host" not in dark(users, "web-2").headers


async def test_a_router_says_where_it_is_reached(fake: FakeCluster, named: Cluster) -> None:
    use_gateway(fake)
    places = Kubernetes(Placing("registry.test/shop"), Access.of(named))
    router = GatewayApi.of(named)
    try:
        placed = await places.place(WORKLOAD, fence=FENCE)
        known = await router.read("web", "production")
        state = await router.apply(known.exposing(replace(placed.backend, addresses=())), fence=FENCE)
    finally:
        await places.close()
        await router.close()
    assert (state.address, state.reach) == ("http://web.example.org", "http://127.0.0.1:8001")
