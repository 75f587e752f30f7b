"""Runs one host command to its end: what the two sandboxes share. Not an adapter, and not for others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from penstock.core.tail import LIMIT, tail
from penstock.core.workload import StepResult

#: How much of a step's output is kept; what comes later is only in its tail.
LOG_BYTES = 64 * 1024**2
#: Settings of package clients and proxies that a step with a network inherits; nobody's right to publish.
CLIENTS = ("UV_", "PIP_", "NPM_CONFIG_", "npm_config_", "SSL_CERT_", "REQUESTS_CA_", "NODE_EXTRA_CA_")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
PRIVATE = re.compile(r"^UV_PUBLISH_|^UV_.*_CACHE_DIR$|TOKEN|PASSWORD|_AUTH$", re.IGNORECASE)


def inherited() -> dict[str, str]:
    """The settings of this machine that a step with a network needs to reach package registries."""
    return {
        name: value
        for name, value in os.environ.items()
        if (name.startswith(CLIENTS) or name.lower() in PROXIES) and not PRIVATE.search(name)
    }


async def run_command(
    command: tuple[str, ...], env: Mapping[str, str], seconds: float, log: Path, cwd: str | None = None
) -> StepResult:
    """Run a host command to its end in a process group of its own, its output appended to *log*."""
    began = time.monotonic()
    with log.open("ab") as output, _Said(output) as said:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=said.entrance,
                stderr=said.entrance,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            output.write(f"{command[0]}: {error.strerror}\n".encode())
            return StepResult(127, f"{command[0]}: {error.strerror}", 0.0)
        reading = asyncio.ensure_future(said.everything())
        timed_out = False
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            # Also when we are cancelled, and also what a step left behind in its group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            # What left the group (possible without a sandbox) may hold the pipe open for ever.
            await asyncio.wait([reading], timeout=2.0)
            reading.cancel()
        code = await process.wait()
    words = tail(said.end) + (f"\n(ended after {seconds:.0f} s)" if timed_out else "")
    return StepResult(code, words, time.monotonic() - began, timed_out)


class _Said:
    """What a step wrote: the beginning in its log, the end at hand.

    A pipe of our own: asyncio's would make the step last as long as whoever it leaves behind.
    """

    def __init__(self, log: BinaryIO) -> None:
        self.end = b""
        self._log = log
        self._room = LOG_BYTES

    def __enter__(self) -> _Said:
        exit_end, self.entrance = os.pipe()
        self._exit = os.fdopen(exit_end, "rb", buffering=0)
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._close_entrance()
        self._exit.close()

    async def everything(self) -> None:
        """Read until nobody holds the entrance."""
        self._close_entrance()
        stream = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), self._exit)
        try:
            while data := await stream.read(1 << 16):
                self._keep(data)
        finally:
            transport.close()

    def _close_entrance(self) -> None:
        if self._open:
            self._open = False
            os.close(self.entrance)

    def _keep(self, data: bytes) -> None:
        self.end = (self.end + data)[-4 * LIMIT :]
        if self._room > 0:
            self._log.write(data[: self._room])
            self._log.flush()
            self._room -= len(data)
            if self._room <= 0:
                self._log.write(b"\n(the rest of the output is not kept)\n")
