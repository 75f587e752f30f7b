"""Asks `checks.untrusted`, a process of its own: what to ask by a document, what is wrong with answers.

Called by `contract` and `compare`. Documents and patterns are the service's own: whatever they make of that
process (it never ends, it takes all memory) is `Invalid`, in words that are the same every time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import TypeVar

from penstock.checks.untrusted.exchange import CompareCall, Differences, JudgeCall, Judged, PlanCall, Planned
from penstock.core.codec import decode, encode
from penstock.errors import Invalid, Unavailable, from_wire

T = TypeVar("T")

SECONDS = 30.0
COMMAND = (sys.executable, "-PB", "-m", "penstock.checks.untrusted")
#: The process gets nothing else of the environment: a document needs no secrets.
INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Reader:
    """*seconds* is what one call may take; *command* starts the process."""

    def __init__(self, seconds: float = SECONDS, command: tuple[str, ...] = COMMAND) -> None:
        self._seconds = seconds
        self._command = command

    async def plan(self, call: PlanCall) -> Planned:
        """Raises `Invalid` with the place in the document, if there is no plan to be had of it."""
        return await self._ask(call, Planned)

    async def judge(self, call: JudgeCall) -> Judged:
        """What is wrong with each answer, in their order."""
        judged = await self._ask(call, Judged)
        if len(judged.problems) != len(call.answers):
            raise Invalid(f"{len(judged.problems)} verdicts on {len(call.answers)} answers", where=call.name)
        return judged

    async def compare(self, call: CompareCall) -> Differences:
        """Where the answers of each pair differ."""
        found = await self._ask(call, Differences)
        if len(found.pairs) != len(call.pairs):
            raise Invalid(f"{len(found.pairs)} verdicts on {len(call.pairs)} pairs", where=call.name)
        return found

    async def _ask(self, call: PlanCall | JudgeCall | CompareCall, kind: type[T]) -> T:
        said = await self._exchange(json.dumps(encode(call)).encode(), call.name)
        try:
            answer = json.loads(said)
        except ValueError as error:
            raise Invalid(self._ended, where=call.name) from error
        if "error" in answer:
            raise from_wire(answer["error"])
        return decode(kind, answer["ok"], "the process that reads documents")

    async def _exchange(self, line: bytes, name: str) -> bytes:
        process = await self._started()
        try:
            async with asyncio.timeout(self._seconds):
                said, _ = await process.communicate(line)
            return said
        except TimeoutError as error:
            raise Invalid(self._ended, where=name) from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    @property
    def _ended(self) -> str:
        return f"it was ended: reading by it may take {self._seconds:g} seconds, and 2 GB"

    async def _started(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        try:
            return await asyncio.create_subprocess_exec(
                *self._command,
                stdin=pipe,
                stdout=pipe,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env={name: os.environ[name] for name in INHERITED if name in os.environ},
            )
        except OSError as error:
            what = f"the process that reads documents cannot be started: {error.strerror}"
            raise Unavailable(what) from error
