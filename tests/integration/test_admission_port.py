"""The port at which a cluster asks: what it answers, what it does not, and its certificate."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes.certificates import Authority
from integration.admission_door import BAD, GOOD, HOST, SECONDS, Door, image, opened
from integration.ledger.world import Delivery, artifact, scanned
from penstock.bootstrap.certificate import Certificate
from penstock.bootstrap.home import AdmissionSettings
from penstock.core.people import By, Override, Person
from penstock.core.release import Change
from penstock.errors import Invalid
from penstock.server.bounds import BURST, Bounds


@pytest.fixture
async def door(short_tmp: Path, tmp_path: Path) -> AsyncIterator[Door]:
    async with opened(short_tmp, tmp_path) as made:
        yield made


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
