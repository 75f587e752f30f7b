"""What the pods of a release pull: the artifact's image as it is, or an image with the interpreter that it
was built for, and the artifact's mounted in it as a volume. Pure.

Called by `driver` before anything is placed, and by `manifests` for what that is in a pod. Nothing here makes
an image: the bytes that nodes pull are those that were signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.adapters._kubernetes import Object
from penstock.core.image import ROOT
from penstock.errors import Invalid
from penstock.ports import Image

#: The volume that holds the artifact, and where its files are in the image and in the container.
VOLUME, APP = "artifact", f"/{ROOT}"
NEEDED = "mounting an artifact in its base needs Kubernetes 1.35 (image volumes)"
MOVE = "bring the cluster to 1.35; without bases in the cluster's file, images must hold all that they need"


@dataclass(frozen=True)
class Pulled:
    """*image* is the artifact's. With a *base*, that is what the container is; of *env*, the artifact's own
    variables, it then knows what it is told. *platform* is OCI's ("": any)."""

    image: str
    base: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""

    @property
    def container(self) -> Object:
        """Fields of the container."""
        if not self.base:
            return {"image": self.image}
        mount = {"name": VOLUME, "mountPath": APP, "subPath": ROOT, "readOnly": True}
        return {"image": self.base, "workingDir": APP, "volumeMounts": [mount]}

    @property
    def pod(self) -> Object:
        """Fields of the pod: what it mounts, and which nodes can run it."""
        found: Object = {}
        if self.base:
            source = {"reference": self.image, "pullPolicy": "IfNotPresent"}
            found["volumes"] = [{"name": VOLUME, "image": source}]
        if self.platform:
            system, _, architecture = self.platform.partition("/")
            chosen = {"kubernetes.io/os": system, "kubernetes.io/arch": architecture}
            found["nodeSelector"] = {label: value for label, value in chosen.items() if value}
        return found


def base_of(image: Image, bases: Mapping[str, str], where: str) -> str:
    """The base that *image* runs on; "" where it is run as it is. `Invalid` if it needs one that nobody
    names."""
    if not bases or not image.abi:
        return ""
    if image.abi not in bases:
        raise Invalid(
            f"it was built for {image.abi}, and the cluster's file has a base for {', '.join(sorted(bases))}",
            where=where,
            next_move=f"add `{image.abi}: REGISTRY/NAME@sha256:…` to bases there, an image that has it; then"
            " penstock up --cluster FILE",
        )
    return bases[image.abi]


def found_base(deployment: Object) -> str:
    """On what the artifact runs, as the cluster has it; "" if on nothing else."""
    pod = deployment["spec"]["template"]["spec"]
    return str(pod["containers"][0].get("image", "")) if _mounted(pod) else ""


def is_kept(deployment: Object, asked: bool) -> bool:
    """Whether the API has kept the volume, if one was *asked* for: with the feature off, it drops it and says
    nothing."""
    return not asked or _mounted(deployment["spec"]["template"]["spec"])


def _mounted(pod: Object) -> bool:
    volumes = {volume["name"] for volume in pod.get("volumes") or () if "image" in volume}
    mounts = pod["containers"][0].get("volumeMounts") or ()
    return any(mount["name"] in volumes and mount.get("mountPath") == APP for mount in mounts)


def too_old(error: Invalid) -> Invalid:
    """The same in words for its user, if it is about a field of image volumes."""
    if ".volumes[" not in error.what or ".image" not in error.what:
        return error
    return Invalid(f"{NEEDED}; this one says: {error.what}", where=error.where, next_move=MOVE)


def dropped(where: str) -> Invalid:
    return Invalid(f"{NEEDED}; this one has dropped the volume", where=where, next_move=MOVE)
