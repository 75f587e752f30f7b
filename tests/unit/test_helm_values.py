"""What may be said to the Helm chart, what is refused by its name, and what follows from it."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.helm import (
    ADMISSION,
    CHART,
    DEPLOY,
    ROOT,
    STEPS,
    VALUES,
    Chart,
    Object,
    cluster_of,
    granted,
    helm,
    merged,
    one,
)
from penstock.cli.main import parser
from penstock.cluster import Place
from penstock.clusterfile import load_cluster

REFERENCE = yaml.safe_load((files("penstock") / "cluster.reference.yaml").read_text())


@pytest.fixture(scope="module")
def chart() -> Chart:
    return Chart()


def paths(value: Any, at: str = "") -> set[str]:
    """The dotted names in values; of lists and free texts nothing."""
    if not isinstance(value, dict) or not value:
        return {at}
    return {path for name, inner in value.items() for path in paths(inner, f"{at}.{name}".lstrip("."))}


def known(schema: Object, definitions: Object, at: str = "") -> set[str]:
    """The same of what a schema lets in."""
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "properties" not in schema:
        return {at}
    assert schema["additionalProperties"] is False
    inner = schema["properties"].items()
    return {path for name, value in inner for path in known(value, definitions, f"{at}.{name}".lstrip("."))}


def test_every_value_has_its_line_and_nothing_else_is_let_in() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    said = paths(yaml.safe_load((CHART / "values.yaml").read_text()))
    free = ("global", "cluster.", "affinity.", "server.resources.", "workers.resources.")
    listed = {path for path in known(schema, schema["$defs"]) if not path.startswith(free)}
    assert listed | {"cluster", "affinity"} == {p for p in said if not p.startswith(free[3:])}


def test_a_cluster_may_say_what_its_reference_says_and_no_more(chart: Chart, tmp_path: Path) -> None:
    definitions = json.loads((CHART / "values.schema.json").read_text())["$defs"]
    cluster = definitions["cluster"]
    listed = known(cluster, definitions)
    told = {path for path in paths(REFERENCE) if not path.startswith(("environments.", "bases."))}
    assert listed == told | {"environments", "bases"}
    place = known(cluster["properties"]["environments"]["additionalProperties"], definitions)
    assert place == {p for p in listed if p.split(".")[0] in Place.__dataclass_fields__}
    made = cluster_of(chart.objects({**VALUES, "cluster": REFERENCE}))
    for name, value in (("ours", made), ("theirs", REFERENCE)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(value))
    assert load_cluster(tmp_path / "ours.yaml") == load_cluster(tmp_path / "theirs.yaml")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"replicaCount": 2}, "at '': additional properties 'replicaCount' not allowed"),
        ({"ingress": {"enabled": True}}, "'ingress' not allowed"),
        ({"image": {"tags": "1"}}, "at '/image': additional properties 'tags' not allowed"),
        ({"image": {"digest": "sha256:12"}}, "at '/image/digest': 'sha256:12' does not match"),
        ({"cluster": {"gatway": {}}}, "at '/cluster': additional properties 'gatway' not allowed"),
        (
            {"cluster": {"router": "envoy"}},
            "at '/cluster/router': value must be one of 'gateway-api', 'istio'",
        ),
        ({"cluster": {"environments": {"eu": {"names": 1}}}}, "at '/cluster/environments/eu'"),
        ({"cluster": {"gateway": "public"}}, "at '/cluster/gateway': got string, want object"),
        ({"workers": {"count": 0}}, "at '/workers/count': minimum: got 0, want 1"),
        ({"workers": {"count": "two"}}, "at '/workers/count': got string, want integer"),
        ({"server": {"resources": {"limits": {"memory": "lots"}}}}, "limits/memory': 'lots' does not match"),
        ({"admission": {"environments": ["Production"]}}, "at '/admission/environments/0': 'Production'"),
        ({"admission": {"environments": []}}, "at '/admission/environments': minItems: got 0, want 1"),
        ({"image": {"repository": ""}}, "image.repository is missing: there is no public image; next: build"),
        ({"cluster": None}, "cluster is missing: it says where releases go; next: give it images, gateway"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name is missing, and serviceAccount.create"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_its_name(chart: Chart, given: Object, said: str) -> None:
    assert said in chart.complaint(merged(VALUES, given))


def test_half_a_cluster_is_told_what_it_lacks(chart: Chart) -> None:
    said = chart.complaint({**VALUES, "cluster": {"namespace": "shop"}})
    assert "at '/cluster': missing properties 'images', 'gateway', 'metrics'" in said


def test_whatever_is_taken_from_elsewhere_is_missed(tmp_path: Path) -> None:
    """Where links are not had, a clone has a file with a path in it instead."""
    folder = tmp_path / "penstock"
    shutil.copytree(CHART, folder, symlinks=True)
    (folder / "kubernetes").unlink()
    (folder / "kubernetes").write_text("../../kubernetes")
    said = Chart(folder).complaint(VALUES)
    assert (
        "the chart lacks kubernetes/rbac.yaml: its link to deploy/kubernetes leads nowhere; next: git" in said
    )


def test_a_package_holds_what_its_link_leads_to(chart: Chart, tmp_path: Path) -> None:
    packed = Path(helm().package(CHART, destination=tmp_path))
    with tarfile.open(packed) as archive:
        names = {member.name for member in archive.getmembers() if member.isfile()}
    taken = {name for name in names if name.startswith("penstock/kubernetes/")}
    assert {Path(name).name for name in taken} == {
        *(path.name for path in DEPLOY.glob("rbac*.yaml")),
        "webhook.yaml",
    }
    values = merged(VALUES, ADMISSION)
    assert Chart(packed).texts(values) == chart.texts(values)


def test_helm_finds_nothing_wrong_with_it() -> None:
    assert helm().lint(CHART)["errors"] == []


def test_a_second_release_has_names_of_its_own(chart: Chart) -> None:
    values = merged(VALUES, ADMISSION, {"cluster": {"steps": STEPS}})
    first, second = chart.objects(values), chart.objects(values, name="other")

    def names(objects: list[Object]) -> set[tuple[str, str]]:
        return {(item["kind"], item["metadata"]["name"]) for item in objects}

    assert names(first) & names(second) == set()
    assert {name.partition("penstock")[0] for _, name in names(second)} == {"other-"}
    selectors = [one("Deployment", made)["spec"]["selector"] for made in (first, second)]
    assert selectors[0] != selectors[1]
    granted(second)


def test_a_changed_cluster_starts_the_pod_anew(chart: Chart) -> None:
    def template(values: Object) -> Any:
        return one("Deployment", chart.objects(values))["spec"]["template"]

    assert template(VALUES) == template(VALUES)
    assert template(VALUES) != template(merged(VALUES, {"cluster": {"namespace": "store"}}))


def test_images_that_are_let_in_unseen_are_words_of_the_command(chart: Chart) -> None:
    values = merged(VALUES, ADMISSION, {"admission": {"also": ["registry.example/istio/proxyv2", "a: b"]}})
    server, worker = one("Deployment", chart.objects(values))["spec"]["template"]["spec"]["containers"]
    args = parser("up").parse_args(server["args"])
    assert args.admission_also == ["registry.example/istio/proxyv2", "a: b"]
    assert worker["args"] == ["worker", "--name", "2"]


def test_the_first_words_after_an_install_say_what_is_to_be_done(chart: Chart) -> None:
    notes = chart.texts(VALUES)["NOTES.txt"]
    assert "kubectl port-forward -n penstock deploy/penstock 7070" in notes
    assert "BUILDS AND CHECKS RUN WITHOUT A SANDBOX" in notes
    assert "It has no rights" not in notes
    other = merged(
        VALUES, ADMISSION, {"cluster": {"steps": STEPS}, "admission": {"environments": ["eu", "us"]}}
    )
    notes = chart.texts(other)["NOTES.txt"]
    assert "SANDBOX" not in notes
    assert "waits for the Secret penstock-admission" in notes
    assert "penstock/environment=us" in notes


def test_the_values_of_the_guide_are_some(chart: Chart) -> None:
    guide = (ROOT / "docs/guides/run-on-kubernetes.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", guide, flags=re.DOTALL)
    objects = chart.objects(yaml.safe_load(block))
    assert set(granted(objects)) == {"shop", "shop-steps", "ingress"}
