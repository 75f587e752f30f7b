"""What the adapter for registries asks, whom it tells what, and what it makes of one that is unwell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from fakes.answers import Answer, Question
from fakes.image import put_image
from fakes.registry import PASSWORD, FakeRegistry, docker_registry, login, problem
from fakes.web import free_port
from penstock.adapters.registry import Registry, asking
from penstock.adapters.registry.login import challenges
from penstock.core.digest import short
from penstock.errors import Broken, Invalid, PenstockError, Refused, Unavailable


@dataclass
class World:
    fake: FakeRegistry
    store: Path
    folder: Path
    artifact: str

    def registry(self, auth: Path | None = None) -> Registry:
        return Registry(self.store, f"{self.fake.url}/shop", auth=auth)

    async def publish(self, auth: Path | None = None) -> str:
        return await self.registry(auth).publish("web", self.artifact)

    async def fails(self, word: type[PenstockError], says: str, auth: Path | None = None) -> str:
        """The whole error; it says where."""
        with pytest.raises(word, match=says) as caught:
            await self.publish(auth)
        assert f"{self.fake.server.address}/shop/web" in caught.value.where
        return str(caught.value)

    def login(self, **changes: str) -> Path:
        return login(self.folder / "config.json", self.fake.server.address, **changes)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    fake = FakeRegistry()
    await fake.server.start()
    yield World(fake, tmp_path / "store", tmp_path, put_image(tmp_path / "store"))
    await fake.server.stop()


def only(method: str, part: str, answer: Answer) -> Callable[[Question], Answer | None]:
    return lambda q: answer if q.method == method and part in q.path else None


# --- what is asked ---------------------------------------------------------------------------------------


async def test_a_push_asks_for_what_is_missing_and_the_next_one_once(world: World) -> None:
    registry = world.registry()
    await registry.publish("web", world.artifact)
    upload = ["HEAD /v2/shop/web/blobs/…", "POST /v2/shop/web/blobs/uploads/"]
    upload += ["PUT /v2/shop/web/blobs/uploads/1"]
    tag = f"PUT /v2/shop/web/manifests/{short(world.artifact)}"
    assert world.fake.asked == ["HEAD /v2/shop/web/manifests/…", *upload, *upload, tag]
    world.fake.server.asked.clear()
    await registry.publish("web", world.artifact)
    assert world.fake.asked == ["HEAD /v2/shop/web/manifests/…"]


async def test_a_push_that_was_cut_off_does_not_send_again_what_arrived(world: World) -> None:
    world.fake.trouble = only("PUT", "manifests", Answer(never=True))
    push = asyncio.ensure_future(world.publish())
    while not any("PUT" in asked and "manifests" in asked for asked in world.fake.asked):
        await asyncio.sleep(0.01)
    push.cancel()
    await asyncio.wait([push])
    world.fake.trouble = lambda _: None
    world.fake.server.asked.clear()
    await world.publish()
    assert not [asked for asked in world.fake.asked if "uploads" in asked]


async def test_the_second_of_two_workers_may_find_the_tag_taken(world: World) -> None:
    """Of one image, where tags never change: it is there all the same."""

    def taken(question: Question) -> Answer | None:
        if question.method != "PUT" or "manifests" not in question.path:
            return None
        world.fake.trouble = lambda _: None
        world.fake.answer(question)
        return problem(412, "PRECONDITION", "the tag is immutable")

    world.fake.trouble = taken
    assert await world.publish() == f"{world.fake.server.address}/shop/web@{world.artifact}"


async def test_what_the_registry_has_lost_is_pushed_anew(world: World) -> None:
    """Docker's own says so, with DIGEST_INVALID beside it, while another worker pushes the same part."""
    codes = ("DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN")
    lost = Answer(json.dumps({"errors": [{"code": code} for code in codes]}).encode(), 400)

    def once(question: Question) -> Answer | None:
        if question.method != "PUT" or "manifests" not in question.path:
            return None
        world.fake.trouble = lambda _: None
        world.fake.blobs.popitem()
        return lost

    world.fake.trouble = once
    await world.publish()
    assert len([asked for asked in world.fake.asked if asked.startswith("PUT") and "uploads" in asked]) == 3


