"""Runs one host command to its end: what the two sandboxes share. Not an adapter, and not for others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from pathlib import Path

from penstock.adapters._output import Output, known_secrets
from penstock.adapters._spawned import Spawned
from penstock.core.workload import Step, StepResult

#: Settings of package clients and proxies that a step with a network inherits; nobody's right to publish.
CLIENTS = ("UV_", "PIP_", "NPM_CONFIG_", "npm_config_", "SSL_CERT_", "REQUESTS_CA_", "NODE_EXTRA_CA_")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
PRIVATE = re.compile(r"^UV_PUBLISH_|^UV_.*_CACHE_DIR$|TOKEN|PASSWORD|_AUTH$", re.IGNORECASE)


def inherited() -> dict[str, str]:
    """The settings of this machine that a step with a network needs to reach package registries."""
    return {
        name: os.environ[name]
        for name in os.environ
        if (name.startswith(CLIENTS) or name.lower() in PROXIES) and not PRIVATE.search(name)
    }


async def run_command(
    step: Step, command: tuple[str, ...], log: Path, inherit: tuple[int, ...] = ()
) -> StepResult:
    """Run *step*'s host *command* to its end in a process group of its own, its output appended to *log*.

    The command gets the descriptors to *inherit*.
    """
    began = time.monotonic()
    secrets, told = known_secrets(step.secrets, inherited())
    with contextlib.closing(Output(secrets)) as output, _Pipe(output) as pipe:
        try:
            process = Spawned.start(command, pipe.entrance, inherit)
        except OSError as error:
            output.open(log)
            output.write(f"{''.join(told)}{command[0]}: {error.strerror}\n".encode())
            return StepResult(127, f"{command[0]}: {error.strerror}", 0.0)
        timed_out = False
        try:
            # Beside the program's start; nothing of it is read yet.
            output.open(log)
            output.write("".join(told).encode())
            pipe.listen()
            async with asyncio.timeout(step.seconds):
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            # Also when we are cancelled, and also what a step left behind in its group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            # What left the group (possible without a sandbox) may hold the pipe open for ever.
            if not pipe.ended.done():
                await asyncio.wait([pipe.ended], timeout=2.0)
            code = await process.wait()
        output.close()
    words = output.last_words + (f"\n(ended after {step.seconds:.0f} s)" if timed_out else "")
    return StepResult(code, words, time.monotonic() - began, timed_out)


class _Pipe:
    """What a step writes into.

    A pipe of our own: asyncio's would make the step last as long as whoever it leaves behind.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._loop = asyncio.get_running_loop()
        #: Done once nobody holds the entrance, and everything was read.
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def __enter__(self) -> _Pipe:
        self._exit, self.entrance = os.pipe()
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._close_entrance()
        self._loop.remove_reader(self._exit)
        os.close(self._exit)

    def listen(self) -> None:
        """Read from now on; the entrance is the step's alone."""
        self._close_entrance()
        self._loop.add_reader(self._exit, self._read)

    def _read(self) -> None:
        if data := os.read(self._exit, 1 << 16):
            self._output.write(data)
        else:
            self._loop.remove_reader(self._exit)
            self.ended.set_result(None)

    def _close_entrance(self) -> None:
        if self._open:
            self._open = False
            os.close(self.entrance)
