"""The same repository and ``penstock.yaml``, delivered on this machine and in a cluster: the ledger tells the
same story, and nobody notices a switch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.testing.kubernetes.kinds import JOBS
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
        status = SOLD if self.path.startswith("/buy") else b"200 OK"
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
#: Found by stages that run side by side.
BESIDE = {"TestResult", "Findings", "Coverage"}


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
    return [m.deliver()["outcome"]]


def later(m: Machine) -> list[str]:
    """A good version, and one that only users find out about; while they are there."""
    m.commit("v2", serve__py=shop("v2"))
    good = m.deliver()
    m.commit("v3", serve__py=shop("v3", BROKEN))
    return [good["outcome"], m.deliver()["outcome"]]


def told(m: Machine) -> list[str]:
    """What the ledger tells, in its order. How often a canary was looked at depends on when users come; what
    is found side by side stands in any order."""
    said: list[str] = []
    for entry in m.client.get("/v1/evidence", limit=500)["entries"]:
        if entry["what"] == "SignOff":
            said.append(decision(m.client.get(f"/v1/evidence/{entry['index']}")["predicate"]))
        elif entry["what"] in BESIDE and said[-1].partition(" ")[0] in BESIDE:
            said[-1] = " ".join(sorted((*said[-1].split(), entry["what"])))
        elif entry["what"] != "Look":
            said.append(entry["what"])
    return said


def built_in(m: Machine) -> set[str]:
    """How each build was kept apart from the rest, as the ledger tells."""
    entries = m.client.get("/v1/evidence", limit=500)["entries"]
    built = [entry["index"] for entry in entries if entry["what"] == "Provenance"]
    said = (m.client.get(f"/v1/evidence/{index}")["predicate"] for index in built)
    return {one["buildDefinition"]["internalParameters"]["isolation"] for one in said}


def check_steps(m: Machine, around: Town) -> None:
    """Builds, scans and tests ran in the cluster, and it keeps nothing of them."""
    if not around.runs_steps:
        return
    jobs = [asked for asked in around.cluster.asked if asked == "patch jobs"]
    assert len(jobs) >= 3 * 2  # of each version at least the build and its tests
    assert built_in(m) == {"container"}
    assert around.cluster.api.all(JOBS) == []


def ran_on(m: Machine) -> set[str]:
    """The bases that the ledger tells of: one for each release that was deployed."""
    entries = m.client.get("/v1/evidence", limit=500)["entries"]
    deployed = [entry["index"] for entry in entries if entry["what"] == "Deployed"]
    return {m.client.get(f"/v1/evidence/{index}")["predicate"]["base"] for index in deployed}


def decision(sign_off: dict[str, Any]) -> str:
    decided = sign_off["urn:penstock:decision:v1"]
    return f"{decided['policy']} of {decided['action']}: {decided['verdict']}"


@pytest.mark.timeout(240)
@pytest.mark.long
def test_the_same_story_on_a_machine_and_in_a_cluster(short_tmp: Path) -> None:
    with here(short_tmp / "m") as m:
        outcomes = first(m)
        with m.load(60, f"{m.address()}/buy") as file:
            outcomes += later(m)
        on_machine = told(m)
        counts = json.loads(file.read_text())
        assert (counts["failed_by_switching"], counts["errors"]) == (0, {})
    with town(short_tmp) as around, there(short_tmp / "c", around) as m:
        in_cluster = first(m)
        with around.users("/buy") as met:
            in_cluster += later(m)
        assert in_cluster == outcomes == ["promoted", "promoted", "rolled-back"]
        assert told(m) == on_machine
        assert ran_on(m) == {around.base}
        check_steps(m, around)
        assert m.penstock("ledger", "verify").returncode == 0
        assert set(met) == {"200", "500"}, met
        assert m.address() == f"http://shop.example.org:{around.proxy.port}"


@pytest.mark.long
def test_whoever_has_no_cluster_can_have_one_to_try(short_tmp: Path) -> None:
    """As docs/guides/kubernetes.md has it; it goes when it is interrupted."""
    command = [sys.executable, "-m", "tests.e2e.clustered", str(short_tmp / "town")]
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root / "tests")}
    with (
        subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True) as stands,
        machine(short_tmp) as m,
    ):
        assert stands.stdout is not None
        try:
            told = stands.stdout.readline().split()
            if not told:
                pytest.skip("no registry or no Prometheus here")
            assert told[:3] == ["penstock", "up", "--cluster"]
            options = [] if m.sandboxed() else ["--unsandboxed-workloads"]
            m.penstock(*told[1:], "--port", str(free_port()), *options)
            found = json.loads(m.penstock("doctor", "-o", "json").stdout)
            assert [one["good"] for one in found if one["what"] == "cluster"] == [True]
        finally:
            stands.send_signal(signal.SIGINT)
        assert stands.wait(60) == 0
