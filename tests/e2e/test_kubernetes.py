"""The same repository and ``penstock.yaml``, delivered on this machine and in a cluster: the ledger tells the
same story, and nobody notices a switch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clustered import Town, town
from tests.e2e.machine import Machine, machine
from tests.fakes.web import free_port

#: Users buy, which no test asks for.
SHOP = """\
import json, os, signal, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = json.dumps({"version": VERSION}).encode()
        status = SOLD if self.path == "/buy" else b"200 OK"
        self.wfile.write(b"HTTP/1.1 %s\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (status, len(body), body))
    def log_message(self, *_):
        pass

VERSION = "v1"
SOLD = b"200 OK"
server = ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(0.05)
"""
BROKEN = SHOP.replace('SOLD = b"200 OK"', 'SOLD = b"500 Sold Out"')


def shop(version: str, text: str = SHOP) -> str:
    return text.replace('VERSION = "v1"', f'VERSION = "{version}"')


@contextmanager
def here(folder: Path) -> Iterator[Machine]:
    folder.mkdir()
    with machine(folder) as m:
        m.up()
        yield m


@contextmanager
def there(folder: Path, around: Town) -> Iterator[Machine]:
    folder.mkdir()
    with machine(folder) as m:
        options = [] if m.sandboxed() else ["--unsandboxed-workloads"]
        up = m.penstock("up", "--cluster", str(around.file), "--port", str(free_port()), *options)
        assert "releases run in a cluster" in up.stdout
        yield m


def first(m: Machine) -> list[str]:
    m.commit("v1", serve__py=shop("v1"))
    return told(m, m.deliver())


def later(m: Machine) -> list[str]:
    """A good version, and one that only users find out about; while they are there."""
    m.commit("v2", serve__py=shop("v2"))
    good = m.deliver()
    m.commit("v3", serve__py=shop("v3", BROKEN))
    return [*told(m, good), *told(m, m.deliver())]


def told(m: Machine, view: dict[str, Any]) -> list[str]:
    """How a delivery ended, and what the ledger says of it; how often a canary was looked at depends on when
    users come."""
    said = [f"{view['outcome']}: {view['id'].partition('-')[0]}"]
    for entry in m.client.get("/v1/evidence", delivery=view["id"], limit=500)["entries"]:
        predicate = m.client.get(f"/v1/evidence/{entry['index']}")["predicate"]
        if entry["what"] == "SignOff":
            decided = predicate["urn:penstock:decision:v1"]
            said.append(f"{decided['policy']} of {decided['action']}: {decided['verdict']}")
        elif entry["what"] != "Look":
            said.append(entry["what"])
    return said


@pytest.mark.timeout(240)
def test_the_same_story_on_a_machine_and_in_a_cluster(short_tmp: Path) -> None:
    with here(short_tmp / "m") as m:
        on_machine = first(m)
        with m.load(60, f"{m.address()}/buy") as file:
            on_machine += later(m)
        counts = json.loads(file.read_text())
        assert (counts["failed_by_switching"], counts["errors"]) == (0, {})
    print("\n".join(on_machine))
    with town(short_tmp) as around, there(short_tmp / "c", around) as m:
        in_cluster = first(m)
        with around.users("/buy") as met:
            in_cluster += later(m)
        assert m.penstock("ledger", "verify").returncode == 0
        print(met)
        assert set(met) == {"200", "500"}, met
        assert m.address() == "http://shop.example.org"
    print("\n".join(in_cluster))
    assert in_cluster == on_machine
