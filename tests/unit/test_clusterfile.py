"""The file of a cluster: the documented reference is the validator's own example; errors name their line."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path

import pytest

from penstock.cluster import Cluster, Place, Steps
from penstock.clusterfile import load_cluster
from penstock.errors import Invalid

REFERENCE = (files("penstock") / "cluster.reference.yaml").read_text()
LEAST = """\
images: {push: "http://127.0.0.1:5000/shop/"}
gateway: {name: public, host: "{service}.{environment}.example.org"}
metrics: {prometheus: "http://prometheus:9090"}
"""


def load(folder: Path, text: str) -> Cluster:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return load_cluster(path)


def test_the_reference_is_valid_and_names_every_field(tmp_path: Path) -> None:
    cluster = load(tmp_path, REFERENCE)
    for value in (cluster, *(part for part in vars(cluster).values() if is_dataclass(part))):
        for field in fields(value):  # type: ignore[arg-type]
            assert f"{field.name}:" in REFERENCE, f"{field.name} is not documented"
            assert getattr(value, field.name), f"{field.name} is not shown"


def test_the_reference_shows_every_field_of_a_place(tmp_path: Path) -> None:
    places = load(tmp_path, REFERENCE).environments.values()
    for field in fields(Place):
        assert any(getattr(place, field.name) for place in places), f"{field.name} is not shown"


IMAGE = f"registry.example/steps@sha256:{'5' * 64}"
PLACES = """\
kubeconfig: config
context: here
namespace: shop
reach: http://10.0.0.5
environments:
  staging: {namespace: staging, reach: "http://10.0.0.6"}
  us: {kubeconfig: us/config, reach: "http://10.1.0.5", metrics: {prometheus: "http://us:9090"}}
  dev: {context: dev, gateway: {name: dev, host: "{service}.dev.example.org"}, reach: "http://10.2.0.5"}
