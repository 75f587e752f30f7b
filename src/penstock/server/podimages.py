"""What a Kubernetes API server asks before it lets an object in: the images that the object would run. Pure.

Called by `admission`. An AdmissionReview (admission.k8s.io/v1) goes in. Must not decide which images may be
run. Of a kind that is not in `TEMPLATES` nobody could say where its images are: that is an error, not an
object without images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from penstock.core.codec import Json
from penstock.core.outside import clean, read_json
from penstock.errors import Invalid

#: An object has at most about 1.5 MB, and comes with what it was before.
MOST_BYTES = 4 * 1024 * 1024
MOST_DEPTH = 100
#: Of one object that is asked about.
MOST_IMAGES = 64
API_VERSION = "admission.k8s.io/v1"

#: Where each kind has the specification of its pods.
TEMPLATES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): ("spec",),
    ("", "PodTemplate"): ("template", "spec"),
    ("", "ReplicationController"): ("spec", "template", "spec"),
    ("apps", "Deployment"): ("spec", "template", "spec"),
    ("apps", "ReplicaSet"): ("spec", "template", "spec"),
    ("apps", "StatefulSet"): ("spec", "template", "spec"),
    ("apps", "DaemonSet"): ("spec", "template", "spec"),
    ("batch", "Job"): ("spec", "template", "spec"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template", "spec"),
}
CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
#: No other part of an object can bring an image in (``status``, ``scale``, ``eviction``, ``binding`` …).
SUBRESOURCES = ("", "ephemeralcontainers")


@dataclass(frozen=True)
class Named:
    """An *image* as it is written, and *where* (``containers[web]``)."""

    where: str
    image: str


@dataclass(frozen=True)
class Review:
    """*request* is the API server's, of which only *uid* was looked at."""

    uid: str
    request: Mapping[str, Json]


def open_review(body: bytes) -> Review:
    """`Invalid` for what is no AdmissionReview of this version; nobody knows then which request to answer."""
    value = read_json(body, "AdmissionReview", limit=MOST_BYTES, depth=MOST_DEPTH)
    found = value if isinstance(value, dict) else {}
    if (found.get("apiVersion"), found.get("kind")) != (API_VERSION, "AdmissionReview"):
        what = f"not an AdmissionReview of {API_VERSION}"
        raise Invalid(what, where="AdmissionReview", next_move='admissionReviewVersions: ["v1"]')
    request = found.get("request")
    uid = request.get("uid") if isinstance(request, dict) else None
    if not isinstance(request, dict) or not isinstance(uid, str) or not 0 < len(uid) <= 100:
        raise Invalid("it asks nothing: no request with a uid", where="AdmissionReview.request")
    return Review(uid, request)


def images(review: Review) -> tuple[Named, ...]:
    """The images that the object would have and did not have before, each once.

    Nothing for what brings none: a deletion, a subresource without containers. An object that has an image
    keeps it: refusing a change of something else would not take it away, and nothing could be repaired.
    `Invalid` for a kind, or a shape, in which images cannot be found.
    """
    request = review.request
    operation = request.get("operation")
    if operation not in ("CREATE", "UPDATE") or request.get("subResource", "") not in SUBRESOURCES:
        return ()
    path = _path(request)
    found = {named.image: named for named in _named(request.get("object"), path)}
    before: set[str] = set()
    if operation == "UPDATE" and request.get("oldObject") is not None:
        before = {named.image for named in _named(request.get("oldObject"), path)}
    if not found:
        raise Invalid("it has no containers, and nothing never passes", where=".".join(path))
    new = tuple(named for image, named in found.items() if image not in before)
    if len(new) > MOST_IMAGES:
        raise Invalid(f"{len(new)} images, at most {MOST_IMAGES}", where=".".join(path))
    return new


def _path(request: Mapping[str, Json]) -> tuple[str, ...]:
    kind = request.get("kind")
    named = (kind.get("group", ""), kind.get("kind", "")) if isinstance(kind, dict) else ("", "")
    for known, path in TEMPLATES.items():
        if known == named:
            return path
    what = f"nobody here knows where a {'.'.join(clean(str(part), 80) for part in named[::-1] if part)} "
    kinds = ", ".join(kind for _, kind in TEMPLATES)
    raise Invalid(what + "has its images", where="kind", next_move=f"ask about these alone: {kinds}")


def _named(value: Json, path: tuple[str, ...]) -> Iterator[Named]:
    for depth, name in enumerate(path):
        value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, dict):
            raise Invalid("not an object", where=".".join(path[: depth + 1]))
    assert isinstance(value, dict)
    for part in CONTAINERS:
        for container, label in _each(value, part):
            yield Named(f"{part}[{label}]", _text(container, "image", f"{part}[{label}]"))
    for volume, label in _each(value, "volumes"):
        if (image := volume.get("image")) is not None:
            where = f"volumes[{label}]"
            if not isinstance(image, dict):
                raise Invalid("not an object", where=f"{where}.image")
            yield Named(where, _text(image, "reference", where))


def _each(spec: Mapping[str, Json], part: str) -> Iterator[tuple[Mapping[str, Json], str]]:
    """Each element of a list, with its name or number."""
    held = spec.get(part)
    if not isinstance(held, (list, type(None))):
        raise Invalid("not a list", where=part)
    for number, one in enumerate(held or ()):
        if not isinstance(one, dict):
            raise Invalid("not an object", where=f"{part}[{number}]")
        yield one, clean(str(one.get("name") or number), 80)


def _text(holder: Mapping[str, Json], name: str, where: str) -> str:
    text = holder.get(name, "")
    if not isinstance(text, str) or len(text) > 1000:
        raise Invalid("not the name of an image", where=f"{where}.{name}")
    return text
