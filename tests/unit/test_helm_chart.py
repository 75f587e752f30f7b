"""The Helm chart: it makes what the kustomization makes, valid whatever its values are."""

from __future__ import annotations

import copy
import itertools
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import pytest
import yaml

from fakes import kustomize, schemas
from fakes.cluster import rules
from fakes.helm import (
    ADMISSION,
    CHART,
    DEPLOY,
    DIGEST,
    ROOT,
    STEPS,
    VALUES,
    Chart,
    Object,
    granted,
    merged,
    of,
    one,
    parsed,
)
from penstock.testing.kubernetes.shapes import BUILT_IN, complaints

REFERENCE = yaml.safe_load((files("penstock") / "cluster.reference.yaml").read_text())
RIGHTS = ("Role", "RoleBinding")
#: What Helm adds to every object, or charts by their convention.
OF_HELM = {
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
}


@pytest.fixture(scope="module")
def chart() -> Chart:
    return Chart()


# --- the kustomization -------------------------------------------------------------------------------------


def plain(objects: list[Object]) -> dict[tuple[str, str], Object]:
    """By kind and name, without what is only Helm's."""
    found = {}
    for item in copy.deepcopy(objects):
        metadata = item["metadata"]
        _without(metadata, "labels", OF_HELM)
        _without(metadata, "annotations", {"helm.sh/resource-policy"})
        spec = item.get("spec", {})
        if item["kind"] == "Deployment":
            _without(spec["template"]["metadata"], "annotations", {"checksum/cluster"})
        elif item["kind"] == "ConfigMap":
            item["data"] = {name: yaml.safe_load(text) for name, text in item["data"].items()}
        found[item["kind"], metadata["name"]] = item
    return found


def _without(holder: Object, field: str, names: set[str]) -> None:
    kept = {name: value for name, value in holder.get(field, {}).items() if name not in names}
    holder.pop(field, None)
    if kept:
        holder[field] = kept


def labelled(objects: list[Object]) -> list[Object]:
    """The kustomization's, with the label that the chart selects by besides: of which release they are."""
    found = copy.deepcopy(objects)
    for labels in (labels for item in found for labels in selecting(item)):
        labels["app.kubernetes.io/instance"] = "penstock"
    return found


def selecting(item: Object) -> Iterator[Object]:
    """By what an object selects pods, and what its pods have for that."""
    spec = item.get("spec", {})
    if item["kind"] == "Service":
        yield spec["selector"]
    elif "podSelector" in spec:
        yield spec["podSelector"]["matchLabels"]
    elif "selector" in spec:
        yield spec["selector"]["matchLabels"]
    if "template" in spec:
        yield spec["template"]["metadata"]["labels"]
        for constraint in spec["template"]["spec"].get("topologySpreadConstraints", []):
            yield constraint["labelSelector"]["matchLabels"]


@pytest.mark.parametrize("pods", ["one", "several"])
@pytest.mark.parametrize("without", [(), ("workers",), ("admission",), ("workers", "admission")], ids=str)
def test_it_makes_what_the_kustomization_makes(chart: Chart, without: tuple[str, ...], pods: str) -> None:
    several: tuple[str, ...] = ("replicas",) if pods == "several" else ()
    more = {"replicas": 3 if several else 1, "workers": {"count": 1 if "workers" in without else 2}}
    made = chart.objects(merged(VALUES, more, {} if "admission" in without else ADMISSION))
    # Several pods are there in the place of workers.
    without = (*without, "workers") if several else without
    wanted = labelled(kustomize.rendered(DEPLOY, without=without, also=several))
    ours = plain([item for item in made if item["kind"] not in RIGHTS])
    # Helm makes the namespace, or finds it: no chart has its own.
    theirs = plain([item for item in wanted if item["kind"] != "Namespace"])
    assert set(ours) == set(theirs)
    for which, item in ours.items():
        assert item == theirs[which]


def test_versions_are_penstocks_own() -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    said = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (image,) = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())["images"]
    assert {said["version"], said["appVersion"], image["newTag"]} == {ours}


