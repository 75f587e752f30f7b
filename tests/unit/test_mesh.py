"""Calls between machines, the pure part: names, validity, what an environment document declares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from fakes.copies import Images
from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from penstock.actions import deploy
from penstock.adapters.envoy import mesh as rendered
from penstock.adapters.envoy.config import Listening
from penstock.adapters.envoy.exported import answering, asking
from penstock.adapters.envoy.watches import watched
from penstock.adapters.issuer import LocalIssuer
from penstock.config import ServiceConfig, environment_data, load_environments, parse
from penstock.core.codec import decode, encode
from penstock.core.digest import digest
from penstock.core.environmentconfig import EnvironmentConfig
from penstock.core.fence import Fence
from penstock.core.mesh import SKEW, Export, Mesh, Remote, Validity, identity, server_name
from penstock.core.pipeline import Intent, State
from penstock.core.release import Change, EnvironmentData, Release
from penstock.core.traffic import LONGEST, Backend, Egress, TrafficPlan, Weight
from penstock.core.workload import Workload
from penstock.errors import Invalid
from penstock.ports import Task

REMOTE = Remote("west", "east", "east.internal:8843", "PEM")


def test_a_certificate_names_installation_environment_and_service() -> None:
    assert identity("west", "production", "storefront") == "spiffe://west/production/storefront"
    assert server_name("east", "production", "catalog") == "catalog.production.east"


@pytest.mark.parametrize(
    ("now", "due"),
    [
        (1000.0, False),
        (2799.9, False),
        (2800.0, True),
        (4600.0, True),
        (9999.0, True),
        (1000.0 - SKEW, False),
        (1000.0 - SKEW - 0.1, True),  # the clock was set back: nobody would believe it yet
    ],
)
def test_a_certificate_is_renewed_at_half_of_its_life(now: float, due: bool) -> None:
    assert Validity(1000.0, 4600.0).due(now) is due


# --- what a document declares ------------------------------------------------------------------------------


def declared(trust: str, **changed: str) -> str:
    """An environment document of *west*, with parts of it *changed*."""
    text = {
        "domain": "domain: west",
        "listen": "listen: 0.0.0.0:8843",
        "address": "address: east.internal:8843",
        "peers": "peers: {catalog: east}",
        "exports": "exports: {east: [shop, cart]}",
        **changed,
    }
    pem = trust.replace("\n", "\n        ")
    return f"""
environment: production
mesh:
  {text["domain"]}
  {text["listen"]}
  peers:
    east:
      {text["address"]}
      trust: |
        {pem}
services:
  storefront:
    values: {{A: 1}}
    {text["peers"]}
  orders:
    {text["exports"]}
  plain: {{}}