# --- who is told what ------------------------------------------------------------------------------------


async def test_a_token_is_asked_for_once_and_renewed_when_it_is_refused(world: World) -> None:
    world.fake.token = "first"
    registry = world.registry(world.login())
    await registry.publish("web", world.artifact)
    assert world.fake.asked.count("GET /token") == 1
    (question,) = [q for q in world.fake.server.asked if q.path == "/token"]
    assert question.given["scope"] == "repository:shop/web:pull,push"
    assert question.given["service"] == "fake"
    world.fake.token = "second"
    world.fake.server.asked.clear()
    await registry.publish("web", world.artifact)
    assert world.fake.asked == [
        "HEAD /v2/shop/web/manifests/…",
        "GET /token",
        "HEAD /v2/shop/web/manifests/…",
    ]


async def test_an_upload_elsewhere_is_not_told_who_we_are(world: World) -> None:
    other = FakeRegistry()
    await other.server.start()
    other.blobs = world.fake.blobs
    world.fake.token, world.fake.elsewhere = "a-token", other.server.address
    await world.publish(world.login())
    assert {asked.partition(" ")[0] for asked in other.asked} == {"PUT"}
    assert not any("authorization" in question.headers for question in other.server.asked)
    await other.server.stop()


async def test_a_head_is_followed_and_nothing_else_is(world: World) -> None:
    other = FakeRegistry()
    await other.server.start()
    await world.publish()
    other.blobs, other.manifests = world.fake.blobs, world.fake.manifests
    away = {"location": f"http://{other.server.address}/v2/shop/web/manifests/{world.artifact}"}
    world.fake.token = "a-token"

    def led(question: Question) -> Answer | None:
        known = question.headers.get("authorization") == "Bearer a-token"
        return Answer(b"", 307, away) if known else None

    world.fake.trouble = led
    await world.publish(world.login())
    assert not any("authorization" in question.headers for question in other.server.asked)
    world.fake.manifests.clear()
    await world.fails(Invalid, "has moved to http://127", world.login())
    await other.server.stop()


async def test_a_password_does_not_go_where_others_could_read_it(world: World) -> None:
    registry = Registry(world.store, "http://registry.example/shop", auth=world.login())
    assert registry  # a registry without TLS may be used, but nobody logs in there
    for realm in ("http://tokens.example/token", "ftp://127.0.0.1/", "nonsense", "http://u:p@127.0.0.1/"):
        offer = {"www-authenticate": f'Bearer realm="{realm}",service="s"'}
        world.fake.trouble = only("HEAD", "", problem(401, "UNAUTHORIZED", **offer))
        says = "without TLS" if "tokens.example" in realm else "no registry answers so"
        await world.fails(Refused if "tokens.example" in realm else Broken, says, world.login())


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
async def test_what_it_repeats_of_our_password_is_not_shown(world: World, scheme: str) -> None:
    def echo(question: Question) -> Answer | None:
        given = question.headers.get("authorization", "")
        if question.path == "/token":
            return Answer(json.dumps({"token": "the-token"}).encode())
        if not given:
            offer = f'{scheme} realm="{world.fake.url}/token"'
            return problem(401, "UNAUTHORIZED", **{"www-authenticate": offer})
        if question.method == "HEAD":
            return problem(404, "MANIFEST_UNKNOWN")
        return problem(403, "DENIED", f"not with {given} and {PASSWORD}")

    world.fake.trouble = echo
    said = await world.fails(Refused, "may not push here: not with", world.login())
    secret = world.login().read_text().split('"auth": "')[1].split('"')[0]
    assert not [word for word in (PASSWORD, "the-token", secret) if word in said]


# --- when it is unwell -----------------------------------------------------------------------------------

QUOTA = "Quota exceeded when processing the request of adding 1.2 GiB of storage resource"


