"""The load against a server that misbehaves on demand: what is failed by switching, and what is not."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from penstock.checks.sending import Bounds, Target
from penstock.cli.load import Counts, get, run

WAIT = 20.0
Act = Callable[[asyncio.StreamWriter], Awaitable[bool]]


def says(text: str) -> Act:
    """Answer with these bytes; the connection stays open."""

    async def act(writer: asyncio.StreamWriter) -> bool:
        writer.write(text.encode())
        return True

    return act


def answer(status: int = 200, body: str = "hello", **headers: str) -> str:
    named = {"x-penstock-release": "web-1", **{k.replace("_", "-"): v for k, v in headers.items()}}
    lines = [f"{name}: {value}" for name, value in named.items() if value]
    return "\r\n".join([f"HTTP/1.1 {status} Word", *lines, f"Content-Length: {len(body)}", "", body])


def then_closes(text: str = "") -> Act:
    """Answer with these bytes, then close in good order."""

    async def act(writer: asyncio.StreamWriter) -> bool:
        writer.write(text.encode())
        return False

    return act


async def resets(writer: asyncio.StreamWriter) -> bool:
    plug: socket.socket = writer.get_extra_info("socket")
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def answers_then_resets(writer: asyncio.StreamWriter) -> bool:
    writer.write(answer().encode())
    await writer.drain()
    return await resets(writer)


OK: Act = says(answer())


class Server:
    """Does what its script says, one act a request, then the last act for ever."""

    def __init__(self) -> None:
        self.script: list[Act] = [OK]
        self.paths: list[str] = []
        self.connections = 0
        self.closed = 0
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        going = True
        try:
            while going:
                head = await reader.readuntil(b"\r\n\r\n")
                self.paths.append(head.decode().split(" ")[1])
                act = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                going = await act(writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        writer.close()
        self.closed += 1


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    yield made
    listening.close()


async def ask(server: Server, *script: Act, times: int = 1, seconds: float = WAIT) -> Counts:
    """Send *times* requests one after the other over one connection pool."""
    server.script = list(script) or [OK]
    counts, target = Counts(), Target(server.url, Bounds(seconds))
    for _ in range(times):
        await get(target, counts)
        await asyncio.sleep(0)
    target.close()
    return counts


def outcome(counts: Counts) -> tuple[int, int, int]:
    return counts.requests, counts.failed_by_switching, counts.retried


# --- what the application answers -------------------------------------------------------------------


async def test_answers_are_counted_to_their_release(server: Server) -> None:
    other = says(answer(x_penstock_release="web-2"))
    counts = await ask(server, OK, says(answer(500)), other, says(answer(404)), times=4)
    assert outcome(counts) == (4, 0, 0)
    assert counts.document()["by_release"] == {
        "web-1": {"requests": 3, "errors": 1},
        "web-2": {"requests": 1, "errors": 0},
    }


async def test_connections_are_kept(server: Server) -> None:
    await ask(server, times=5)
    assert (server.connections, server.paths) == (1, ["/"] * 5)


async def test_the_query_is_sent(server: Server) -> None:
    server.url += "items?page=2"
    await ask(server)
    assert server.paths == ["/items?page=2"]


CHUNKED = (
    "HTTP/1.1 200 OK\r\nx-penstock-release: web-1\r\nTransfer-Encoding: chunked\r\n\r\n"
    "5;note=x\r\nhello\r\n1\r\n!\r\n0\r\nx-checksum: 1\r\nx-more: 2\r\n\r\n"
)
EMPTY = "HTTP/1.1 204 No Content\r\nx-penstock-release: web-1\r\n\r\n"


@pytest.mark.parametrize("text", [CHUNKED, EMPTY, answer(body="")], ids=["chunked", "204", "empty"])
async def test_the_next_answer_is_found_behind_any_body(server: Server, text: str) -> None:
    counts = await ask(server, says(text), OK, times=2)
    assert (outcome(counts), server.connections) == ((2, 0, 0), 1)


async def test_a_body_without_an_end_of_its_own_ends_the_connection(server: Server) -> None:
    endless = "HTTP/1.1 200 OK\r\nx-penstock-release: web-1\r\n\r\nhello"
    counts = await ask(server, then_closes(endless), OK, times=2)
    assert (outcome(counts), server.connections) == ((2, 0, 0), 2)


async def test_a_connection_that_the_server_gives_up_is_not_kept(server: Server) -> None:
    counts = await ask(server, says(answer(connection="close")), OK, times=2)
    assert (outcome(counts), server.connections) == ((2, 0, 0), 2)


# --- failed by switching ----------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["NR", "NC", "UH", "UF", "UO", "UC", "UR", "UT", "LR", "UF,URX"])
async def test_the_proxys_own_answers_fail_by_switching(server: Server, flag: str) -> None:
    counts = await ask(server, says(answer(503, x_penstock_flags=flag)))
    assert (outcome(counts), counts.by_release) == ((1, 1, 0), {})


async def test_another_flag_is_reported_but_not_a_switching_failure(server: Server) -> None:
    counts = await ask(server, says(answer(503, x_penstock_flags="FI")))
    assert (outcome(counts), counts.errors) == ((1, 0, 0), {"503 FI": 1})


async def test_an_answer_of_no_release_fails(server: Server) -> None:
    counts = await ask(server, says(answer(503, x_penstock_release="")))
    assert outcome(counts) == (1, 1, 0)


BROKEN: dict[str, Act] = {
    "reset": resets,
    "closed": then_closes(),
    "half a head": then_closes("HTTP/1.1 200 OK\r\nConte"),
    "half a body": then_closes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel"),
    "not HTTP": says("220 mail.example.com\r\n\r\n"),
    "no status": says("HTTP/1.1\r\n\r\n"),
    "no length": says("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
    "no chunk size": says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "endless head": says("HTTP/1.1 200 OK\r\n" + "x: y\r\n" * 40_000),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_new_connection_that_breaks_fails(server: Server, name: str) -> None:
    assert outcome(await ask(server, BROKEN[name])) == (1, 1, 0)


@pytest.mark.parametrize("name", sorted(BROKEN.keys() - {"closed"}))
async def test_a_kept_connection_that_breaks_fails(server: Server, name: str) -> None:
    assert outcome(await ask(server, OK, BROKEN[name], OK, times=2)) == (2, 1, 0)


async def test_a_kept_connection_that_closes_unanswered_is_tried_again_once(server: Server) -> None:
    assert outcome(await ask(server, OK, then_closes(), OK, times=2)) == (2, 0, 1)


async def test_the_second_try_is_the_last(server: Server) -> None:
    assert outcome(await ask(server, OK, then_closes(), then_closes(), OK, times=2)) == (2, 1, 1)


@pytest.mark.parametrize("ending", [then_closes(answer()), answers_then_resets], ids=["closed", "reset"])
async def test_a_connection_that_ends_while_idle_costs_nothing(server: Server, ending: Act) -> None:
    server.script = [ending, OK]
    counts, target = Counts(), Target(server.url, Bounds(WAIT))
    await get(target, counts)
    async with asyncio.timeout(WAIT):
        while not server.closed:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
    await get(target, counts)
    target.close()
    assert outcome(counts) == (2, 0, 0)


async def test_nobody_there_fails() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        counts, target = Counts(), Target(f"http://127.0.0.1:{free.getsockname()[1]}/", Bounds(WAIT))
        await get(target, counts)
    assert outcome(counts) == (1, 1, 0)


async def test_an_answer_that_does_not_come_fails(server: Server) -> None:
    assert outcome(await ask(server, says(""), seconds=0.05)) == (1, 1, 0)


# --- the process ------------------------------------------------------------------------------------


async def test_it_ends_by_itself_and_leaves_its_counts(server: Server, tmp_path: Path) -> None:
    counts = await run([server.url, server.url + "b"], 200, 0.2, tmp_path / "load.json")
    written = json.loads((tmp_path / "load.json").read_text())
    assert written == counts.document()
    assert written["requests"] == len(server.paths) == written["by_release"]["web-1"]["requests"] > 0
    assert set(server.paths) == {"/", "/b"}
    assert written["latency_ms"].keys() == {"p50", "p95", "p99"}


async def test_sigterm_finishes_what_is_in_flight(server: Server, tmp_path: Path) -> None:
    told = asyncio.Event()

    async def waits(writer: asyncio.StreamWriter) -> bool:
        await told.wait()
        return await OK(writer)

    server.script = [waits]
    file = tmp_path / "load.json"
    options = ["--url", server.url, "--rate", "50", "--seconds", "inf", "--json", str(file)]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "penstock.cli.load", *options)
    try:
        async with asyncio.timeout(WAIT):
            while len(server.paths) < 3 or not file.exists():
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            told.set()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
    written = json.loads(file.read_text())
    assert written["by_release"] == {"web-1": {"requests": len(server.paths), "errors": 0}}
    assert (written["requests"], written["failed_by_switching"]) == (len(server.paths), 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--rate", "0"),
        ("--rate", "fast"),
        ("--seconds", "-1"),
        ("--url", "127.0.0.1:8600"),
        ("--url", "https://127.0.0.1/"),
        ("--json", "/nowhere/at/all/load.json"),
    ],
)
def test_wrong_usage_is_told_without_a_traceback(tmp_path: Path, option: str, value: str) -> None:
    given = {"--url": "http://127.0.0.1:1/", "--json": str(tmp_path / "load.json"), option: value}
    options = [f"{name}={text}" for name, text in given.items()]
    command = [sys.executable, "-m", "penstock.cli.load", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 2
    assert option in done.stderr
    assert "Traceback" not in done.stderr


def test_percentiles_are_of_what_was_seen() -> None:
    counts = Counts(latencies=[n / 1000 for n in range(100, 0, -1)])
    assert counts.document()["latency_ms"] == {"p50": 51.0, "p95": 96.0, "p99": 100.0}
    assert Counts().document()["latency_ms"] == {}
