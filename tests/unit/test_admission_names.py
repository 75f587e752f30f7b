"""``--admission-also``: which images a name lets in unseen. What it does not let in here has no digest."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from penstock.ledger.log import Ledger
from penstock.ports import Store
from penstock.server.admission import Gatekeeper

NOTHING = cast(Any, object())  # neither is asked: a digest is looked for first


async def let_in(image: str, name: str) -> bool:
    pod = {"spec": {"containers": [{"name": "web", "image": image}]}}
    request = {"uid": "1", "operation": "CREATE", "kind": {"group": "", "kind": "Pod"}, "object": pod}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    store, ledger = cast(Store, NOTHING), Ledger(NOTHING, (), "penstock")
    answer = await Gatekeeper(store, ledger, (name,)).answer(json.dumps(review).encode(), "production")
    return bool(answer["response"]["allowed"])


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("registry.example/istio/proxyv2", "registry.example/istio/proxyv2"),
        ("registry.example/istio/proxyv2:1.30", "registry.example/istio/proxyv2"),
        ("registry.example/istio/proxyv2:1.30@sha256:00", "registry.example/istio/proxyv2:1.30"),
        ("registry.example/istio/proxyv2@sha256:00", "registry.example/istio/proxyv2"),
        ("registry.example/istio/proxyv2", "registry.example/istio/"),
        ("registry.example/istio/proxyv2", "registry.example"),
        ("registry.example:5000/proxyv2:1", "registry.example:5000"),
    ],
)
async def test_a_name_lets_in_what_it_names(image: str, name: str) -> None:
    assert await let_in(image, name)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("registry.example/istio/proxyv2-forged:1", "registry.example/istio/proxyv2"),
        ("registry.example/istio", "registry.example/istio/"),
        ("registry.example.org/proxyv2:1", "registry.example"),
        # A port makes it another registry, which anybody on that machine may open.
        ("registry.example:5000/proxyv2:1", "registry.example"),
        ("localhost:31000/evil:1", "localhost"),
    ],
)
async def test_it_lets_in_nothing_else(image: str, name: str) -> None:
    assert not await let_in(image, name)
