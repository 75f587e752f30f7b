"""Nobody walks around the gate: a cluster asks Penstock, over TLS, before it lets a workload in.

The control plane, its ledger, its port and its certificate are real; the cluster is the fake one, which asks
its webhooks over HTTPS for requests and for what its controllers make.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes.certificates import Authority
from fakes.cluster import cluster_and_client, deployment
from integration.admission_door import BAD, GOOD, SECONDS, SIDECAR, Door, image, opened
from integration.ledger.world import scanned
from penstock.adapters._kubernetes import Client
from penstock.adapters._kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS, PODS
from penstock.errors import PenstockError, Refused, Unavailable
from penstock.testing.kubernetes import Behaviour, FakeCluster
from penstock.testing.kubernetes.kinds import WEBHOOKS


@pytest.fixture
async def door(short_tmp: Path, tmp_path: Path) -> AsyncIterator[Door]:
    async with opened(short_tmp, tmp_path) as made:
        yield made


@dataclass
class Guarded:
    """A cluster that asks the door about workloads of one namespace."""

    cluster: FakeCluster
    client: Client
    door: Door

    async def until_pods(self, count: int) -> None:
        async with asyncio.timeout(SECONDS):
            while len((await self.client.list(PODS)).items) != count:
                await asyncio.sleep(0.01)

    def configure(self, **more: Any) -> None:
        """The webhook's configuration, as the guide has it."""
        rules = [
            ([""], ["pods", "pods/ephemeralcontainers", "replicationcontrollers"]),
            (["apps"], ["deployments", "replicasets", "statefulsets", "daemonsets"]),
            (["batch"], ["jobs", "cronjobs"]),
        ]
        service = {"namespace": "penstock", "name": "penstock-admission", "path": "/v1/admission/kubernetes"}
        webhook = {
            "name": "admission.penstock.example",
            "clientConfig": {"service": service, "caBundle": self.door.authority.bundle},
            "rules": [
                {
                    "operations": ["CREATE", "UPDATE"],
                    "apiGroups": group,
                    "apiVersions": ["v1"],
                    "resources": what,
                }
                for group, what in rules
            ],
            "namespaceSelector": {"matchLabels": {"penstock/environment": "production"}},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "timeoutSeconds": 5,
            "admissionReviewVersions": ["v1"],
            **more,
        }
        value = {
            "apiVersion": WEBHOOKS.api_version,
            "kind": WEBHOOKS.kind,
            "metadata": {"name": "penstock"},
            "webhooks": [webhook],
        }
        self.cluster.api.apply(WEBHOOKS, value, manager="kubectl", strict=True)


@pytest.fixture
async def guarded(door: Door, tmp_path: Path) -> AsyncIterator[Guarded]:
    async with cluster_and_client(tmp_path) as (cluster, client):
        cluster.kubelet.behaviours |= {image(one): Behaviour() for one in (GOOD, BAD)}
        cluster.api.labels["default"] = {"penstock/environment": "production"}
        cluster.webhooks.services["penstock", "penstock-admission"] = ("127.0.0.1", door.port)
        made = Guarded(cluster, client, door)
        made.configure()
        yield made


async def refused(asking: object, *words: str, kind: type[PenstockError] = Refused) -> None:
    with pytest.raises(kind) as caught:
        await asking  # type: ignore[misc]
    assert [word for word in words if word not in str(caught.value)] == [], caught.value


# --- the cluster asks -------------------------------------------------------------------------------------


async def test_what_is_signed_off_gets_in_and_runs(guarded: Guarded) -> None:
    await guarded.door.sign_off(GOOD, scanned())
    await guarded.client.create(DEPLOYMENTS, deployment(image=image(GOOD), replicas=2))
    await guarded.until_pods(2)
    asked = guarded.cluster.webhooks.asked
    assert asked[0] == "CREATE deployments"
    assert {"CREATE replicasets", "CREATE pods"} < set(asked), "controllers are asked about too"


async def test_what_is_not_known_is_refused_in_words(guarded: Guarded) -> None:
    making = guarded.client.create(DEPLOYMENTS, deployment(image=image(GOOD)))
    await refused(
        making,
        'admission webhook "admission.penstock.example" denied the request: penstock: containers[app]',
        image(GOOD),
        "is not known here: nothing signs it off for production",
        "next: penstock ship",
    )
    assert await guarded.client.get(DEPLOYMENTS, "web") is None


async def test_what_a_policy_refused_says_which_and_who_can_help(guarded: Guarded) -> None:
    await guarded.door.sign_off(BAD, scanned(2))
    making = guarded.client.create(DEPLOYMENTS, deployment(image=image(BAD)))
    await refused(making, "security-lead: 2 critical", "security-lead can override it: operator")


