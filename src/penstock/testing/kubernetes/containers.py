"""What runs in a pod: a real process of this machine, or a stub that leads a chosen life.

Called by `kubelet`. A process gets an address of its own on loopback (Linux has all of 127/8), told in
``HOST``; it has no network namespace, no user and no file system of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil

Object = dict[str, Any]
#: Where images have their programs.
FOLDERS = ("usr/local/bin", "usr/bin", "bin")


@dataclass(frozen=True)
class Behaviour:
    """How pods of an image live. With *root*, the folder in which the image's ``/app`` is unpacked, their
    command runs as a process; else they are stubs: *life* ``serve`` is ready, ``deaf`` never is, ``crash``
    prints *output* and ends with *exit_code*. *trouble* meets them before that. *env* is the image's own. If
    *sealed*, a process finds the programs that are in the image, and no others of this machine by their
    names."""

    root: Path | None = None
    life: Literal["serve", "deaf", "crash"] = "serve"
    trouble: Literal["", "image-pull", "unschedulable"] = ""
    exit_code: int = 1
    output: tuple[str, ...] = ("hello",)
    message: str = "on demand"
    env: Mapping[str, str] = field(default_factory=dict)
    sealed: bool = False

    @property
    def path(self) -> str:
        """Where programs are looked for."""
        if not self.sealed:
            return os.environ.get("PATH", "")
        return ":".join(f"{self.root}/{folder}" for folder in FOLDERS)


class StartError(Exception):
    """The container has never begun; the words are for the pod's status."""


class Container(Protocol):
    """One run of a container. *out_of_memory* once it was ended for that."""

    out_of_memory: bool

    async def start(self) -> None: ...
    async def wait(self) -> int: ...
    def signal(self, number: signal.Signals) -> None: ...
    async def answers(self, probe: Object, port_names: Mapping[str, int]) -> bool: ...
    def lines(self) -> list[str]: ...


class Stub:
    def __init__(self, behaviour: Behaviour) -> None:
        self.out_of_memory = False
        self._behaviour = behaviour
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        if self._behaviour.life == "crash":
            self.end(self._behaviour.exit_code)

    def end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        self.end(128 + number)

    async def answers(self, probe: Object, port_names: Mapping[str, int]) -> bool:
        return self._behaviour.life == "serve"

    def lines(self) -> list[str]:
        return list(self._behaviour.output)


@dataclass
class Run:
    """What a process is started with. *path* is where its program is looked for, *address* the pod's; 0
    *most_memory* is no limit, in bytes."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    address: str
    path: str
    most_memory: int = 0


def _memory(process: psutil.Process) -> int:
    """With all that it started."""
    used = int(process.memory_info().rss)
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            used += int(child.memory_info().rss)
    return used


class Process:
    def __init__(self, run: Run) -> None:
        self.out_of_memory = False
        self._run = run
        self._process: asyncio.subprocess.Process | None = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        env = {"PATH": self._run.path, **self._run.env, "HOST": self._run.address}
        with self._run.log.open("wb") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._run.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=env,
                    cwd=self._run.cwd,
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                program = self._run.command[0]
                raise StartError(f'exec: "{program}": executable file not found in $PATH') from error
        if self._run.most_memory:
            self._looking = asyncio.ensure_future(self._look(self._process.pid))

    async def _look(self, pid: int) -> None:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            while _memory(process) <= self._run.most_memory:
                await asyncio.sleep(0.05)
            self.out_of_memory = True
            self.signal(signal.SIGKILL)

    async def wait(self) -> int:
        assert self._process is not None
        code = await self._process.wait()
        if self._looking is not None:
            self._looking.cancel()
        return 128 - code if code < 0 else code

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    async def answers(self, probe: Object, port_names: Mapping[str, int]) -> bool:
        way = probe.get("httpGet") or probe.get("tcpSocket") or {}
        port = port_names.get(str(way.get("port")), way.get("port"))
        try:
            async with asyncio.timeout(float(probe.get("timeoutSeconds", 1))):
                reader, writer = await asyncio.open_connection(self._run.address, int(port or 0))
                try:
                    if "httpGet" not in probe:
                        return True
                    path = way.get("path", "/")
                    writer.write(f"GET {path} HTTP/1.0\r\nhost: {self._run.address}\r\n\r\n".encode())
                    status = (await reader.readline()).split(b" ")
                    return len(status) > 1 and 200 <= int(status[1]) < 400
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError, ValueError):
            return False

    def lines(self) -> list[str]:
        return self._run.log.read_text(errors="replace").splitlines()
