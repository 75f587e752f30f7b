"""Asks `child`, a process of its own, to build a module or to decide; kills it when it takes too long.

Called by `language`, from any thread: one request at a time, and the process is kept for the next one.
Whatever goes wrong is `Trouble`, in words that are the same every time. Must not interpret messages.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

from penstock.adapters.rego.limits import MAX_ANSWER, MEMORY, SECONDS, START_SECONDS

COMMAND = (sys.executable, "-P", "-m", "penstock.adapters.rego.child")
#: The process gets nothing else of the environment: a policy needs no secrets.
INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Trouble(Exception):
    """Why there is no answer. *place* is the offset in the module, if the engine named one."""

    def __init__(self, what: str, place: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.place = place


class NotInstalled(Trouble):
    """The client library is not there."""


class NotStarted(Trouble):
    """The machine has no process to give, or is too busy to start one: another time it may."""


class _Gone(Exception):
    """The process ended, or went beyond what it may: it is of no more use."""

    def __init__(self, *, late: bool = False) -> None:
        super().__init__()
        self.late = late


class Engine:
    """The process is started with the first request, and ends with this object at the latest.

    *seconds* is what one request may take; *command* starts the process.
    """

    def __init__(self, seconds: float = SECONDS, command: tuple[str, ...] = COMMAND) -> None:
        self._seconds = seconds
        self._command = command
        self._stopped = f"stopped: a policy may take {seconds:g} seconds and {MEMORY >> 20} MB"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[Any, Any] | None = None
        self._asked = 0

    def ask(self, module: str, entry: str, facts: str | None) -> list[str | dict[str, Any]]:
        """The members of the set *entry*. Without *facts* (a JSON document) the module is only built.

        Blocks while it works, and while others who asked before are served. Raises `Trouble`.
        """
        request = {"module": module, "entry": entry, "input": facts}
        with self._lock:
            used = self._process is not None
            try:
                return self._ask(request)
            except _Gone as gone:
                if gone.late or not used:
                    raise Trouble(self._stopped) from gone
            try:  # once more, alone: it may have ended for what others had asked of it
                return self._ask(request)
            except _Gone as gone:
                raise Trouble(self._stopped) from gone

    def close(self) -> None:
        """End the process; the next request starts another."""
        with self._lock:
            self._stop()

    def _ask(self, request: dict[str, str | None]) -> list[str | dict[str, Any]]:
        process = self._started()
        self._asked += 1
        line = json.dumps({"id": self._asked, **request}).encode() + b"\n"
        try:
            answer = _decoded(_exchange(process, line, self._seconds))
            if answer.get("id") != self._asked:
                raise _Gone
        except BaseException:
            self._stop()
            raise
        messages, place = answer.get("messages"), answer.get("place")
        if isinstance(messages, list) and all(isinstance(one, str | dict) for one in messages):
            return messages
        raise Trouble(str(answer.get("error", "no answer")), place if isinstance(place, int) else 0)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        try:
            process = subprocess.Popen(
                self._command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={name: os.environ[name] for name in INHERITED if name in os.environ},
            )
        except OSError as error:
            raise NotStarted(f"the process for Rego cannot be started: {error.strerror}") from error
        self._process = process
        self._end = weakref.finalize(self, _end, process)
        try:
            hello = _decoded(_exchange(process, b"", START_SECONDS))
        except _Gone as gone:
            self._stop()
            raise NotStarted("the process for Rego does not start") from gone
        if "missing" in hello:
            self._stop()
            raise NotInstalled(str(hello["missing"]))
        return process

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._end = None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _exchange(process: subprocess.Popen[bytes], line: bytes, seconds: float) -> bytes:
    """Send a line and read one. Both at once: a process that does not read must not hold us up."""
    assert process.stdin is not None
    assert process.stdout is not None
    to, back = process.stdin.fileno(), process.stdout.fileno()
    os.set_blocking(to, False)
    deadline = time.monotonic() + seconds
    answer = bytearray()
    while not answer.endswith(b"\n"):
        poll = select.poll()
        poll.register(back, select.POLLIN)
        if line:
            poll.register(to, select.POLLOUT)
        ready = {number for number, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
        if not ready:
            raise _Gone(late=True)
        try:
            if to in ready:
                line = line[os.write(to, line[:65536]) :]
            if back in ready:
                answer += _read(back)
        except OSError as error:
            raise _Gone from error
        if len(answer) > 2 * MAX_ANSWER:
            raise _Gone
    return bytes(answer)


def _read(number: int) -> bytes:
    part = os.read(number, 65536)
    if not part:
        raise _Gone
    return part


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise _Gone from error
    if not isinstance(answer, dict):
        raise _Gone
    return answer