@pytest.mark.parametrize(
    ("method", "part", "answer", "word", "says"),
    [
        ("HEAD", "manifests", Answer(b"", 403), Refused, "may not push here"),
        ("POST", "", problem(403, "DENIED", QUOTA), Unavailable, "is full: Quota exceeded"),
        ("POST", "", problem(401, "UNAUTHORIZED"), Refused, "does not let us in"),
        ("POST", "", problem(404, "NAME_UNKNOWN"), Invalid, "no such repository, or no registry: name"),
        ("POST", "", Answer(b"<html>", 404), Invalid, "no such repository, or no registry"),
        ("POST", "", problem(405, "UNSUPPORTED"), Invalid, "takes no images"),
        (
            "POST",
            "",
            Answer(b"", 301, {"location": "https://new.example/x?key=y"}),
            Invalid,
            "moved to https",
        ),
        ("POST", "", Answer(b"", 202), Broken, "an upload without a place"),
        ("POST", "", Answer(b"<html>", 200), Broken, "answered 200"),
        ("POST", "", Answer(b"", 202, {"location": "http://x:nan/"}), Broken, "no URL"),
        ("PUT", "uploads", Answer(b"<html>", 413), Invalid, r"client_max_body_size"),
        ("PUT", "uploads", problem(400, "DIGEST_INVALID"), Broken, "other bytes than were sent"),
        ("PUT", "uploads", problem(404, "BLOB_UPLOAD_UNKNOWN"), Unavailable, "lost what it had"),
        (
            "PUT",
            "uploads",
            Answer(b"", 201, {"docker-content-digest": "sha256:1"}),
            Broken,
            "it has sha256:1",
        ),
        ("PUT", "manifests", problem(400, "MANIFEST_BLOB_UNKNOWN"), Unavailable, "lost what it had"),
        ("PUT", "manifests", problem(400, "MANIFEST_INVALID", "too old"), Invalid, "take it: too old"),
        ("PUT", "manifests", Answer(b"", 201), Broken, "and does not have it as"),
        ("HEAD", "manifests", Answer(b"a site", 200), Broken, "no digest for the image"),
        (
            "HEAD",
            "blobs",
            Answer(b"", 302, {"location": "/v2/x/blobs/y"}),
            Broken,
            "from one place to the next",
        ),
        ("HEAD", "", Answer(b"", 429, {"retry-after": "7"}), Unavailable, r"too much to do\n.*after 7 s"),
        ("HEAD", "", Answer(b"", 429, {"retry-after": "9" * 400}), Unavailable, "after 3600 s"),
        ("POST", "", Answer(b"\xff[", 503, {"retry-after": "soon"}), Unavailable, r"failed \(503\)"),
        ("POST", "", Answer(b'{"errors": [{"message": {}}, 3]}', 507), Unavailable, "is full"),
        ("PUT", "manifests", Answer(b"[" * 60_000, 500), Unavailable, r"failed \(500\)"),
        ("POST", "", Answer(b"x" * 500_000, 418), Broken, "answered 418"),
    ],
)
async def test_what_it_answers_is_one_of_five_words(
    world: World, method: str, part: str, answer: Answer, word: type[PenstockError], says: str
) -> None:
    world.fake.trouble = only(method, part, answer)
    said = await world.fails(word, says)
    assert "next: " in said or word is Invalid
    assert "key=y" not in said
    world.fake.trouble = lambda _: None
    await world.publish()


@pytest.mark.parametrize(
    ("answer", "word", "says"),
    [
        (problem(401, "UNAUTHORIZED"), Refused, "tokens from 127.0.0.1: the registry does not let us in"),
        (Answer(b"<html>"), Broken, "no JSON where a token"),
        (Answer(b"{}"), Broken, "no token"),
        (Answer(b'{"token": "a\\r\\nb: c"}'), Broken, "no token"),
        (Answer(b'{"token": 7}'), Broken, "no token"),
        (Answer(b"", 503), Unavailable, "failed"),
        (Answer(b"", 302, {"location": "http://elsewhere.example"}), Invalid, "has moved"),
    ],
)
async def test_who_hands_out_tokens_may_be_unwell_too(
    world: World, answer: Answer, word: type[PenstockError], says: str
) -> None:
    world.fake.token = "a-token"
    world.fake.trouble = only("GET", "/token", answer)
    await world.fails(word, says, world.login())


