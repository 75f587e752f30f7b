"""A service against its own document, over real connections and in the real process that reads documents."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from pathlib import Path

import pytest

from fakes.shop import Reply, Shop
from penstock.checks import contract
from penstock.checks.preview import Part
from penstock.checks.reader import Reader
from penstock.checks.sending import Bounds
from penstock.checks.untrusted.answers import MAX_BODY
from penstock.checks.untrusted.document import MAX_BYTES
from penstock.core.acceptance import Contract
from penstock.core.acceptanceconfig import AcceptanceConfig

DOCUMENT = """\
openapi: 3.1.0
info: {title: Shop, version: '1'}
paths:
  /items:
    get:
      parameters: [{in: query, name: page, schema: {type: integer, minimum: 1}}]
      responses:
        200:
          description: Items
          content: {application/json: {schema: {type: array, items: {$ref: '#/components/schemas/Item'}}}}
    post: {responses: {201: {description: Made}}}
  /about:
    get: {responses: {200: {description: Words, content: {text/plain: {}}}}}
components:
  schemas:
    Item: {type: object, required: [id], properties: {id: {type: integer}}}
"""
ITEMS, ABOUT = Reply([{"id": 1}]), Reply("hello", kind="text/plain")


async def checked(
    shop: Shop, tree: Path, text: str = DOCUMENT, reader: Reader | None = None, **more: object
) -> tuple[Contract | None, Part]:
    (tree / "openapi.yaml").write_text(text)
    config = AcceptanceConfig(**{"openapi": "openapi.yaml", **more})  # type: ignore[arg-type]
    async with shop.open():
        return await contract.check(config, tree, shop.way, reader, Bounds(3.0, keep=MAX_BODY + 1))


async def test_a_service_as_documented(tmp_path: Path) -> None:
    shop = Shop(items=ITEMS, about=ABOUT)
    found, part = await checked(shop, tmp_path)
    assert found is not None
    assert (found.operations, found.failed, found.skipped) == (2, 0, ("POST /items",))
    assert (part.passed, part.failed) == (2, 0)
    assert part.words == "2 of 2 operations as documented"
    assert sorted(shop.asked) == ["GET /about", "GET /items"]
    assert all("penstock-preview-token: the-token" in head for head in shop.heads)


async def test_cases_find_what_one_request_does_not(tmp_path: Path) -> None:
    shop = Shop(items=lambda path: Reply(status=500) if "page=" in path else ITEMS, about=ABOUT)
    found, part = await checked(shop, tmp_path, openapi_cases=30)
    assert found is not None
    assert found.requests == 32
    assert part.failing == ("contract: GET /items: answered 500",)
    assert (part.passed, part.failed) == (1, 1)
    line = found.problems[0].partition("; ")[2]
    assert line.startswith("curl -sS -X GET -H 'penstock-release: shop-new' ")
    assert "the-token" not in line
    assert shlex.split(line)[6].startswith(f"{shop.url}/items?page=")


BAD = {
    "hangs": (Reply(seconds=60), "no answer: TimeoutError"),
    "endless": (Reply(endless=True), "no answer: ValueError"),
    "long": (Reply(["a" * MAX_BODY]), "too much to check"),
    "elsewhere": (Reply(status=302, headers={"location": "http://192.0.2.1/"}), "answered 302, which is not"),
    "page": (Reply("<html>sign in</html>", kind="text/html"), "with text/html; documented"),
    "another release": (Reply([], release="shop-old"), "answered by shop-old"),
    "other shape": (Reply([{"id": "hunter2"}]), "$[0].id is not of type integer"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_answers(name: str, tmp_path: Path) -> None:
    reply, problem = BAD[name]
    found, part = await checked(Shop(items=reply, about=ABOUT), tmp_path)
    assert problem in part.failing[0]
    assert found is not None
    assert "hunter2" not in json.dumps([found.problems, part.failing])


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply("<html>", kind="text/html"), "not an OpenAPI 3.x document"),
        (Reply(status=404), "gave no document: answered 404"),
        (Reply(status=302, headers={"location": "http://192.0.2.1/"}), "gave no document: answered 302"),
        (Reply(" " * (MAX_BYTES + 1)), "larger than"),
        (Reply(DOCUMENT, release="shop-old"), "gave no document"),
        (Reply(endless=True), "gave no document"),
    ],
)
async def test_a_served_document_that_is_none(reply: Reply, problem: str, tmp_path: Path) -> None:
    found, part = await checked(Shop(**{"openapi.json": reply}), tmp_path, openapi="/openapi.json")
    assert found is None
    assert problem in part.failing[0]
    assert part.failing[0].startswith("contract: /openapi.json")


async def test_a_document_may_be_served(tmp_path: Path) -> None:
    shop = Shop(items=ITEMS, about=ABOUT, **{"openapi.json": Reply(DOCUMENT)})
    found, part = await checked(shop, tmp_path, openapi="/openapi.json")
    assert (part.passed, part.failed) == (2, 0)
    assert found is not None


async def test_a_document_is_of_the_repository(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "private.yaml"
    tree.mkdir()
    outside.write_text(DOCUMENT)
    (tree / "link.yaml").symlink_to(outside)
    for name in ("link.yaml", "gone.yaml", "../private.yaml"):
        _, part = await checked(Shop(), tree, openapi=name)
        assert part.failing == (f"contract: {name}: there is no such file in the repository",)


async def test_a_change_without_a_repository_has_no_file_to_check() -> None:
    config = AcceptanceConfig(openapi="openapi.yaml")
    found, part = await contract.check(config, None, Shop().way)
    assert (found, part.failed, part.passed) == (None, 0, 0)
    assert "no contract was checked" in part.words


# --- the process that reads documents --------------------------------------------------------------------

ENDLESS = DOCUMENT.replace("{type: integer}}}", "{type: string, pattern: '^(a+)+$'}}}")


async def test_a_pattern_that_never_ends_is_ended(tmp_path: Path) -> None:
    shop = Shop(items=Reply([{"id": "a" * 60 + "!"}]), about=ABOUT)
    began = time.monotonic()
    _, part = await checked(shop, tmp_path, ENDLESS, Reader(seconds=3))
    assert "it was ended: reading by it" in part.failing[0]
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("code", ["import os; os._exit(9)", "print('no json')"])
async def test_a_process_that_does_not_answer(code: str, tmp_path: Path) -> None:
    reader = Reader(command=(sys.executable, "-c", code))
    _, part = await checked(Shop(), tmp_path, reader=reader)
    assert "it was ended: reading by it" in part.failing[0]


async def test_cancelling_ends_the_process(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    work = asyncio.create_task(checked(Shop(), tmp_path, reader=Reader(command=(sys.executable, "-c", code))))
    async with asyncio.timeout(20):
        while not file.exists() or not file.read_text():
            await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not Path(f"/proc/{file.read_text()}").exists()
