"""Services that talk for long: streams of events and WebSockets over HTTP/1.1, and gRPC.

Each says its name again and again, until it is killed. Must not end a stream by itself.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator

import grpc

EVERY_SECONDS = 0.05
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Talker:
    """HTTP/1.1: ``/events`` is a stream of events, ``/silent`` begins to answer and says no more, ``/late``
    never begins; an upgrade to a WebSocket is an echo, with its name before each line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def kill(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await self._answer(head, reader, writer)
                await writer.drain()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = head.split(" ", 2)[1]
        lines = (line.partition(":") for line in head.split("\r\n")[1:])
        headers = {name.lower(): value.strip() for name, _, value in lines}
        if headers.get("upgrade", "").lower() == "websocket":
            await self._echo(headers["sec-websocket-key"], reader, writer)
        elif path == "/late":
            await asyncio.Event().wait()
        elif path in ("/events", "/silent"):
            kind = b"content-type: text/event-stream\r\ntransfer-encoding: chunked"
            writer.write(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n\r\n" + _chunk(self._name))
            while path == "/events":
                await writer.drain()
                await asyncio.sleep(EVERY_SECONDS)
                writer.write(_chunk(self._name))
            await asyncio.Event().wait()
        else:
            body = self._name.encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async def _echo(self, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accept = base64.b64encode(hashlib.sha1(f"{key}{MAGIC}".encode()).digest()).decode()
        lines = ("HTTP/1.1 101 Switching Protocols", "upgrade: websocket", "connection: upgrade")
        writer.write("\r\n".join((*lines, f"sec-websocket-accept: {accept}", "", "")).encode())
        while True:
            writer.write(self._name.encode() + b" " + await reader.readline())
            await writer.drain()


def _chunk(name: str) -> bytes:
    event = f"data: {name}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)


class GrpcTalker:
    """gRPC, so HTTP/2 without TLS: ``/talk/Once``, ``/talk/Stream`` and ``/talk/Chat``; ``/talk/Fail`` sends
    its name and ends with the status that was asked for, and ``/talk/Late`` never answers."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()

    async def start(self) -> None:
        self._server = grpc.aio.server()
        methods = {
            "Once": grpc.unary_unary_rpc_method_handler(self._once),
            "Stream": grpc.unary_stream_rpc_method_handler(self._stream),
            "Fail": grpc.unary_stream_rpc_method_handler(self._fail),
            "Late": grpc.unary_unary_rpc_method_handler(self._late),
            "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
        }
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("talk", methods)])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def kill(self) -> None:
        await self._server.stop(None)

    async def _once(self, asked: bytes, _: object) -> bytes:
        return self._name + b" " + asked

    async def _stream(self, _asked: bytes, _: object) -> AsyncIterator[bytes]:
        while True:
            yield self._name
            await asyncio.sleep(EVERY_SECONDS)

    async def _fail(self, asked: bytes, call: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        yield self._name
        await call.abort(grpc.StatusCode[asked.decode()], "as asked")

    async def _late(self, _asked: bytes, _: object) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def _chat(self, asked: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for message in asked:
            yield self._name + b" " + message