"""


def loaded(folder: Path, text: str) -> EnvironmentConfig:
    (folder / "environments").mkdir(exist_ok=True)
    (folder / "environments" / "production.yaml").write_text(text)
    (found,) = load_environments(folder)
    return found


def parts(document: EnvironmentConfig) -> list[Mesh | None]:
    return [document.mesh_of(service) for service in document.services]


def test_each_service_gets_its_own_part(tmp_path: Path) -> None:
    trust = LocalIssuer(tmp_path).trust()
    found = loaded(tmp_path, declared(trust))
    storefront, orders = found.mesh_of("storefront"), found.mesh_of("orders")
    assert found.mesh_of("plain") is None
    assert storefront is not None
    assert storefront.export is None
    remote = storefront.calls["catalog"]
    assert (remote.own, remote.domain, remote.address) == ("west", "east", "east.internal:8843")
    assert remote.trust.strip() == trust.strip()
    assert orders is not None
    assert orders.export is not None
    assert orders.export.listen == "0.0.0.0:8843"
    assert orders.export.callers("production") == (
        "spiffe://east/production/cart",
        "spiffe://east/production/shop",
    )


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"domain": "domain: West Side"}, "'West Side' is no name"),
        ({"domain": "domain: east"}, "is this installation and a peer too"),
        ({"listen": "listen: 8843"}, "found an integer|expected"),
        ({"listen": "listen: everywhere:8843"}, "is not an address such as"),
        ({"listen": "listen: 0.0.0.0:99999"}, "is not an address such as"),
        ({"listen": "listen: ''"}, "nothing is said of where to listen"),
        ({"address": "address: east.internal"}, "is not a place such as"),
        ({"address": "address: 'ea st:1'"}, "is not a place such as"),
        ({"peers": "peers: {catalog: north}"}, r"'north' is no peer \(peers: east\)"),
        ({"peers": "peers: {Catalog: east}"}, "'Catalog' is not a service name"),
        ({"exports": "exports: {north: [shop]}"}, r"'north' is no peer \(peers: east\)"),
        ({"exports": "exports: {east: []}"}, "exported to nobody of east"),
        ({"exports": "exports: {east: ['*']}"}, r"'\*' is not a service name"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    tmp_path: Path, changed: Mapping[str, str], what: str
) -> None:
    trust = LocalIssuer(tmp_path).trust()
    with pytest.raises(Invalid, match=what) as refused:
        parts(loaded(tmp_path, declared(trust, **changed)))
    assert "production.yaml" in refused.value.where


def test_trust_is_certificates_of_authorities_and_nothing_else(tmp_path: Path) -> None:
    issuer = LocalIssuer(tmp_path)
    key = (tmp_path / "mesh-0001.key") if issuer.trust() else tmp_path
    leaf = issuer.issue(identity("west", "production", "shop")).chain
    with pytest.raises(Invalid, match="a private key") as refused:
        loaded(tmp_path, declared(issuer.trust() + key.read_text())).mesh_of("storefront")
    assert key.read_text()[40:80] not in str(refused.value)
    for trust, what in (
        (leaf, "vouches for nobody else"),
        ("-", "not certificates"),
        ("é", "not certificates"),
    ):
        with pytest.raises(Invalid, match=what) as refused:
            loaded(tmp_path, declared(trust))
        assert "mesh.peers.east.trust" in refused.value.where


def test_peers_without_a_mesh_are_refused() -> None:
    text = b"environment: production\nservices: {shop: {peers: {catalog: east}}}\n"
    with pytest.raises(Invalid, match="names peers, and the document has no mesh"):
        parse(EnvironmentConfig, text, "production.yaml").mesh_of("shop")


def test_only_what_a_service_calls_can_be_at_a_peer() -> None:
    mesh = Mesh({"catalog": REMOTE})
    config = ServiceConfig(service="storefront", calls=("catalog",))
    assert environment_data(config, "production", {}, mesh).mesh == mesh
    with pytest.raises(Invalid, match=r"storefront does not call catalog \(it calls: nobody\)"):
        environment_data(ServiceConfig(service="storefront"), "production", {}, mesh)


# --- what it does to a pair, and to traffic ----------------------------------------------------------------


def test_a_mesh_is_a_part_of_the_pair_and_nothing_changes_without_one() -> None:
    plain = EnvironmentData("shop", "production", {"A": 1})
    assert "mesh" not in encode(plain)
    meshed = EnvironmentData("shop", "production", {"A": 1}, mesh=Mesh({"catalog": REMOTE}))
    assert meshed.digest != plain.digest
    assert decode(EnvironmentData, encode(meshed)) == meshed


def test_what_new_code_no_longer_calls_is_left_out() -> None:
    export = Export("west", "0.0.0.0:8843", ())
    mesh = Mesh({"catalog": REMOTE, "stock": REMOTE}, export)
    assert mesh.within(("stock",)) == Mesh({"stock": REMOTE}, export)
    assert Mesh({"catalog": REMOTE}).within(()) is None


def plan(first: str, second: str) -> TrafficPlan:
    """Users between two releases, the second of which exports to nobody."""
    export = Export("west", "0.0.0.0:8843", ())
    old = Backend("shop-1", ("127.0.0.1:1",), egress=(Egress("catalog", "127.0.0.1:2", REMOTE),))
    new = Backend("shop-2", ("127.0.0.1:3",), egress=(Egress("stock", "127.0.0.1:4"),), export=export)
    weights = (Weight(first, 900), Weight(second, 100))
    return TrafficPlan("shop", "production", (old, new), weights)


def test_a_canary_changes_not_who_may_call() -> None:
    assert plan("shop-1", "shop-2").export is None
    assert plan("shop-2", "shop-1").export == Export("west", "0.0.0.0:8843", ())


def test_an_empty_list_lets_nobody_in() -> None:
    assert "policies" not in asking()["typed_config"]["rules"]
    assert answering(plan("shop-1", "shop-2")) == {}
    (answer,) = answering(plan("shop-2", "shop-1"))["typed_per_filter_config"].values()
    assert answer["rbac"]["rules"] == {"action": "ALLOW", "policies": {}}


def test_who_needs_a_certificate_and_what_is_watched_for_it() -> None:
    shop = "spiffe://west/production/shop"
    assert rendered.identities([plan("shop-1", "shop-2")]) == {shop}
    found = watched([plan("shop-1", "shop-2")])
    assert found == {("shop", "production"), ("stock", "production"), (shop, "certificate")}


def test_an_answer_of_a_peer_may_take_as_long_as_the_peer_says() -> None:
    (way,) = rendered.ways([plan("shop-1", "shop-2")])
    listener = rendered.egress(way, Listening("out", "127.0.0.1:2", "", Path()), Path("log"))
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (route,) = manager["route_config"]["virtual_hosts"][0]["routes"]
    bounds = [float(route["route"][name][:-1]) for name in ("timeout", "idle_timeout")]
    bounds.append(float(route["route"]["retry_policy"]["per_try_timeout"][:-1]))
    assert all(bound == 0 or bound >= LONGEST for bound in bounds), bounds


# --- what deploying makes of it ----------------------------------------------------------------------------


async def test_a_release_is_known_to_the_proxy_with_its_peers_and_callers() -> None:
    export = Export("west", "0.0.0.0:8843", ())
    data = EnvironmentData("shop", "production", mesh=Mesh({"catalog": REMOTE}, export))
    release = Release("shop", "production", digest(b"image"), data.digest)
    config = ServiceConfig(service="shop", calls=("catalog", "stock"))
    fence = Fence("shop/production", 1, "key")
    task = Task(
        delivery="shop-1",
        intent=Intent("deploy", "deploy"),
        change=Change("configuration", "shop", "production", "/repo", "1" * 40, "Dana", "A peer"),
        config=config,
        fence=fence,
        work=Path("/work"),
        log=Path("/log"),
        data=data,
        release=release,
    )
    platform, router = FakePlatform(), FakeRouter()
    workload = Workload("shop", "production", release.id, release.artifact, ("serve",), calls=config.calls)
    await platform.place(workload, fence=fence)
    for _ in range(3):
        await platform.tend()
    placed = await platform.observe(release.id)
    assert placed is not None
    router.up.update(placed.backend.addresses)
    ended = await deploy.perform(task, platform=platform, router=router, artifacts=Images(config))
    assert ended.state is State.SUCCESS, ended.reason
    (known,) = (await router.read("shop", "production")).backends
    assert {way.callee: way.remote for way in known.backend.egress} == {"catalog": REMOTE, "stock": None}
    assert known.backend.export == export
