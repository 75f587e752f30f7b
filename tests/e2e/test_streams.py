"""A stream of events and a WebSocket of users, while release after release is promoted: they stay where they
began, and are cut when that release's time to drain is over, which the step says."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.machine import CONFIG, Machine, machine
from tests.e2e.test_together import step
from tests.fault.rig import POLICY

#: Streams go on until they are killed: nothing here ends by itself.
SERVICE = """\
import base64, hashlib, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "v1"
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        key = self.headers.get("sec-websocket-key")
        if key:
            accept = base64.b64encode(hashlib.sha1((key + MAGIC).encode()).digest()).decode()
            self.write("HTTP/1.1 101 Switching Protocols", "upgrade: websocket", "connection: upgrade",
                       "sec-websocket-accept: " + accept)
            self.talk(b"%s\\n")
        elif self.path == "/events":
            self.write("HTTP/1.1 200 OK", "content-type: text/event-stream", "connection: close")
            self.talk(b"data: %s\\n\\n")
        else:
            self.write("HTTP/1.1 200 OK", "content-length: 2")
            self.wfile.write(b"ok")
    def write(self, *lines):
        self.wfile.write("\\r\\n".join((*lines, "", "")).encode())
    def talk(self, form):
        while True:
            self.wfile.write(form % VERSION.encode())
            time.sleep(0.05)
    def log_message(self, *_):
        pass

import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever(0.05)
"""
#: As little of HTTP/2 as a server can do with: each request is answered with 200, and nothing else.
HTTP2 = """\
import os, socket, threading

def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

def serve(connection):
    file = connection.makefile("rb")
    if file.read(24) != b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n":
        return connection.close()
    connection.sendall(frame(4, 0, 0))
    while head := file.read(9):
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        payload = file.read(int.from_bytes(head[:3], "big"))
        if kind in (4, 6) and not flags & 1:  # settings, ping
            connection.sendall(frame(kind, 1, 0, payload if kind == 6 else b""))
        if kind == 1:
            connection.sendall(frame(1, 5, stream, bytes([0x88])))

listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
QUICK = "canary: {steps: [50], seconds_per_step: 0.3, look_every: 0.3, patience: 0}"
OWN = "drain_seconds: 2\ntraffic: {timeout_seconds: 1}"


class User(threading.Thread):
    """Reads one stream to its end."""

    def __init__(self, address: str, *lines: str) -> None:
        super().__init__(daemon=True)
        parts = urlsplit(address)
        self.seen: list[bytes] = []
        self._connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
        self._connection.sendall("\r\n".join((*lines, f"host: {parts.netloc}", "", "")).encode())
        self.start()

    def run(self) -> None:
        with closing(self._connection), self._connection.makefile("rb") as file:
            try:
                self.seen.extend(iter(file.readline, b""))
            except OSError:
                return

    def sees(self, version: str, more: int = 5) -> bool:
        """Whether it hears *more* of that version now."""
        before, deadline = len(self.seen), time.monotonic() + 20
        while time.monotonic() < deadline:
            if sum(version.encode() in line for line in self.seen[before:]) >= more:
                return True
            time.sleep(0.02)
        return False


def users(m: Machine) -> tuple[User, User]:
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13")
    return (
        User(m.address(), "GET /events HTTP/1.1", "connection: close"),
        User(m.address(), "GET /ws HTTP/1.1", *upgrade, f"sec-websocket-key: {key}"),
    )


def deliver(m: Machine, version: str) -> str:
    """The words of its promotion."""
    kept = [line for line in CONFIG.splitlines() if not line.startswith("canary:")]
    served = SERVICE.replace('VERSION = "v1"', f'VERSION = "{version}"')
    m.commit(version, serve__py=served, penstock__yaml="\n".join([*kept, QUICK, OWN]))
    view = m.deliver()
    assert view["outcome"] == "promoted", view["reason"]
    return str(step(view, "promote/promote/0")["reason"])


@pytest.mark.long
def test_streams_outlive_switches_and_end_with_their_release(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        policy = m.folder / "operations-lead.yaml"
        policy.write_text(POLICY)
        m.penstock("policy", "publish", str(policy))
        deliver(m, "v1")
        first = users(m)
        assert all(user.sees("v1") for user in first)
        deliver(m, "v2")
        second = users(m)
        # v1 is kept warm for an instant rollback, and nobody is cut off for it.
        assert all(user.sees("v2") for user in second)
        assert all(user.sees("v1", more=40) for user in first), "longer than an answer may take to begin"
        with m.load(40) as file:
            words = deliver(m, "v3")
        assert "still at work 2 s after SIGTERM, and was killed" in words
        for user in first:
            user.join(10)
            assert not user.is_alive()
            assert not any(b"v2" in line or b"v3" in line for line in user.seen)
        assert all(user.sees("v2") for user in second)
        counts = json.loads(file.read_text())
        assert counts["failed_by_switching"] == 0, counts["errors"]


@pytest.mark.long
def test_a_service_that_speaks_nothing_but_http2_is_delivered(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        m.commit("v1", serve__py=HTTP2, penstock__yaml=f"{CONFIG}protocol: h2c\n")
        view = m.deliver()
        assert view["outcome"] == "promoted", view["reason"]
        assert "30 generated requests, 0 errors" in step(view, "acceptance/acceptance/0")["reason"]
