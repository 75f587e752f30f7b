"""Every manifest that we write is valid under strict validation with the schemas of Kubernetes 1.36."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from fakes import schemas
from penstock.adapters._kubernetes import Object, previews
from penstock.adapters.kubernetes import Settings, bounds, manifests, steps
from penstock.adapters.kubernetes.bases import Pulled, base_of, found_base, is_kept, too_old
from penstock.config import ServiceConfig
from penstock.core.fence import Fence
from penstock.core.workload import NO_LIMITS, PROCESS_LIVES, Limits, Liveness, Mount, Scaling, Step, Workload
from penstock.errors import Invalid
from penstock.ports import Image
from penstock.testing.kubernetes.expansion import expanded
from penstock.testing.kubernetes.shapes import BUILT_IN, complaints

DEPLOY = Path(__file__).parents[2] / "deploy"
FULL = Workload(
    service="web",
    environment="production",
    release="web-1",
    artifact="sha256:" + "1" * 64,
    command=("python3", "/app/program.py"),
    env={"COLOUR": "blue", "TOKEN": "sesame-open"},
    secrets=("sesame-open",),
    calls=("price-list",),
    health_path="/health",
    liveness=Liveness("/live", every=0.1, timeout=0.5, failures=2),
    drain_seconds=0.5,
    limits=Limits(memory_mb=200, cpus=0.3, open_files=256),
)
BARE = Workload(service="web", environment="production", release="web-1", artifact=FULL.artifact, command=())
ELASTIC = replace(FULL, replicas=4, begin_with=1, scaling=Scaling(most=8, cpu=70, idle_seconds=59.5))
GRPC = replace(FULL, protocol="grpc", limits=NO_LIMITS, liveness=PROCESS_LIVES)


#: Run as it is; and on a base, mounted.
IMAGE = f"registry.test/shop/web@{FULL.artifact}"
PLAIN = Pulled(IMAGE)
BASE = "registry.example/base/python@sha256:" + "2" * 64
BASED = Pulled(IMAGE, BASE, {"PYTHONPATH": "/app/.penstock/deps", "COLOUR": "grey"}, "linux/amd64")


def of(workload: Workload, pulled: Pulled = PLAIN) -> Iterator[Object]:
    """Each with what the client adds: what it is."""
    settings = Settings("registry.test/shop", pull_secrets=("registry",))
    owner = manifests.deployment(workload, pulled, settings, "shop", Fence("web/production", 7, "key"))
    yield {"apiVersion": "apps/v1", "kind": "Deployment", **owner}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", **manifests.account(workload, "shop")}
    owner["metadata"]["uid"] = "00000000-0000-4000-8000-000000000001"
    for kind, value in manifests.children(workload, owner):
        yield {"apiVersion": kind.api_version, "kind": kind.name, **value}


@pytest.mark.parametrize("pulled", [PLAIN, BASED], ids=["plain", "based"])
@pytest.mark.parametrize("workload", [FULL, BARE, GRPC, ELASTIC], ids=["full", "bare", "grpc", "elastic"])
def test_what_a_release_is_made_of_is_valid(workload: Workload, pulled: Pulled) -> None:
    kinds = []
    for value in of(workload, pulled):
        schemas.validate(value)
        assert list(complaints(value, BUILT_IN[value["kind"]])) == [], "the fake cluster is no stricter"
        kinds.append(value["kind"])
    secret = ["Secret"] if workload.secrets else []
    assert kinds == [
        "Deployment",
        "ServiceAccount",
        "Service",  # for previews
        "Service",
        "PodDisruptionBudget",
        "ConfigMap",
        *secret,
        *(["HorizontalPodAutoscaler"] if workload.scaling.cpu else []),
    ]


def test_a_release_has_a_service_for_previews_which_the_one_for_users_names() -> None:
    """What is named is there before its name is; and no slice of it proves that the release is ready."""
    first, users = (value for value in of(FULL) if value["kind"] == "Service")
    assert (first["metadata"]["name"], users["metadata"]["name"]) == ("web-1-preview", "web-1")
    assert users["metadata"]["annotations"] == {previews.PREVIEWS: "web-1-preview"}
    assert previews.has_own(users)
    assert not previews.has_own(first)
    assert first["spec"] == users["spec"]
    assert manifests.RELEASE not in first["metadata"]["labels"]
    assert manifests.MANAGED in first["metadata"]["labels"]


def test_a_release_whose_name_is_too_long_for_a_second_service_has_one() -> None:
    for length, count in ((55, 2), (56, 1), (63, 1)):
        release = "w" * length
        made = [value for value in of(replace(FULL, release=release)) if value["kind"] == "Service"]
        assert len(made) == count
        assert previews.has_own(made[-1]) == (count == 2)
        assert all(len(one["metadata"]["name"]) <= 63 for one in made)


def test_what_is_to_be_applied_by_hand_is_valid() -> None:
    for file in ("rbac.yaml", "rbac-steps.yaml", "binding.yaml"):
        for document in yaml.safe_load_all((DEPLOY / "kubernetes" / file).read_text()):
            schemas.validate(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replica"), 1),
        (("spec", "template", "spec", "containers", 0, "imagee"), "x"),
        (("spec", "replicas"), "two"),
        (("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "http"),
    ],
)
def test_what_is_not_valid_is_found_by_both(path: tuple[str | int, ...], value: object) -> None:
    wrong = copy.deepcopy(next(of(FULL)))
    at = wrong
    for part in path[:-1]:
        at = at[part]  # type: ignore[index]
    at[path[-1]] = value  # type: ignore[index]
    with pytest.raises(jsonschema.ValidationError):
        schemas.validate(wrong)
    assert list(complaints(wrong, BUILT_IN["Deployment"]))


STEP = Step(
    ("python3", "-m", "pytest"),
    "/app",
    (Mount("/tree", "/app", writable=True), Mount("/deps", "/penstock/tools")),
    {"TOKEN": "it's sesame-open"},
    seconds=30.0,
    secrets=("sesame-open",),
    fence=Fence("web/production", 7, "key"),
)


@pytest.mark.parametrize(
    "settings",
    [steps.Settings(BASE), steps.Settings(BASE, 512, 0.5, ("registry",), "arm64")],
    ids=["bare", "full"],
)
def test_what_a_step_is_made_of_is_valid(settings: steps.Settings) -> None:
    made = {"apiVersion": "batch/v1", "kind": "Job", **steps.job("step-1", "d/s", STEP, settings, "shop")}
    schemas.validate(made)
    assert list(complaints(made, BUILT_IN["Job"])) == [], "the fake cluster is no stricter"
    assert "sesame" not in str(made)


def test_a_step_gives_other_peoples_code_nothing_of_the_clusters() -> None:
    """As the restricted pod security standard asks, and no token; never started twice."""
    spec = steps.job("step-1", "d/s", STEP, steps.Settings(BASE), "shop")["spec"]
    pod = spec["template"]["spec"]
    assert (spec["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert not pod["automountServiceAccountToken"]
    assert pod["securityContext"]["runAsNonRoot"]
    for container in (*pod["initContainers"], *pod["containers"]):
        context = container["securityContext"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"]
    mounts = {
        mount["mountPath"]: mount.get("readOnly", False) for mount in pod["containers"][0]["volumeMounts"]
    }
    assert mounts == {"/tmp": False, "/penstock.run": True, "/app": False, "/penstock/tools": True}


def test_the_script_of_a_step_is_that_step() -> None:
    text = steps.script(replace(STEP, argv=("printf", "%s,", "a b", "$HOME", "it's"), cwd="/"), {"UV_X": "1"})
    done = subprocess.run(["/bin/sh", "-c", f"{text}"], capture_output=True, text=True, check=True)
    assert done.stdout == "a b,$HOME,it's,"
    assert "UV_X" not in text
    assert "export UV_X=1" in steps.script(replace(STEP, network=True), {"UV_X": "1"})
    with pytest.raises(Invalid, match="not the name of a variable"):
        steps.script(replace(STEP, env={"A; rm": "x"}), {})


def test_a_secret_is_in_the_secret_alone() -> None:
    for value in of(FULL):
        assert value["kind"] == "Secret" or "sesame" not in str(value)


def test_what_the_platform_says_wins_over_what_was_given() -> None:
    named = replace(FULL, env={"HOST": "example.org", "PORT": "1", "PRICE_LIST_URL": "x", "COLOUR": "red"})
    (container,) = next(of(named))["spec"]["template"]["spec"]["containers"]
    names = [entry["name"] for entry in container["env"]]
    assert sorted(names) == ["COLOUR", "HOST", "PORT", "PRICE_LIST_URL"]
    assert {"name": "PORT", "value": "8080"} in container["env"]


SHELL = "exec serve --pid=$$ --port=${PORT:-80} --host=$(hostname) --mark='$$$(HOST)' a$"


def test_a_process_sees_its_command_and_variables_as_they_were_written() -> None:
    """Kubernetes puts variables in where it reads ``$(NAME)``, and makes ``$$`` one ``$``."""
    env = {"PRICE": "$$5", "WHERE": "$(HOST)"}
    value = next(of(replace(FULL, command=("sh", "-c", SHELL)), replace(BASED, env=env)))
    schemas.validate(value)
    (container,) = pod_of(value)["containers"]
    known = {"HOST": "10.0.0.1", "hostname": "wrong"}
    assert [expanded(word, known) for word in container["command"]] == ["sh", "-c", SHELL]
    written = {entry["name"]: entry["value"] for entry in container["env"] if entry["name"] in env}
    assert {name: expanded(text, known) for name, text in written.items()} == env


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("$(A) $(B)", "1 $(B)"),
        ("$$(A) $$$(A) $$$$", "$(A) $1 $$"),
        ("$A ${A} $( $(A $", "$A ${A} $( $(A $"),
    ],
)
def test_the_fake_cluster_reads_dollars_as_kubernetes_documents_it(written: str, seen: str) -> None:
    assert expanded(written, {"A": "1"}) == seen


# --- by load ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "asked", "between"),
    [
        (4, 0, (1, 1)),  # an autoscaler cannot be told of none, and leaves none alone
        (4, 1, (1, 2)),
        (4, 3, (3, 6)),
        (4, 4, (4, 8)),
        (4, 6, (6, 8)),  # those that load had added are held
        (3, 1, (1, 3)),
        (3, 2, (2, 6)),
        (1, 1, (1, 8)),
    ],
)
def test_load_may_add_to_a_share_as_much_as_to_the_whole(
    replicas: int, asked: int, between: tuple[int, int]
) -> None:
    spec = bounds.autoscaler(replace(ELASTIC, replicas=replicas), asked, "app")
    assert (spec["minReplicas"], spec["maxReplicas"]) == between


def test_an_autoscaler_goes_by_our_container_and_waits_as_long_as_it_is_told() -> None:
    scaler = next(value for value in of(ELASTIC) if value["kind"] == "HorizontalPodAutoscaler")
    (metric,) = scaler["spec"]["metrics"]
    (container,) = next(of(ELASTIC))["spec"]["template"]["spec"]["containers"]
    assert metric["containerResource"]["container"] == container["name"]
    assert container["resources"]["requests"]["cpu"] == container["resources"]["limits"]["cpu"] == "300m"
    assert scaler["spec"]["behavior"] == {"scaleDown": {"stabilizationWindowSeconds": 60}}


def test_what_the_api_fills_in_or_somebody_adds_is_no_difference() -> None:
    wanted = bounds.autoscaler(ELASTIC, 2, "app")
    live = copy.deepcopy(wanted)
    live["behavior"]["scaleUp"] = {"policies": []}
    live["behavior"]["scaleDown"]["selectPolicy"] = "Max"
    assert bounds.has(live, wanted)
    for name in wanted:
        assert not bounds.has({**live, name: "another"}, wanted)
        assert not bounds.has({key: value for key, value in live.items() if key != name}, wanted)


# --- on a base ----------------------------------------------------------------------------------------------


def pod_of(deployment: Object) -> Object:
    found: Object = deployment["spec"]["template"]["spec"]
    return found


def test_an_artifact_is_mounted_in_its_base_where_it_was_built_to_be() -> None:
    pod = pod_of(next(of(FULL, BASED)))
    (container,) = pod["containers"]
    assert (container["image"], container["workingDir"]) == (BASE, "/app")
    assert container["command"] == ["python3", "/app/program.py"]
    mount = {"name": "artifact", "mountPath": "/app", "subPath": "app", "readOnly": True}
    assert container["volumeMounts"] == [mount]
    source = {"reference": IMAGE, "pullPolicy": "IfNotPresent"}
    assert pod["volumes"] == [{"name": "artifact", "image": source}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}], "for what is mounted, too"
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}


def test_what_the_artifact_says_of_its_variables_is_said_to_its_base() -> None:
    (container,) = pod_of(next(of(FULL, BASED)))["containers"]
    env = {entry["name"]: entry for entry in container["env"]}
    assert env["PYTHONPATH"] == {"name": "PYTHONPATH", "value": "/app/.penstock/deps"}
    assert "valueFrom" in env["COLOUR"], "environment data wins over what is in the image"


def test_without_a_base_an_image_is_run_as_it_is() -> None:
    pod = pod_of(next(of(FULL, Pulled(IMAGE, env={"PYTHONPATH": "/app/src"}))))
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert not {"workingDir", "volumeMounts"} & container.keys()
    assert not {"volumes", "nodeSelector"} & pod.keys()
    assert "PYTHONPATH" not in [entry["name"] for entry in container["env"]], "it has that itself"


def test_the_base_is_read_back_and_so_is_that_it_was_dropped() -> None:
    plain, based = next(of(FULL)), next(of(FULL, BASED))
    assert (found_base(plain), found_base(based)) == ("", BASE)
    assert is_kept(plain, asked=False)
    assert is_kept(based, asked=True)
    (container,) = pod_of(based)["containers"]
    for gone in (pod_of(based).pop("volumes"), container.pop("volumeMounts")):
        assert gone
        assert found_base(based) == ""
        assert not is_kept(based, asked=True)


BUILT = Image(("serve",), ServiceConfig("web"), abi="cp311")


def test_an_artifact_gets_the_base_that_it_was_built_for_or_none_is_asked_for() -> None:
    bases = {"cp311": BASE, "node22": "registry.test/node@sha256:" + "3" * 64}
    assert base_of(BUILT, bases, "web-1") == BASE
    assert base_of(BUILT, {}, "web-1") == ""
    assert base_of(replace(BUILT, abi=""), bases, "web-1") == "", "it holds all that it needs"
    with pytest.raises(
        Invalid, match=r"built for cp312, and the cluster's file has a base for cp311, node22"
    ) as no:
        base_of(replace(BUILT, abi="cp312"), bases, "web-1")
    assert no.value.where == "web-1"
    assert "add `cp312: REGISTRY/NAME@sha256:…` to bases" in no.value.next_move


@pytest.mark.parametrize(
    ("said", "about"),
    [
        ('strict decoding error: unknown field "spec.template.spec.volumes[0].image"', True),
        ('.spec.template.spec.volumes[name="artifact"].image: field not declared in schema', True),
        ('unknown field "spec.template.spec.containers[0].imagee"', False),
    ],
)
def test_that_a_cluster_is_too_old_is_said_in_words(said: str, about: bool) -> None:
    error = too_old(Invalid(said, where="deployments.apps shop/web-1"))
    assert said in error.what
    assert ("needs Kubernetes 1.35" in error.what) is about
    assert error.where == "deployments.apps shop/web-1"