"""


def test_an_environment_has_what_it_names_and_otherwise_what_the_file_says(tmp_path: Path) -> None:
    cluster = load(tmp_path, LEAST + PLACES)
    staging, us, dev = (cluster.of(name) for name in ("staging", "us", "dev"))
    assert (staging.namespace, staging.reach) == ("staging", "http://10.0.0.6")
    assert (staging.kubeconfig, staging.context) == (cluster.kubeconfig, "here")
    assert staging.gateway == us.gateway == cluster.gateway
    assert (us.kubeconfig, us.namespace) == (str(tmp_path / "us/config"), "shop")
    assert us.context == "", "a context of another file means nothing there"
    assert us.metrics.prometheus == "http://us:9090"
    assert (dev.kubeconfig, dev.context, dev.metrics) == (cluster.kubeconfig, "dev", cluster.metrics)
    assert (us.neighbour, dev.neighbour) == (cluster.neighbour, "{service}.dev.example.org:80")
    other = cluster.of("production")
    assert (other.kubeconfig, other.namespace, other.reach) == (
        cluster.kubeconfig,
        "shop",
        "http://10.0.0.5",
    )
    assert "us: namespace shop, " in cluster.name


def test_steps_of_an_environment_are_its_own_and_no_other_has_them(tmp_path: Path) -> None:
    steps = f"steps: {{image: '{IMAGE}', namespace: steps}}"
    own = f"steps: {{image: '{IMAGE}'}}"
    said = f"{LEAST}{steps}\nenvironments: {{us: {{kubeconfig: us/config, {own}}}, eu: {{namespace: eu}}}}"
    cluster = load(tmp_path, said)
    assert cluster.steps == Steps(IMAGE, namespace="steps")
    assert {name: place.steps for name, place in cluster.environments.items()} == {
        "us": Steps(IMAGE),
        "eu": None,
    }


def test_environments_that_are_told_apart_may_share_what_they_like(tmp_path: Path) -> None:
    """By the environment in the name; by another cluster; by a gateway that each namespace has."""
    assert load(tmp_path, LEAST + "environments: {eu: {}, us: {namespace: us}}").of("us").namespace == "us"
    same = LEAST.replace('host: "{service}.{environment}.', 'namespace: ingress, host: "{service}.')
    load(tmp_path, same + "environments: {us: {kubeconfig: us/config}}")
    load(tmp_path, same.replace("namespace: ingress, ", "") + "environments: {us: {namespace: us}}")


#: As above, with the environments that are said: where that is wrong, and what.
NOT_APART = (
    ("staging: {namespace: staging}", 5, "and so do those of every environment that is not named"),
    (
        "a: {kubeconfig: k}\n  b:\n    kubeconfig: k",
        6,
        "come to {service}.example.org at the gateway public, and so do those of environment a",
    ),
    ("staging: {context: staging}", 5, "a context of which file?"),
    ("Staging: {kubeconfig: k}", 5, "'Staging' is not a name"),
    ("us: {reach: 10.0.0.5}", 5, "environments.us.reach: '10.0.0.5' is no http"),
    ("us:\n    gateway: {name: public, host: shop}", 6, "every service would have the same one"),
    ("us: {kubeconfig: k, router: istio}", 5, "router"),
    ("us:\n    kubeconfig: k\n    steps: {image: python}", 7, "us.steps.image: 'python' is not an image"),
    (f"us:\n    kubeconfig: k\n    steps: {{image: '{IMAGE}'}}", 7, "the file has no steps for all"),
)


@pytest.mark.parametrize(("said", "at", "says"), NOT_APART)
def test_what_is_wrong_with_an_environment_is_told(tmp_path: Path, said: str, at: int, says: str) -> None:
    same = LEAST.replace('host: "{service}.{environment}.', 'namespace: ingress, host: "{service}.')
    with pytest.raises(Invalid) as caught:
        load(tmp_path, f"{same}environments:\n  {said}\n")
    assert says in caught.value.what
    assert caught.value.where == f"cluster.yaml:{at}"
    assert caught.value.next_move


def test_a_gateway_elsewhere_is_not_reached_at_the_address_of_the_first(tmp_path: Path) -> None:
    """Tests of a dark release would be answered by whatever is live behind the other one."""
    with pytest.raises(Invalid, match="it has another gateway, and reach is that of the file's") as caught:
        load(tmp_path, LEAST + "reach: http://10.0.0.5\nenvironments:\n  us: {kubeconfig: us/config}")
    assert caught.value.where == "cluster.yaml:6"
    assert caught.value.next_move.startswith("reach: ")


def test_what_is_left_out_follows_from_the_rest(tmp_path: Path) -> None:
    cluster = load(tmp_path, LEAST)
    assert cluster.images.pull == "127.0.0.1:5000/shop"
    assert cluster.neighbour == "{service}.{environment}.example.org:80"
    assert (cluster.router, cluster.reach, cluster.kubeconfig) == ("gateway-api", "", "")


def test_paths_are_those_beside_the_file(tmp_path: Path) -> None:
    cluster = load(tmp_path, LEAST + "kubeconfig: access/kubeconfig\n")
    assert cluster.kubeconfig == str(tmp_path / "access/kubeconfig")
    assert load(tmp_path, LEAST + "kubeconfig: ~/config\n").kubeconfig == str(Path.home() / "config")


def test_a_base_is_an_image_by_digest_and_may_have_a_tag(tmp_path: Path) -> None:
    for name in ("registry.example/base/python", "localhost/python", "127.0.0.1:5000/shop/python:3.11-slim"):
        image = f"{name}@sha256:{'1' * 64}"
        assert load(tmp_path, f"{LEAST}bases: {{cp311: '{image}'}}").bases == {"cp311": image}
    assert load(tmp_path, LEAST).bases == {}


def test_without_steps_they_run_beside_the_worker(tmp_path: Path) -> None:
    assert load(tmp_path, LEAST).steps is None
    assert load(tmp_path, f"{LEAST}steps: {{image: '{IMAGE}'}}").steps == Steps(IMAGE)


#: What is said, the line where it is, and what is wrong there.
WRONG = (
    ("namspace: shop", 4, "namspace"),
    ("namespace: 5", 4, "namespace"),
    ("namespace: Shop_1", 4, "'Shop_1' is not a name"),
    ("context: prod", 4, "a context of which file?"),
    ("reach: 10.0.0.5", 4, "'10.0.0.5' is no http or https URL"),
    ("reach: http://[::1", 4, "is no http or https URL"),
    ("reach: http://me:secret@10.0.0.5", 4, "a password has no place in it"),
    ("neighbour: catalog:80", 4, "every service would have the same one"),
    ("neighbour: '{service}.shop.svc'", 4, "is not HOST:PORT"),
    ("pull_secrets: registry", 4, "pull_secrets"),
    ("steps: here", 4, "steps"),
    ("steps: {}", 4, "image"),
    ("steps: {image: python}", 4, "'python' is not an image by digest"),
    (f"steps:\n  image: {IMAGE}\n  namespace: Shop", 6, "'Shop' is not a name"),
    (f"steps:\n  image: {IMAGE}\n  memory_mb: 1", 6, "1 is too little; at least 16"),
    (f"steps:\n  image: {IMAGE}\n  cpus: -1", 6, "-1.0 is too little"),
    ("bases: python", 4, "bases"),
    ("bases: {python3.11: a}", 4, "no artifact is built for 'python3.11'"),
    ("bases:\n  cp311: registry.example/python:3.11", 5, "is not an image by digest"),
    ("bases: {cp311: 'python@sha256:" + "1" * 64 + "'}", 4, "is not an image by digest"),
    (
        "bases: {cp311: 'http://registry.example/python@sha256:" + "1" * 64 + "'}",
        4,
        "is not an image by digest",
    ),
)


@pytest.mark.parametrize(("line", "at", "says"), WRONG)
def test_what_is_wrong_is_told_with_its_line_and_the_next_move(
    tmp_path: Path, line: str, at: int, says: str
) -> None:
    with pytest.raises(Invalid) as caught:
        load(tmp_path, f"{LEAST}{line}\n")
    assert says in caught.value.what
    assert caught.value.where == f"cluster.yaml:{at}"
    assert caught.value.next_move


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            "http://127.0.0.1:5000/shop/",
            "127.0.0.1:5000/shop",
            "images.push: '127.0.0.1:5000/shop' is no http",
        ),
        ("{service}.{environment}.example.org", "shop.example.org", "every service would have the same one"),
        ("{service}.{environment}.example.org", "{service}.example.org:80", "without a port"),
        ("{service}.{environment}.example.org", "{service}.{cluster}.org", "is no host name"),
        ("name: public", "name: ''", "gateway.name"),
        ('metrics: {prometheus: "http://prometheus:9090"}', "", "metrics"),
    ],
)
def test_what_it_cannot_do_without_is_asked_for(tmp_path: Path, before: str, after: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        load(tmp_path, LEAST.replace(before, after))
    assert says in caught.value.what


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="No such file") as caught:
        load_cluster(tmp_path / "absent.yaml")
    assert caught.value.where == str(tmp_path / "absent.yaml")
