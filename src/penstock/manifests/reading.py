"""Files of manifests to objects: several documents in one, lists of objects, and what Spinnaker keeps inside.

Called by `carry`. It must not know what becomes of an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from penstock.errors import Invalid
from penstock.manifests.place import Place, placed
from penstock.yamltext import documents

MAX_BYTES = 1024 * 1024
MOST_FILES = 500
MOST_OBJECTS = 2000
#: What asks for another tool first.
TEMPLATE = re.compile(rb"\{\{[^\n]{0,200}\}\}")
RENDER = "render it first: helm template, or kubectl kustomize, and import what that prints"


#: Of which group a kind is meant: others use the same words for other things.
GROUPS = {
    "Rollout": "argoproj.io",
    "AnalysisTemplate": "argoproj.io",
    "ClusterAnalysisTemplate": "argoproj.io",
    "Canary": "flagger.app",
    "Deployment": "apps",
    "HorizontalPodAutoscaler": "autoscaling",
    "Service": "",
    "ConfigMap": "",
}


@dataclass(frozen=True)
class Object:
    """One Kubernetes object; *kind* is "" for a document that is none, and has its group in brackets where
    it is not the one that we mean by it."""

    kind: str
    name: str
    namespace: str
    place: Place


def objects(files: Mapping[str, bytes]) -> Iterator[Object]:
    """Every object of *files* (name → bytes), in order. `Invalid` with file and line."""
    if len(files) > MOST_FILES:
        what = f"{len(files)} files, at most {MOST_FILES}"
        raise Invalid(what, where=next(iter(files)), next_move="import one application at a time")
    count = 0
    for name, data in files.items():
        for place in _documents(name, data):
            for found in _objects(place):
                count += 1
                if count > MOST_OBJECTS:
                    move = "import one application at a time"
                    raise Invalid(f"more than {MOST_OBJECTS} objects", where=found.where, next_move=move)
                yield as_object(found)


def _documents(name: str, data: bytes) -> Iterable[Place]:
    try:
        return [
            placed(node, value, name) for node, value in documents(data, name, MAX_BYTES) if value is not None
        ]
    except Invalid as error:
        move = RENDER if TEMPLATE.search(data) else error.next_move
        if "aliases" in error.what:
            move = "write out what the aliases stand for, such as with yq 'explode(.)'"
        raise Invalid(error.what, where=error.where, next_move=move) from error


def _objects(place: Place) -> Iterator[Place]:
    """The document, or what it holds: a list's items, the manifests in a pipeline's stages."""
    if not isinstance(place.value, dict):
        yield place
    elif place.at("kind").value == "List" or (place.at("items") and not place.at("spec")):
        for item in place.at("items").each():
            yield from _objects(item)
    else:
        yield place


def as_object(place: Place) -> Object:
    """What it is by its own words. `Invalid` for an object without a name."""
    if not isinstance(place.value, dict):
        return Object("", "", "", place)
    kind, metadata = place.at("kind"), place.at("metadata")
    if not (isinstance(kind.value, str) and place.at("apiVersion")):
        return Object("", "", "", place)
    name = metadata.at("name").text()
    if not name:
        raise Invalid(f"a {kind.value[:60]} without metadata.name", where=place.where)
    kind.done()
    group = place.at("apiVersion").text().rpartition("/")[0]
    said = kind.value if GROUPS.get(kind.value, group) == group else f"{kind.value} ({group})"
    return Object(said, name, metadata.at("namespace").text(), place)