async def test_without_a_password_or_with_a_wrong_one_the_next_move_is_docker_login(tmp_path: Path) -> None:
    artifact = put_image(tmp_path / "store")
    async with docker_registry(tmp_path, locked=True) as url:
        host = httpx.URL(url).netloc.decode()
        wrong = login(tmp_path / "config.json", host, password="wrong")
        other = login(tmp_path / "other.json", "registry.example")
        for auth in (None, wrong, other):
            with pytest.raises(Refused, match="docker login"):
                await Registry(tmp_path / "store", f"{url}/shop", auth=auth).publish("web", artifact)


async def test_one_that_is_not_there_or_says_nothing_is_unavailable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(world.store, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="does not answer"):
        await registry.publish("web", world.artifact)
    monkeypatch.setattr(asking, "SECONDS", 0.05)
    world.fake.trouble = only("PUT", "uploads", Answer(never=True))
    await world.fails(Unavailable, "not within")


# --- what it is told -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("push", "pull", "says"),
    [
        ("registry.example/shop", "", "http or https URL"),
        ("ftp://x", "", "http or https URL"),
        ("https://u:sesame@x", "", "a URL and nothing else"),
        ("https://x.example/?a=b", "", "a URL and nothing else"),
        ("https://x.example/Shop", "", "cannot be a name"),
        ("https://x.example:99999", "", "URL"),
        ("https://registry/shop", "", "registry:443/shop"),
        ("https://x.example", "https://x.example/shop", "without a scheme"),
        ("https://x.example", "x.example/shop@sha256:0", "without a scheme"),
    ],
)
def test_an_address_that_is_none_is_refused(tmp_path: Path, push: str, pull: str, says: str) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        Registry(tmp_path, push, pull)
    assert "sesame" not in str(caught.value)


async def test_a_service_that_cannot_have_a_repository_is_refused(world: World) -> None:
    for service in ("Web", "a/b", "..", "w" * 300, ""):
        with pytest.raises(Invalid, match="cannot be a name in a registry"):
            await world.registry().publish(service, world.artifact)


@pytest.mark.parametrize(
    ("text", "word", "says"),
    [
        ("{", Invalid, "not a Docker config.json"),
        ("[]", Invalid, "not a Docker config.json"),
        ('{"auths": {"HOST": {}}}', Invalid, "helper programs are not started"),
        ('{"auths": {"HOST": {"auth": "sesame!"}}}', Invalid, "no user and password"),
        ('{"auths": {"HOST": 3}}', Invalid, "no user and password"),
        ("", Unavailable, "cannot be read"),
    ],
)
async def test_a_file_without_a_password_says_so(
    world: World, text: str, word: type[PenstockError], says: str
) -> None:
    world.fake.token = "a-token"
    file = world.folder / "config.json"
    if text:
        file.write_text(text.replace("HOST", world.fake.server.address))
    with pytest.raises(word, match=says) as caught:
        await world.publish(file)
    assert "sesame" not in str(caught.value)
    assert str(file) in caught.value.where


@pytest.mark.parametrize("key", ["http://HOST/v1/", "https://HOST", "HOST/shop", "HOST/shop/web", "HOST/v2"])
async def test_a_login_is_found_however_it_is_written(world: World, key: str) -> None:
    world.fake.token = "a-token"
    auth = login(world.folder / "config.json", key.replace("HOST", world.fake.server.address))
    await world.publish(auth)


def test_what_a_registry_wants_is_read_however_it_is_written() -> None:
    lines = [
        'Basic realm="x, y", BEARER Realm="https://a/t?x=1", service=b , scope="r:x:pull,push"',
        "Negotiate",
    ]
    bearer = {"realm": "https://a/t?x=1", "service": "b", "scope": "r:x:pull,push"}
    assert challenges(lines) == {"basic": {"realm": "x, y"}, "bearer": bearer}
