"""Who speaks HTTP/2 is known by its greeting: a server of HTTP/1.1 on that port is not ready."""

from __future__ import annotations

import contextlib

import pytest

from fakes.streams import GrpcTalker, Talker
from fakes.web import free_port
from penstock.adapters.processes.probes import answers, speaks_http2


@pytest.mark.parametrize(("kind", "speaks"), [(GrpcTalker, True), (Talker, False)])
async def test_a_greeting_tells(kind: type[GrpcTalker] | type[Talker], speaks: bool) -> None:
    talker = kind("web-1")
    await talker.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(talker.kill)
        assert await speaks_http2(talker.address, 1.0) is speaks
        assert await answers(talker.address, "/", 1.0) is not speaks


async def test_nobody_there_speaks_nothing() -> None:
    assert not await speaks_http2(f"127.0.0.1:{free_port()}", 1.0)
    assert not await speaks_http2("unix:/nowhere/at.sock", 1.0)
