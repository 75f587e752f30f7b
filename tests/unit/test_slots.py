"""What one token, or everybody together, may have the server do at once: whoever is next is told so."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from fakes.language import FakeLanguage
from penstock.bootstrap.home import Home
from penstock.errors import Unavailable
from penstock.server import api, app, policies
from penstock.server.guard import STREAMS_OF_ONE, Guard
from penstock.server.slots import Slots

POLICY = """
policy: tests
owner: test-lead
language: fake
guards: [deploy]
environments: [production]
rules:
  - id: passed
    when: "evidence.tests.passed > 0"
    say: "'passed'"
    else: "'failed'"
"""


def test_a_slot_is_free_again_however_its_block_ends() -> None:
    slots = Slots(2)
    with slots.one("ann") as first, contextlib.suppress(ValueError), slots.one("ann") as second:
        with slots.one("ann") as third, slots.one("bob") as another:
            assert (first, second, third, another) == (True, True, False, True)
        raise ValueError
    with slots.one("ann") as one, slots.one("ann") as two:
        assert one
        assert two


class Streams:
    """An application that goes on answering until it is told to end; *open* counts what it answers."""

    def __init__(self) -> None:
        self.open = 0
        self.end = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.open += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"].endswith("/events"):
            await self.end.wait()
        await send({"type": "http.response.body", "body": b""})
        self.open -= 1


async def asked(guard: Guard, path: str) -> tuple[int, bytes]:
    said: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await guard({"type": "http", "method": "GET", "path": path, "headers": []}, None, send)
    return said[0]["status"], said[-1]["body"]


async def test_event_streams_of_one_leave_connections_to_the_others() -> None:
    streams = Streams()
    guard = Guard(streams, None, trusted=True)  # type: ignore[arg-type]
    following = [asyncio.create_task(asked(guard, "/v1/events")) for _ in range(STREAMS_OF_ONE)]
    await until(lambda: streams.open == STREAMS_OF_ONE)

    status, body = await asked(guard, "/v1/deliveries/x/logs/build/events")
    assert status == 429
    assert "64 event streams open already" in json.loads(body)["what"]
    assert json.loads(body)["next"]
    assert (await asked(guard, "/v1/status"))[0] == 200

    streams.end.set()
    assert {status for status, _ in await asyncio.gather(*following)} == {200}
    assert (await asked(guard, "/v1/events"))[0] == 200


class SlowStore:
    """Whoever reads waits, and finds in the end that it is of no use."""

    def __init__(self) -> None:
        self.readers = 0
        self.end = asyncio.Event()

    @contextlib.asynccontextmanager
    async def transaction(self, *, write: bool) -> AsyncIterator[None]:
        self.readers += 1
        await self.end.wait()
        raise Unavailable("the store has gone")
        yield


@pytest.mark.parametrize(
    ("routes", "path", "body"),
    [
        (api._ledger, "/ledger/verify", {}),
        (policies.routes, "/policies/replay", {"source": POLICY}),
    ],
)
async def test_what_takes_a_processor_is_done_once_at_a_time(
    tmp_path: Path, routes: Callable[[APIRouter, Any], None], path: str, body: dict[str, str]
) -> None:
    home, store = Home(tmp_path), SlowStore()
    home.trust.write_text(json.dumps({"origin": "o", "log_key": "", "genesis": ""}))
    server, router = FastAPI(), APIRouter()
    routes(router, SimpleNamespace(home=home, store=store, languages={"fake": FakeLanguage()}))
    server.include_router(router)
    app._answer_errors(server, SimpleNamespace())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url="http://x") as client:
        first = asyncio.create_task(client.post(path, json=body))
        await until(lambda: store.readers == 1)
        second = await client.post(path, json=body)
        assert second.status_code == 503
        assert "already" in second.json()["what"]
        assert second.json()["next"] == "wait until that is done"

        store.end.set()
        assert (await first).json()["what"] == "the store has gone"
        assert (await client.post(path, json=body)).json()["what"] == "the store has gone"


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not met():
            await asyncio.sleep(0)