async def test_a_tag_is_refused_and_so_is_an_image_that_is_changed_to(guarded: Guarded) -> None:
    await guarded.door.sign_off(GOOD, scanned())
    tagged = deployment(image="registry.test/shop/catalog:1.2")
    await refused(guarded.client.create(DEPLOYMENTS, tagged), "names no sha256 digest", "NAME@sha256:")
    await guarded.client.create(DEPLOYMENTS, deployment(image=image(GOOD)))
    changed = guarded.client.apply(DEPLOYMENTS, deployment(image=image(BAD)))
    await refused(changed, image(BAD), "is not known here")
    await guarded.client.apply(DEPLOYMENTS, deployment(image=image(GOOD), replicas=2))
    await guarded.until_pods(2)


async def test_a_pod_of_its_own_and_a_sidecar(guarded: Guarded) -> None:
    await guarded.door.sign_off(GOOD, scanned())
    lone = {"metadata": {"name": "lone", "namespace": "default"}, "spec": {"containers": []}}
    containers = [{"name": "app", "image": image(GOOD)}, {"name": "proxy", "image": f"{SIDECAR}:1.30"}]
    await guarded.client.create(PODS, {**lone, "spec": {"containers": containers}})
    containers[1]["image"] = f"{SIDECAR}-forged:1.30"
    forged = {"metadata": {"name": "forged", "namespace": "default"}, "spec": {"containers": containers}}
    await refused(guarded.client.create(PODS, forged), "containers[proxy]", "names no sha256 digest")


async def test_what_was_there_before_the_webhook_can_still_be_changed_but_not_started(
    guarded: Guarded,
) -> None:
    """Nothing is wedged: labels and finalizers can be changed, and no new copy gets in."""
    guarded.cluster.api.labels["default"] = {}
    await guarded.client.create(DEPLOYMENTS, deployment(image=image(BAD)))
    await guarded.until_pods(1)
    guarded.cluster.api.labels["default"] = {"penstock/environment": "production"}
    await guarded.client.apply(DEPLOYMENTS, deployment(image=image(BAD), replicas=2))
    async with asyncio.timeout(SECONDS):
        while "is not known here" not in json.dumps(guarded.cluster.api.storage.all("replicasets.apps")):
            await asyncio.sleep(0.01)
    assert len((await guarded.client.list(PODS)).items) == 1
    assert await guarded.client.delete(DEPLOYMENTS, "web")


async def test_other_namespaces_and_other_kinds_are_not_asked_about(guarded: Guarded) -> None:
    await guarded.client.apply(CONFIG_MAPS, {"metadata": {"name": "n", "namespace": "default"}, "data": {}})
    guarded.cluster.api.labels["default"] = {"penstock/environment": "staging"}
    await guarded.client.create(DEPLOYMENTS, deployment(image=image(BAD)))
    await guarded.until_pods(1)
    assert guarded.cluster.webhooks.asked == []


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
async def test_without_penstock_its_failure_policy_decides(guarded: Guarded, policy: str) -> None:
    guarded.configure(failurePolicy=policy)
    await guarded.door.close()
    making = guarded.client.create(DEPLOYMENTS, deployment(image=image(BAD)))
    if policy == "Fail":
        await refused(making, "failed calling webhook", "admission.penstock.example", kind=Unavailable)
        await guarded.door.open()
        await guarded.door.sign_off(GOOD, scanned())
        await guarded.client.create(DEPLOYMENTS, deployment(image=image(GOOD)))
    else:
        await making
    await guarded.until_pods(1)
    if policy == "Ignore":
        await guarded.door.open()


async def test_a_certificate_of_somebody_else_is_no_answer(guarded: Guarded) -> None:
    bundle = Authority.new().bundle
    service = {"namespace": "penstock", "name": "penstock-admission"}
    guarded.configure(clientConfig={"service": service, "caBundle": bundle})
    making = guarded.client.create(DEPLOYMENTS, deployment(image=image(GOOD)))
    await refused(making, "failed calling webhook", "CERTIFICATE_VERIFY_FAILED", kind=Unavailable)


async def test_trying_it_first_lets_everything_in_and_warns(guarded: Guarded) -> None:
    path = "/v1/admission/kubernetes/production/warn"
    service = {"namespace": "penstock", "name": "penstock-admission", "path": path}
    guarded.configure(clientConfig={"service": service, "caBundle": guarded.door.authority.bundle})
    async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as kubectl:
        answer = await kubectl.post(
            f"{guarded.cluster.url}/apis/apps/v1/namespaces/default/deployments?dryRun=All",
            json={"apiVersion": "apps/v1", "kind": "Deployment", **deployment(image=image(BAD))},
            headers={"authorization": f"Bearer {guarded.cluster.token}"},
        )
    assert answer.status_code == 200
    assert answer.headers["warning"].startswith('299 - "penstock: containers[app] registry.test/shop/catalog')
    assert await guarded.client.get(DEPLOYMENTS, "web") is None, "a dry run"
