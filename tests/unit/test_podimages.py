"""What an API server asks, in every shape: which images are in it, and what is not to be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.errors import Invalid
from penstock.server.podimages import MOST_BYTES, MOST_IMAGES, TEMPLATES, images, open_review

A, B, C = (f"registry.test/shop/{name}@sha256:{digit * 64}" for name, digit in zip("abc", "123", strict=True))
#: An RFC 4122 id as the API server makes them.
UID = "705ab4f5-6393-11e8-b7cc-42010a800002"


def pod(*images: str, **more: Any) -> dict[str, Any]:
    return {"containers": [{"name": f"c{n}", "image": image} for n, image in enumerate(images)], **more}


def wrapped(spec: Any, path: tuple[str, ...]) -> dict[str, Any]:
    for name in reversed(path):
        spec = {name: spec}
    return {"metadata": {"name": "web"}, **spec}


def asked(
    spec: Any, kind: tuple[str, str] = ("", "Pod"), operation: str = "CREATE", **more: Any
) -> dict[str, Any]:
    request = {
        "uid": UID,
        "kind": {"group": kind[0], "version": "v1", "kind": kind[1]},
        "operation": operation,
        "object": wrapped(spec, TEMPLATES.get(kind, ("spec",))),
        "oldObject": None,
        **more,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def found(review: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one.where, one.image) for one in images(open_review(json.dumps(review).encode()))]


@pytest.mark.parametrize("kind", TEMPLATES, ids=lambda kind: kind[1])
def test_every_kind_with_pods_names_its_images(kind: tuple[str, str]) -> None:
    spec = pod(A, initContainers=[{"name": "init", "image": B}])
    assert found(asked(spec, kind)) == [("containers[c0]", A), ("initContainers[init]", B)]


def test_every_place_of_a_pod_is_looked_at() -> None:
    spec = pod(
        A,
        A,
        ephemeralContainers=[{"name": "debug", "image": B}],
        volumes=[{"name": "data", "emptyDir": {}}, {"name": "model", "image": {"reference": C}}],
    )
    places = [("containers[c1]", A), ("ephemeralContainers[debug]", B), ("volumes[model]", C)]
    assert found(asked(spec)) == places, "each image once"
    debugging = asked(spec, operation="UPDATE", subResource="ephemeralcontainers")
    debugging["request"]["oldObject"] = wrapped(pod(A, A), ("spec",))
    assert found(debugging) == places[1:]


def test_an_object_keeps_the_images_that_it_has() -> None:
    review = asked(pod(A, B), ("apps", "Deployment"), "UPDATE")
    review["request"]["oldObject"] = wrapped(pod(A), TEMPLATES["apps", "Deployment"])
    assert found(review) == [("containers[c1]", B)]
    review["request"]["oldObject"] = review["request"]["object"]
    assert found(review) == []
    review["request"]["operation"] = "CREATE"
    assert len(found(review)) == 2, "what is new has nothing yet"


@pytest.mark.parametrize(
    "more",
    [
        {"operation": "DELETE", "object": None},
        {"operation": "CONNECT", "object": {"kind": "PodExecOptions"}},
        {"operation": "UPDATE", "subResource": "status"},
        {
            "operation": "UPDATE",
            "subResource": "scale",
            "kind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
        },
        {"operation": "CREATE", "subResource": "eviction", "object": {"kind": "Eviction"}},
        {"operation": "CREATE", "subResource": "binding", "object": {"kind": "Binding"}},
    ],
    ids=lambda more: more.get("subResource") or more["operation"],
)
def test_what_brings_no_image_is_not_asked_about(more: dict[str, Any]) -> None:
    review = asked(pod(A))
    review["request"] |= more
    assert found(review) == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "it has no containers, and nothing never passes"),
        ({"containers": []}, "it has no containers"),
        (None, "spec: not an object"),
        ("image", "spec: not an object"),
        ({"containers": {"name": "web"}}, "containers: not a list"),
        ({"containers": ["web"]}, "containers[0]: not an object"),
        ({"containers": [{"name": "web", "image": 7}]}, "containers[web].image: not the name of an image"),
        ({"containers": [{"image": "x" * 2000}]}, "containers[0].image: not the name of an image"),
        (pod(A, volumes=[{"name": "v", "image": "x"}]), "volumes[v].image: not an object"),
        (pod(*(f"i-{n}" for n in range(MOST_IMAGES + 1))), f"{MOST_IMAGES + 1} images, at most"),
    ],
)
def test_where_images_cannot_be_found_is_said(spec: Any, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        found(asked(spec))
    assert words in str(caught.value)


def test_a_container_without_an_image_has_an_empty_one() -> None:
    assert found(asked({"containers": [{"name": "web"}]})) == [("containers[web]", "")]


@pytest.mark.parametrize("kind", [("argoproj.io", "Rollout"), ("", "Service"), ("extensions", "Deployment")])
def test_a_kind_that_nobody_knows_is_not_one_without_images(kind: tuple[str, str]) -> None:
    with pytest.raises(Invalid) as caught:
        found(asked(pod(A), kind))
    assert f"where a {'.'.join(part for part in kind[::-1] if part)} has its images" in str(caught.value)
    assert "CronJob" in caught.value.next_move


@pytest.mark.parametrize(
    "change",
    [
        {"apiVersion": "admission.k8s.io/v1beta1"},
        {"kind": "Review"},
        {"request": None},
        {"request": {}},
        {"request": {"uid": ""}},
        {"request": {"uid": 7}},
        {"request": {"uid": "x" * 101}},
    ],
)
def test_what_is_no_review_of_this_version_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        open_review(json.dumps({**asked(pod(A)), **change}).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"kind": 1, "kind": 2}',
        b"[" * 9999,
        b'"%s"' % (b"x" * MOST_BYTES),
    ],
    ids=["nothing", "half", "list", "null", "bytes", "twice", "deep", "large"],
)
def test_what_is_no_json_of_a_size_is_an_error(body: bytes) -> None:
    with pytest.raises(Invalid):
        open_review(body)
