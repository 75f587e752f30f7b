"""A whole Penstock on this machine for a test: started, used from outside, and certainly ended."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from penstock.bootstrap.home import Home
from penstock.cli.client import Client
from penstock.cli.follow import follow
from tests.fakes.web import free_port

SERVICE = """\
import json, os, signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = json.dumps({"version": VERSION, "colour": os.environ.get("COLOUR")}).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
    def log_message(self, *_):
        pass

VERSION = "v1"
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("serving", VERSION, flush=True)
server.serve_forever(0.05)
"""
CONFIG = """\
service: shop
run: python3 serve.py
health: /healthz
environment:
  COLOUR: {type: string, default: blue}
checks:
  tests: {run: python3 write_report.py, junit: junit.xml}
acceptance: {paths: [/], requests: 30, p95_ms: 1000}
canary: {steps: [20, 50], seconds_per_step: 3, look_every: 1, patience: 60}
"""
REPORT = """\
open("junit.xml", "w").write('<testsuite><testcase classname="shop" name="serves"/></testsuite>')
"""


class Machine:
    """One data folder, its processes, and a repository called ``shop``."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.repository = folder / "shop"
        self.folder = folder

    @functools.cached_property
    def client(self) -> Client:
        return Client.local(self.home)

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()

    def penstock(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PENSTOCK_HOME": str(self.home.path)}
        command = [sys.executable, "-m", "penstock.cli.main", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=110)
        if check and done.returncode != 0:
            raise AssertionError(f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def up(self, *more: str) -> dict[str, Any]:
        options = [] if self.sandboxed() else ["--unsandboxed-workloads"]
        ports = ["--port", str(free_port()), "--ingress-port", str(free_port())]
        started: dict[str, Any] = json.loads(
            self.penstock("up", *ports, *options, *more, "-o", "json").stdout
        )
        return started

    @staticmethod
    def sandboxed() -> bool:
        from penstock.adapters.bubblewrap import Bubblewrap
        from penstock.errors import Unavailable

        try:
            Bubblewrap.detect()
        except Unavailable:
            return False
        return True

    def commit(self, version: str, **files: str) -> str:
        """Commit the service as *version*, with other files in place of its own."""
        self.repository.mkdir(exist_ok=True)
        if not (self.repository / ".git").exists():
            git(self.repository, "init", "--quiet", "--initial-branch=main")
        written = {
            "serve.py": SERVICE.replace('VERSION = "v1"', f'VERSION = "{version}"'),
            "penstock.yaml": CONFIG,
            "write_report.py": REPORT,
            **{name.replace("__", "."): text for name, text in files.items()},
        }
        for name, text in written.items():
            (self.repository / name).write_text(text)
        git(self.repository, "add", "--all")
        message = f"Serve {version}\n\nRefs: T-1"
        git(self.repository, "commit", "--quiet", "--allow-empty", "--message", message)
        return git(self.repository, "rev-parse", "HEAD").strip()

    def ship(self) -> str:
        (delivery,) = self.client.post("/v1/ship", {"location": str(self.repository)})["deliveries"]
        return str(delivery)

    def deliver(self) -> dict[str, Any]:
        return self.follow(self.ship())

    def follow(self, delivery: str) -> dict[str, Any]:
        return follow(self.client, delivery, lambda _: None, 100)

    def await_step(self, delivery: str, key: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            view = self.client.get(f"/v1/deliveries/{delivery}")
            if key in [step["key"] for step in view["steps"]]:
                return
            assert not view["ended"], view
            time.sleep(0.05)
        raise AssertionError(f"{key} did not happen in {seconds} s")

    def pid(self, lock: Path) -> int:
        return int(lock.read_text())

    def kill(self, lock: Path) -> None:
        """kill -9 of the process that holds a lock, and of nothing else."""
        process = psutil.Process(self.pid(lock))
        process.send_signal(signal.SIGKILL)
        psutil.wait_procs([process], timeout=5)

    def kill_everything(self) -> None:
        """kill -9 of everything that runs out of this folder, until nothing does."""
        deadline = time.monotonic() + 20
        while self.processes() and time.monotonic() < deadline:
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if self._ours(process.as_dict(["cmdline", "environ"])):
                        process.kill()

    def address(self) -> str:
        (row,) = self.client.get("/v1/status")["services"]
        return str(row["address"])

    @contextmanager
    def load(self, rate: int = 100, address: str = "", name: str = "load.json") -> Iterator[Path]:
        """A steady load on the service; its counts are final once the block is left."""
        file = self.folder / name
        options = [
            "--url",
            f"{address or self.address()}/",
            "--rate",
            str(rate),
            "--seconds",
            "110",
            "--json",
            str(file),
        ]
        process = subprocess.Popen([sys.executable, "-m", "penstock.cli.load", *options])
        try:
            deadline = time.monotonic() + 20
            while not file.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            yield file
        finally:
            process.terminate()
            process.wait(30)

    def processes(self) -> list[str]:
        """Command lines of everything that still runs out of this folder."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            if self._ours(process.info):
                found.append(" ".join(process.info["cmdline"] or ()))
        return found

    def _ours(self, info: dict[str, Any]) -> bool:
        environment = info["environ"] or {}
        ours = environment.get("PENSTOCK_HOME") == str(self.home.path)
        return ours or str(self.home.path) in " ".join(info["cmdline"] or ())


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    made = Machine(folder)
    try:
        yield made
    finally:
        made.penstock("down", check=False)
        made.close()


def git(folder: Path, *arguments: str) -> str:
    roles = [f"GIT_{role}_{what}" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    env = {**os.environ, **dict.fromkeys(roles, "someone@example.com")}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