# --- rights ------------------------------------------------------------------------------------------------


def only(resource: str, listed: list[Object]) -> list[Object]:
    return [rule for rule in listed if resource in rule["resources"]]


@pytest.mark.parametrize("router", ["gateway-api", "istio"])
def test_rights_are_those_listed_for_the_kustomization(chart: Chart, router: str) -> None:
    steps = {"image": f"registry.example/python@{DIGEST}", "namespace": "shop-steps"}
    made = chart.objects(merged(VALUES, {"cluster": {"router": router, "steps": steps}}))
    expected = {
        "shop": [*rules("rbac.yaml"), *rules(f"rbac-{router}.yaml")],
        "shop-steps": rules("rbac-steps.yaml"),
    }
    if router == "gateway-api":
        expected["ingress"] = only("gateways", rules("rbac-gateway-api.yaml"))
    assert granted(made) == expected
    policies = [item for item in of("NetworkPolicy", made) if item["metadata"]["namespace"] == "shop-steps"]
    listed = parsed((DEPLOY / "rbac-steps.yaml").read_text())
    assert [item["spec"] for item in policies] == [item["spec"] for item in of("NetworkPolicy", listed)]


def test_environments_have_rights_where_they_are_unless_that_is_another_cluster(chart: Chart) -> None:
    environments = {
        "staging": {"namespace": "shop-staging", "gateway": {"name": "inner", "host": "{service}.staging"}},
        "eu": {"gateway": {"name": "eu", "namespace": "shop-staging", "host": "{service}.eu"}},
        "us": {"kubeconfig": "/etc/penstock/us/kubeconfig", "namespace": "shop-us"},
    }
    made = chart.objects(merged(VALUES, {"cluster": {"environments": environments}}))
    whole = [*rules("rbac.yaml"), *rules("rbac-gateway-api.yaml")]
    gateways = only("gateways", rules("rbac-gateway-api.yaml"))
    assert granted(made) == {"shop": whole, "shop-staging": whole, "ingress": gateways}


def test_environments_have_rights_where_steps_of_their_own_run(chart: Chart) -> None:
    environments = {
        "eu": {"steps": {**STEPS, "namespace": "eu-steps"}},
        "asia": {"namespace": "asia", "steps": STEPS},
        "us": {"kubeconfig": "/etc/penstock/us/kubeconfig", "steps": {**STEPS, "namespace": "us-steps"}},
    }
    cluster = {"steps": {**STEPS, "namespace": "eu-steps"}, "environments": environments}
    found = granted(chart.objects(merged(VALUES, {"cluster": cluster})))
    steps = rules("rbac-steps.yaml")
    assert set(found) == {"shop", "asia", "ingress", "eu-steps"}
    assert found["eu-steps"] == steps
    assert found["asia"] == [*found["shop"], *steps]


def test_without_a_namespace_it_delivers_into_its_own(chart: Chart) -> None:
    given = {name: value for name, value in VALUES["cluster"].items() if name != "namespace"}
    made = chart.objects({**VALUES, "cluster": given})
    assert set(granted(made)) == {"penstock", "ingress"}


@pytest.mark.parametrize(
    "given", [{"rights": {"create": False}}, {"cluster": {"kubeconfig": "/etc/penstock/other/kubeconfig"}}]
)
def test_no_rights_where_somebody_else_grants_them(chart: Chart, given: Object) -> None:
    values = merged(VALUES, given)
    assert granted(chart.objects(values)) == {}
    assert "It has no rights yet" in chart.texts(values)["NOTES.txt"]


# --- its values ---------------------------------------------------------------------------------------------

AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
CERTIFICATES = {"name": "certificates", "mountPath": "/etc/ssl/own", "readOnly": True}
EVERYTHING = {
    "imagePullSecrets": [{"name": "registry-reader"}],
    "labels": {"team": "platform"},
    "annotations": {"example.org/cost": "7"},
    "podLabels": {"sidecar.istio.io/inject": "false"},
    "podAnnotations": {"example.org/scrape": "no"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "ci", "effect": "NoSchedule"}],
    "affinity": AFFINITY,
    "priorityClassName": "system",
    "terminationGracePeriodSeconds": 90,
    "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/etc/ssl/own/ca.crt"}],
    "extraVolumes": [{"name": "certificates", "configMap": {"name": "authorities"}}],
    "extraVolumeMounts": [CERTIFICATES],
    "image": {"pullPolicy": "Always"},
    "serviceAccount": {"annotations": {"example.org/role": "deliver"}},
}
#: What may be said otherwise, each independently of the rest.
TOGGLES: dict[str, Object] = {
    "istio": {"cluster": {"router": "istio"}},
    "steps": {"cluster": {"steps": STEPS}},
    "environments": {"cluster": {"environments": REFERENCE["environments"]}},
    "admission": ADMISSION,
    "certificate": {"admission": {"certificate": {"existingSecret": "own", "caBundle": "Zm9v"}}},
    "workers": {"workers": {"count": 4, "resources": {"limits": {"cpu": 2, "memory": None}}}},
    "replicas": {"replicas": 3},
    "secrets": {"postgresql": {"existingSecret": "database"}, "registry": {"existingSecret": "login"}},
    "claim": {"persistence": {"existingClaim": "data"}},
    "account": {"serviceAccount": {"create": False, "name": "somebody"}},
    "alone": {"rights": {"create": False}, "networkPolicy": {"enabled": False}},
    "digest": {"image": {"digest": DIGEST}, "persistence": {"storageClass": "fast", "size": 100}},
    "everything": EVERYTHING,
}


@cache
def valid(text: str) -> tuple[Object, ...]:
    """The objects of a template's text, each as strict validation wants it."""
    objects = parsed(text)
    for item in objects:
        schemas.validate(item)
        assert list(complaints(item, BUILT_IN[item["kind"]])) == []
        assert (item["kind"] in kustomize.GLOBAL) != ("namespace" in item["metadata"])
    return tuple(objects)


def combinations() -> Iterator[tuple[str, ...]]:
    """Every two of them; and everything, but for one."""
    for count in range(3):
        yield from itertools.combinations(TOGGLES, count)
    yield tuple(TOGGLES)
    yield from itertools.combinations(TOGGLES, len(TOGGLES) - 1)


def hangs_together(objects: list[Object], switched: tuple[str, ...]) -> None:
    """What one object says of another is so."""
    names = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(set(names)) == len(names)
    workload = one("Deployment", objects)["spec"]["template"]
    labels, spec = workload["metadata"]["labels"], workload["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for container in spec["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
    assert len(spec["containers"]) == (1 if "replicas" in switched else 4 if "workers" in switched else 2)
    assert volumes["cluster"]["configMap"]["name"] == one("ConfigMap", objects)["metadata"]["name"]
    claim = volumes["data"]["persistentVolumeClaim"]["claimName"]
    assert (("PersistentVolumeClaim", "penstock", claim) in names) == ("claim" not in switched)
    account = spec["serviceAccountName"]
    assert (("ServiceAccount", "penstock", account) in names) == ("account" not in switched)
    for item in of("Service", objects):
        assert item["spec"]["selector"].items() <= labels.items()
        (hook,) = one("ValidatingWebhookConfiguration", objects)["webhooks"]
        assert hook["clientConfig"]["service"]["name"] == item["metadata"]["name"]
    assert bool(of("Service", objects)) == ("admission" in switched)
    assert bool(granted(objects)) == ("alone" not in switched)


def test_whatever_is_said_together_makes_valid_objects_that_hang_together(chart: Chart) -> None:
    for switched in combinations():
        texts = chart.texts(merged(VALUES, *(TOGGLES[name] for name in switched)))
        objects = [item for file, text in texts.items() if file != "NOTES.txt" for item in valid(text)]
        hangs_together(objects, switched)
