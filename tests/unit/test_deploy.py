"""Our own image and manifests: what they are made of, that a strict cluster takes them, what they rest on."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes import schemas
from fakes.kustomize import GLOBAL, rendered
from penstock.bootstrap.home import LONGEST, Home
from penstock.cli.main import parser
from penstock.clusterfile import load_cluster
from penstock.server.admission import PATH
from penstock.server.podimages import TEMPLATES
from penstock.testing.kubernetes.shapes import BUILT_IN, complaints

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/kubernetes"
WHOLE = rendered(DEPLOY)
COMPONENTS = ("workers", "admission")


def one(kind: str, objects: list[dict[str, Any]] = WHOLE) -> dict[str, Any]:
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def pod(objects: list[dict[str, Any]] = WHOLE) -> dict[str, Any]:
    return dict(one("Deployment", objects)["spec"]["template"]["spec"])


@pytest.mark.parametrize("also", [(), ("replicas",)], ids=str)
@pytest.mark.parametrize("without", [(), COMPONENTS, COMPONENTS[:1], COMPONENTS[1:]], ids=str)
def test_every_object_is_valid_in_every_composition(without: tuple[str, ...], also: tuple[str, ...]) -> None:
    objects = rendered(DEPLOY, without=without, also=also)
    for item in objects:
        schemas.validate(item)
        assert list(complaints(item, BUILT_IN.get(item["kind"]))) == []
        assert item["kind"] in GLOBAL or item["metadata"]["namespace"] == "penstock"
    names = [(item["kind"], item["metadata"]["name"]) for item in objects]
    assert len(names) == len(set(names))
    assert ("Service" in {kind for kind, _ in names}) == ("admission" not in without)
    assert len(pod(objects)["containers"]) == (1 if "workers" in without else 2)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="compared where there is a kubectl")
def test_kubectl_makes_the_same_of_them() -> None:
    command = ["kubectl", "kustomize", str(DEPLOY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    def ordered(objects: Any) -> list[dict[str, Any]]:
        return sorted(objects, key=lambda item: (item["kind"], item["metadata"]["name"]))

    assert ordered(yaml.safe_load_all(done.stdout)) == ordered(WHOLE)


def test_the_pod_is_restricted_and_its_volumes_are_there() -> None:
    """As the pod security standard has it: our own namespace enforces that."""
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in spec["containers"]:
        closed = container["securityContext"]
        assert (closed["allowPrivilegeEscalation"], closed["capabilities"]) == (False, {"drop": ["ALL"]})
        assert closed["readOnlyRootFilesystem"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert container["image"].startswith("registry.example/penstock:")
    labels = one("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_what_selects_the_pod_finds_it() -> None:
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert one("Service")["spec"]["selector"].items() <= labels.items()
    assert one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    (port,) = one("Service")["spec"]["ports"]
    named = {found["name"]: found["containerPort"] for found in pod()["containers"][0]["ports"]}
    assert f"--admission-port={named[port['targetPort']]}" in pod()["containers"][0]["args"]
    assert one("NetworkPolicy")["spec"]["ingress"] == [{"ports": [{"port": named["admission"]}]}]


def test_there_is_never_a_second_control_plane() -> None:
    """The data folder is on a volume for one node, and has a lock."""
    spec = one("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert one("PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_several_pods_share_a_volume_and_a_database_and_nothing_that_is_a_machines() -> None:
    """What tests/e2e/test_replicas.py does with links."""
    objects = rendered(DEPLOY, without=("workers",), also=("replicas",))
    spec = one("Deployment", objects)["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (3, "RollingUpdate")
    assert one("PersistentVolumeClaim", objects)["spec"]["accessModes"] == ["ReadWriteMany"]
    (server,) = pod(objects)["containers"]
    assert {"--foreground", "--replica"} <= set(server["args"])
    (store,) = server["env"]
    assert "optional" not in store["valueFrom"]["secretKeyRef"]
    home = Home(Path("/var/lib/penstock"))
    own = {Path(mount["mountPath"]) for mount in server["volumeMounts"] if mount["name"] == "own"}
    assert own == {home.run, home.work, home.cache}
    assert one("PodDisruptionBudget", objects)["spec"]["selector"] == spec["selector"]


def test_commands_are_of_this_release_and_the_data_folder_is_short() -> None:
    for container in pod()["containers"]:
        parser(container["args"][0]).parse_args(container["args"])
        (data,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "data")
        assert len(data) <= LONGEST
        assert f"PENSTOCK_HOME={data}" in (ROOT / "deploy/Containerfile").read_text()


def test_the_file_of_the_cluster_is_one(tmp_path: Path) -> None:
    text = one("ConfigMap")["data"]["cluster.yaml"]
    (mounted,) = re.findall(r"auth: (\S+)", text)
    mounts = {mount["mountPath"] for mount in pod()["containers"][0]["volumeMounts"]}
    assert str(Path(mounted).parent) in mounts
    secret = tmp_path / "password"
    secret.write_text("penstock:sesame\n")
    secret.chmod(0o600)
    file = tmp_path / "cluster.yaml"
    file.write_text(text.replace(mounted, str(secret)))
    assert load_cluster(file).name


def test_the_webhook_asks_about_every_kind_that_has_pods_and_never_about_ourselves() -> None:
    (hook,) = one("ValidatingWebhookConfiguration")["webhooks"]
    asked = {
        (group, resource.partition("/")[0])
        for rule in hook["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert asked == {(group, f"{kind.lower()}s") for group, kind in TEMPLATES}
    assert "pods/ephemeralcontainers" in hook["rules"][0]["resources"]
    assert hook["failurePolicy"] == "Fail"
    service = hook["clientConfig"]["service"]
    assert (service["name"], service["namespace"]) == (one("Service")["metadata"]["name"], "penstock")
    assert service["path"] == f"{PATH}/production"
    (but,) = hook["namespaceSelector"]["matchExpressions"]
    assert (but["operator"], "penstock" in but["values"]) == ("NotIn", True)


def test_the_image_holds_nothing_that_is_not_locked_and_is_nobodys() -> None:
    text = re.sub(r"\\\n", "", (ROOT / "deploy/Containerfile").read_text())
    steps = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {line.split()[1] for line in steps if line.startswith("FROM")} == {"python:3.11-slim"}
    installs = [
        part for line in steps for part in line.split("&&") if re.search(r"pip (install|wheel)", part)
    ]
    assert len(installs) == 4
    assert [line for line in installs if "--require-hashes" not in line and "--no-deps" not in line] == []
    assert steps[-4] == "USER 65532:65532"
    assert pod()["securityContext"]["runAsUser"] == 65532
    for line in steps:
        if line.startswith("COPY") and "--from" not in line:
            assert [name for name in line.split()[1:-1] if not (ROOT / name).exists()] == []
