"""Nobody walks around the gate: a cluster asks Penstock, over TLS, before it lets a workload in.

The control plane, its ledger, its port and its certificate are real; the cluster is the fake one, which asks
its webhooks over HTTPS for requests and for what its controllers make.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes.certificates import Authority
from fakes.cluster import cluster_and_client, deployment
from integration.ledger.world import Delivery, World, artifact, built, scanned, suite_ran
from penstock.adapters._kubernetes import Client
from penstock.adapters._kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS, PODS
from penstock.bootstrap import serve
from penstock.bootstrap.certificate import Certificate
from penstock.bootstrap.control import ControlPlane, open_control_plane
from penstock.bootstrap.home import AdmissionSettings, Home, Settings
from penstock.core.people import By, Override, Person
from penstock.core.predicates import Predicate
from penstock.core.release import Change
from penstock.errors import Invalid, PenstockError, Refused, Unavailable
from penstock.server.app import create_admission_app
from penstock.server.bounds import BURST, Bounds
from penstock.testing.kubernetes import Behaviour, FakeCluster
from penstock.testing.kubernetes.kinds import WEBHOOKS

SECONDS = 20.0
HOST = "penstock-admission.penstock.svc"
SIDECAR = "docker.io/istio/proxyv2"
GOOD = Delivery("d-good", artifact("good"))
BAD = Delivery("d-bad", artifact("bad"))


def image(delivery: Delivery) -> str:
    return f"registry.test/shop/catalog@{delivery.artifact.digest}"


@dataclass
class Door:
    """A control plane that a cluster may ask. *world* tells what is in its ledger."""

    control: ControlPlane
    world: World
    authority: Authority
    certificate: Certificate
    server: Any = None
    port: int = 0

    async def open(self) -> None:
        config = serve._config(Bounds(create_admission_app(self.control)))
        listener = serve._tcp(self.port)
        self.port = listener.getsockname()[1]
        self.server = serve._Server(self.certificate.shown_by(config))
        self.serving = asyncio.create_task(self.server.serve(sockets=[listener]))
        async with asyncio.timeout(SECONDS):
            while not self.server.started:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.server.should_exit = True
        await self.serving

    async def sign_off(self, delivery: Delivery, *evidence: Predicate) -> None:
        await self.world.propose(delivery)
        await self.world.report(delivery, built(), suite_ran(), *evidence)
        await self.world.gate(delivery, "deploy")

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[httpx.AsyncClient]:
        """As an API server would, by hand."""
        trust = ssl.create_default_context(cadata=_pem(self.authority))
        async with httpx.AsyncClient(verify=trust, trust_env=False, timeout=SECONDS) as client:
            yield client

    async def post(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        async with self.asking() as client:
            url = f"https://127.0.0.1:{self.port}{path}"
            return await client.post(url, content=body, headers=headers, extensions={"sni_hostname": HOST})


def _pem(authority: Authority) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return authority.certificate.public_bytes(Encoding.PEM).decode()


@pytest.fixture
async def door(short_tmp: Path, tmp_path: Path) -> AsyncIterator[Door]:
    authority, home = Authority.new(), Home(short_tmp / "home")
    certificate, key = authority.issue(tmp_path, HOST)
    home.create()
    asked = AdmissionSettings(1, str(certificate), str(key), (SIDECAR,))
    home.keep(Settings(sandbox="none", admission=asked))
    control = await open_control_plane(home)
    keys = control.keys
    world = World(tmp_path, control.store, keys.logs[0], keys.operator, keys.worker, control.ledger)
    world.clock = time.time() + 60  # what people say comes after what was said when it was founded
    made = Door(control, world, authority, Certificate.of(asked))
    await made.open()
    yield made
    await made.close()
    await control.close()


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


# --- the port ---------------------------------------------------------------------------------------------


def review(*images: str, uid: str = "1") -> bytes:
    containers = [{"name": f"c{n}", "image": one} for n, one in enumerate(images)]
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    request = {
        "uid": uid,
        "kind": kind,
        "operation": "CREATE",
        "object": {"spec": {"containers": containers}},
    }
    return json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    ).encode()


async def response(door: Door, body: bytes, path: str = "/v1/admission/kubernetes") -> dict[str, Any]:
    answer = await door.post(path, body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["apiVersion"], found["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    return dict(found["response"])


async def test_the_answer_says_all_of_it_and_is_for_one_environment(door: Door) -> None:
    await door.sign_off(GOOD, scanned())
    await door.sign_off(BAD, scanned(1))
    good = await response(door, review(image(GOOD), uid="42"))
    says = f"{GOOD.release.id} is signed off for deploy"
    assert good == {"uid": "42", "allowed": True, "auditAnnotations": {"clearance": says}}
    both = await response(door, review(image(GOOD), image(BAD), "nginx"))
    assert (both["allowed"], both["status"]["code"]) == (False, 403)
    lines = [line for line in both["status"]["message"].splitlines() if line.startswith("penstock: ")]
    assert [line.split()[1].rstrip(":") for line in lines] == ["containers[c1]", "containers[c2]"]
    elsewhere = await response(door, review(image(GOOD)), "/v1/admission/kubernetes/staging")
    assert "was asked about for production only" in elsewhere["status"]["message"]


class Elsewhere(Delivery):
    """Somebody else's change, as can be told from the author's address."""

    @property
    def change(self) -> Change:
        return replace(super().change, author="Ada <ada@example.org>")


async def test_an_override_is_never_silent(door: Door) -> None:
    theirs = Elsewhere("d-theirs", artifact("theirs"))
    by = By("operator")
    why = ("security-lead", "deploy", theirs.release.digest, "mend it first", time.time() + 3600)
    await door.world.say(Person(by, "operator", ("op@example.org",)), Override(by, *why))
    await door.sign_off(theirs, scanned(2))
    found = await response(door, review(image(theirs)))
    assert found["allowed"]
    assert found["warnings"] == [
        f"{theirs.release.id}: security-lead was overridden by operator: mend it first"
    ]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/admission/kubernetes", b"{}", 422),
        ("/v1/admission/kubernetes", b"\xff", 422),
        ("/v1/admission/kubernetes", b"x" * (4 * 1024 * 1024 + 1), 413),
        ("/v1/status", b"{}", 404),
        ("/v1/ship", b"{}", 404),
        ("/v1/evidence", b"{}", 404),
        ("/", b"", 404),
        ("/login", b"", 404),
        ("/metrics", b"", 404),
    ],
)
async def test_nothing_else_is_there_and_no_answer_is_no_yes(
    door: Door, path: str, body: bytes, status: int
) -> None:
    answer = await door.post(path, body)
    assert answer.status_code == status
    assert answer.json()["word"] in ("invalid", "unavailable")


async def test_an_object_that_cannot_be_read_is_refused_and_not_an_error(door: Door) -> None:
    found = await response(door, review())
    assert "it has no containers, and nothing never passes" in found["status"]["message"]


async def test_one_that_asks_too_much_does_not_silence_the_others() -> None:
    clock = [0.0]
    answered: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answered.append(message["status"])

    bounds = Bounds(app, lambda: clock[0])

    async def ask(address: str, times: int = 1, headers: tuple[tuple[bytes, bytes], ...] = ()) -> list[int]:
        answered.clear()
        for _ in range(times):
            await bounds({"type": "http", "headers": headers, "client": (address, 1)}, None, send)
        return list(answered)

    assert set(await ask("10.0.0.1", int(BURST))) == {200}
    assert await ask("10.0.0.1", 2) == [429, 429]
    assert await ask("10.0.0.2") == [200]
    clock[0] += 1.0
    assert await ask("10.0.0.1") == [200]
    assert await ask("10.0.0.2", 1, ((b"transfer-encoding", b"chunked"),)) == [413]
    assert await ask("10.0.0.2", 1, ((b"content-length", b"-1"),)) == [413]


async def test_a_certificate_that_is_renewed_is_shown_without_a_restart(door: Door, tmp_path: Path) -> None:
    following = asyncio.create_task(door.certificate.follow(0.01))
    await asyncio.sleep(0)  # it has seen those of now
    first = door.authority
    (tmp_path / "tls.key").write_bytes(b"half of a renewal")
    assert (await door.post("/v1/admission/kubernetes", review("nginx"))).status_code == 200
    second = Authority.new()
    second.issue(tmp_path, HOST)
    door.authority = second
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await door.post("/v1/admission/kubernetes", review("nginx"))
                break
            except httpx.ConnectError:  # still the first
                await asyncio.sleep(0.01)
    door.authority = first
    with pytest.raises(httpx.ConnectError):
        await door.post("/v1/admission/kubernetes", review("nginx"))
    following.cancel()


@pytest.mark.parametrize("wrong", ["absent", "text", "another's key"])
def test_a_certificate_that_cannot_be_used_is_said_before_anything_starts(tmp_path: Path, wrong: str) -> None:
    certificate, key = Authority.new().issue(tmp_path, HOST)
    settings = AdmissionSettings(8443, str(certificate), str(key))
    if wrong == "absent":
        key.unlink()
    elif wrong == "text":
        certificate.write_text("no certificate")
    else:
        other = tmp_path / "other"
        other.mkdir()
        settings = replace(settings, key=str(Authority.new().issue(other, HOST)[1]))
    with pytest.raises(Invalid) as caught:
        Certificate.of(settings)
    assert str(tmp_path) in caught.value.where
    assert caught.value.next_move
