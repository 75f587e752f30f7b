"""What a step is in the cluster: one Job of one pod, and the script that its container runs. Pure.

Called by `jobs`. Three containers of one image: `bring` waits until the step's files are there, `step` is the
step, and `keep` lives on until they were taken back. Neither the command nor a variable is in the Job, which
many may read: they are in the script, which comes with the files. Nothing in the pod has a token.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from penstock.adapters._kubernetes import Object
from penstock.adapters.kubernetes.carrying import SCRIPT
from penstock.adapters.kubernetes.manifests import NOBODY
from penstock.adapters.kubernetes.record import FENCE, MANAGED, PREFIX
from penstock.adapters.kubernetes.troubles import STEP
from penstock.core.workload import Step
from penstock.errors import Invalid

#: A label of the Job and its pod, beside which step it is: whether it has the network ("on", "off").
NETWORK = f"{PREFIX}/network"
#: A mesh puts no proxy beside it, which would not end with it.
ALONE = {"sidecar.istio.io/inject": "false"}
#: For people: the stage, as its log is called.
STAGE = f"{PREFIX}/stage"
BRING, RUN, KEEP = "bring", "step", "keep"
#: Where the containers that carry have all files, and where the step has its script.
FILES, INSIDE = "/penstock.files", "/penstock.run"
READY = ".ready"
#: Room for the image to be pulled, a node to be found, and files to come and go; then it ends by itself.
START_SECONDS, CARRY_SECONDS, END_SECONDS = 600.0, 300.0, 60.0
#: What nobody has taken away by then, the cluster does.
KEPT_SECONDS = 600
#: Between being asked to end and being ended.
LEAVE_SECONDS = 1
SIZE_LIMIT = "16Gi"

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
WAIT = f"until [ -e {FILES}/{READY} ]; do sleep 0.1 || sleep 1; done"
LIVE_ON = "trap 'exit 0' TERM; while :; do sleep 5 & wait $!; done"


@dataclass(frozen=True)
class Settings:
    """*image* runs every step; 0 of a limit is none. *arch* is what builds are for, as nodes say it. A pod
    may take *start_seconds* until it has begun, and *end_seconds* until it is gone."""

    image: str
    memory_mb: int = 0
    cpus: float = 0.0
    pull_secrets: tuple[str, ...] = field(default=())
    arch: str = ""
    start_seconds: float = START_SECONDS
    end_seconds: float = END_SECONDS


def name_of(log: Path) -> str:
    """The Job of the stage that writes *log* (``…/DELIVERY/STAGE.log``): the same one for every worker."""
    return f"step-{sha256(f'{log.parent.name}/{log.stem}'.encode()).hexdigest()[:20]}"


def script(step: Step, inherited: Mapping[str, str]) -> str:
    """A program for ``/bin/sh`` that becomes the step."""
    base = {"HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    lines = ["#!/bin/sh"]
    for name, value in {**base, **(inherited if step.network else {}), **step.env}.items():
        if not NAME.fullmatch(name):
            raise Invalid(f"{name!r} is not the name of a variable", where="env of a step")
        lines.append(f"export {name}={shlex.quote(value)}")
    lines += [f"cd {shlex.quote(step.cwd)} || exit 126", f"exec {shlex.join(step.argv)}", ""]
    return "\n".join(lines)


def job(name: str, stage: str, step: Step, settings: Settings, namespace: str) -> Object:
    """It is never started twice: a step that was lost is for the engine to try again."""
    labels = {MANAGED: "penstock", STEP: name, NETWORK: "on" if step.network else "off", **ALONE}
    number = step.fence.number if step.fence else 0
    annotations = {STAGE: stage, FENCE: str(number)}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": math.ceil(step.seconds + settings.start_seconds + CARRY_SECONDS),
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": _pod(step, settings)},
        },
    }


def _pod(step: Step, settings: Settings) -> Object:
    everything = {"name": "files", "mountPath": FILES}
    resources = _resources(settings)
    pulled = [{"name": secret} for secret in settings.pull_secrets]
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": LEAVE_SECONDS,
        "nodeSelector": {
            "kubernetes.io/os": "linux",
            **({"kubernetes.io/arch": settings.arch} if settings.arch else {}),
        },
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "fsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"imagePullSecrets": pulled} if pulled else {}),
        "initContainers": [_container(BRING, settings, ("-c", WAIT), [everything], {})],
        "containers": [
            _container(RUN, settings, (INSIDE,), _mounts(step), resources),
            _container(KEEP, settings, ("-c", LIVE_ON), [{**everything, "readOnly": True}], {}),
        ],
        "volumes": [
            {"name": "files", "emptyDir": {"sizeLimit": SIZE_LIMIT}},
            {"name": "tmp", "emptyDir": {"sizeLimit": SIZE_LIMIT}},
        ],
    }


def _mounts(step: Step) -> list[Object]:
    """Each at its place, as `carrying` has put it: under its number. A file must be there before this is."""
    mounts: list[Object] = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "files", "subPath": SCRIPT, "mountPath": INSIDE, "readOnly": True},
    ]
    for number, mount in enumerate(step.mounts):
        found = {"name": "files", "subPath": str(number), "mountPath": mount.target}
        mounts.append(found if mount.writable else {**found, "readOnly": True})
    return mounts


def _container(
    name: str, settings: Settings, words: tuple[str, ...], mounts: list[Object], resources: Object
) -> Object:
    return {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", *words],
        "volumeMounts": mounts,
        **({"resources": resources} if resources else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }


def _resources(settings: Settings) -> Object:
    limits: Object = {}
    if settings.memory_mb:
        limits["memory"] = f"{settings.memory_mb}Mi"
    if settings.cpus:
        limits["cpu"] = f"{round(settings.cpus * 1000)}m"
    return {"limits": limits} if limits else {}


def run_of(pod: Object, container: str) -> Object:
    """The state of one container of it; {} if nothing is known of it yet."""
    status = pod.get("status", {})
    every = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    found = (one.get("state") or {} for one in every if one["name"] == container)
    return next(found, {})


def fence_of(job: Object) -> int:
    return int(job["metadata"].get("annotations", {}).get(FENCE, "0"))
