"""Image volumes: which images a pod mounts, and what an API makes of them that lacks the feature. Pure.

Called by `api` for every write, by `defaults`, and by `kubelet` for what a container finds where. Volumes of
other kinds may be written; of those only empty ones are had by a process, that of a pod that ends (`finite`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from penstock.testing.kubernetes.kinds import Object

#: Since 1.35 it is there; from 1.31 on it can be, and what is written is dropped if it is not; before, the
#: field is unknown.
Feature = Literal["on", "off", "unknown"]


#: What a volume may be, as the API has it.
SOURCES = ("image", "emptyDir", "configMap", "secret", "persistentVolumeClaim")


@dataclass(frozen=True)
class Mount:
    """The folder *part* of the image *reference*, at *path* of the container."""

    reference: str
    path: str
    part: str


def pod_spec(value: Object) -> Object:
    """Of a pod, or of what makes pods; {} of anything else."""
    spec = value.get("spec") or {}
    found = spec if value.get("kind") == "Pod" else (spec.get("template") or {}).get("spec")
    return found or {}


def mounts(spec: Object) -> list[Mount]:
    """Of the first container, which is the one that is run."""
    images = {v["name"]: v["image"]["reference"] for v in spec.get("volumes", ()) if "image" in v}
    return [
        Mount(images[mount["name"]], mount["mountPath"], mount.get("subPath", ""))
        for mount in spec["containers"][0].get("volumeMounts", ())
        if mount["name"] in images
    ]


def only_images(spec: Object) -> bool:
    """Whether a node that mounts nothing else can run its first container."""
    images = {volume["name"] for volume in spec.get("volumes", ()) if "image" in volume}
    return all(mount["name"] in images for mount in spec["containers"][0].get("volumeMounts", ()))


def complaints(value: Object) -> Iterator[str]:
    """What strict decoding says where nobody has heard of the field."""
    for number, volume in enumerate(pod_spec(value).get("volumes", ())):
        if "image" in volume:
            yield f'unknown field "spec.template.spec.volumes[{number}].image"'


def drop(value: Object) -> None:
    """Take them away, and where they are mounted, as an API does that has the feature off."""
    spec = pod_spec(value)
    gone = {volume["name"] for volume in spec.get("volumes", ()) if "image" in volume}
    if not gone:
        return
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] not in gone]
    for container in spec["containers"]:
        kept = [mount for mount in container.get("volumeMounts", ()) if mount["name"] not in gone]
        container["volumeMounts"] = kept


def faults(spec: Object, usable: Collection[str] = SOURCES) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it). A volume is of one of the *usable* kinds."""
    where, known = "spec.template.spec", set[str]()
    for number, volume in enumerate(spec.get("volumes", ())):
        here = f"{where}.volumes[{number}]"
        if not volume.get("name") or volume["name"] in known:
            yield f"{here}.name", "Required value, and no duplicate"
        known.add(volume.get("name", ""))
        if sum(source in volume for source in usable) != 1:
            yield here, f"Required value: must specify one volume type of {', '.join(usable)}"
        image = volume.get("image")
        if image is None:
            continue
        if not image.get("reference"):
            yield f"{here}.image.reference", "Required value"
        if image.get("pullPolicy", "IfNotPresent") not in ("Always", "Never", "IfNotPresent"):
            yield f"{here}.image.pullPolicy", f"Unsupported value: {image['pullPolicy']!r}"
    every = (*spec.get("initContainers", ()), *spec.get("containers", ()))
    for number, container in enumerate(every):
        for count, mount in enumerate(container.get("volumeMounts", ())):
            here = f"{where}.containers[{number}].volumeMounts[{count}]"
            if mount.get("name") not in known:
                yield f"{here}.name", f"Not found: {mount.get('name')!r}"
            part = mount.get("subPath", "")
            if part.startswith("/") or ".." in part.split("/"):
                yield f"{here}.subPath", "Invalid value: must be a relative path without '..'"
            if not posixpath.isabs(mount.get("mountPath", "")):
                yield f"{here}.mountPath", "Invalid value: must be an absolute path"
