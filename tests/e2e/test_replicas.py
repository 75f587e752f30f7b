"""Several control planes on one PostgreSQL and one volume: none of them is needed for a delivery to go on.

Each has a data folder of its own, like a pod's, in which what is shared is a link to the volume.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from penstock.errors import Conflict
from tests.e2e.clustered import Town, town
from tests.e2e.machine import Machine
from tests.e2e.test_kubernetes import BROKEN, shop
from tests.fakes.postgres import PostgresServer
from tests.fakes.web import free_port

#: As deploy/kubernetes/replicas mounts them; the rest is the pod's own.
SHARED = ("keys", "artifacts", "log", "trust.json")
SECONDS = 60.0


class Pod(Machine):
    """One control plane. It is asked through its own socket."""

    def __init__(self, folder: Path, volume: Path, around: Town, store: str) -> None:
        super().__init__(folder)
        self.home.path.mkdir(parents=True)
        for name in SHARED:
            (self.home.path / name).symlink_to(volume / name)
        options = ["--cluster", str(around.file), "--port", str(free_port())]
        options += [] if self.sandboxed() else ["--unsandboxed-workloads"]
        self._command = [
            sys.executable,
            "-m",
            "penstock.cli.main",
            "up",
            "--foreground",
            "--replica",
            *options,
        ]
        self._store = store
        self._env = {**os.environ, "PENSTOCK_HOME": str(self.home.path), "PENSTOCK_STORE": store}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.home.api_socket.unlink(missing_ok=True)  # a pod's is gone with it
        with (self.folder / "out").open("ab") as out:
            self._process = subprocess.Popen(self._command, env=self._env, stdout=out, stderr=out)

    def ready(self) -> None:
        """Return once it answers."""
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "out").read_text()
            assert time.monotonic() < deadline, (self.folder / "out").read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.home.api_socket)) == 0

    def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        code = self._process.wait(SECONDS)
        self._process = None
        return code

    def rob(self) -> None:
        """Somebody else has each name, as if this one had not been heard of."""
        with psycopg.connect(self._store) as connection:
            connection.execute("UPDATE seats SET holder = 'somebody', until = until + 60")

    def close(self) -> None:
        super().close()
        if self._process is not None:
            self.end(signal.SIGKILL)


@contextmanager
def pods(folder: Path, postgres: PostgresServer, around: Town) -> Iterator[tuple[Pod, Pod]]:
    volume = folder / "volume"
    for name in SHARED[:3]:
        (volume / name).mkdir(parents=True, mode=0o700)
    store = postgres.url(postgres.schema())
    with ExitStack() as stack:
        found = [Pod(folder / name, volume, around, store) for name in "ab"]
        for pod in found:
            stack.callback(pod.close)
            pod.start()
        for pod in found:
            pod.ready()
        yield found[0], found[1]


def granted(pod: Machine) -> list[str]:
    """Who was let sign what machines see, in the ledger's order."""
    entries = pod.client.get("/v1/evidence", limit=500)["entries"]
    keys = [entry["index"] for entry in entries if entry["what"] == "KeyGrant"]
    said = [pod.client.get(f"/v1/evidence/{index}")["predicate"] for index in keys]
    return [one["identity"] for one in said]


@pytest.mark.timeout(240)
@pytest.mark.long
def test_each_goes_on_where_another_was_ended(short_tmp: Path, postgres: PostgresServer) -> None:
    with town(short_tmp / "t") as around, pods(short_tmp, postgres, around) as (a, b):
        assert sorted(granted(a)) == ["replica-1", "replica-2"]
        a.commit("v1", serve__py=shop("v1"))
        assert b.follow(a.ship())["outcome"] == "promoted"
        with around.users("/buy") as met:
            a.commit("v2", serve__py=shop("v2"))
            upgraded = a.ship()
            b.await_step(upgraded, "canary/look/0")
            assert a.end(signal.SIGTERM) == 0
            a.start()
            a.ready()
            assert b.end(signal.SIGTERM) == 0
            b.start()
            assert a.follow(upgraded)["outcome"] == "promoted"
            b.ready()
            a.commit("v3", serve__py=shop("v3", BROKEN))
            killed = a.ship()
            b.await_step(killed, "deploy/deploy/0")
            a.end(signal.SIGKILL)
            assert b.follow(killed)["outcome"] == "rolled-back"
        assert set(met) == {"200", "500"}, met
        assert sorted(granted(b)) == ["replica-1", "replica-2"], "a name is used again"
        assert b.penstock("ledger", "verify").returncode == 0
        b.rob()
        assert b.ended() == Conflict.exit_code
        assert "another one is replica-" in (b.folder / "out").read_text()
