"""Runs one host command to its end: what the two sandboxes share. Not an adapter, and not for others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from penstock.core.tail import tail
from penstock.core.workload import StepResult


async def run_command(
    command: tuple[str, ...], env: Mapping[str, str], seconds: float, log: Path, cwd: str | None = None
) -> StepResult:
    """Run a host command to its end in a process group of its own, its output appended to *log*."""
    began = time.monotonic()
    with log.open("ab") as output:
        start = output.tell()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            output.write(f"{command[0]}: {error.strerror}\n".encode())
            output.flush()
            return StepResult(127, f"{command[0]}: {error.strerror}", 0.0)
        timed_out = False
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            timed_out = True
        finally:
            # Also when we are cancelled, and also what a step left behind in its group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        code = await process.wait()
    with log.open("rb") as written:
        written.seek(max(start, log.stat().st_size - 65536))
        said = tail(written.read())
    if timed_out:
        said += f"\n(ended after {seconds:.0f} s)"
    return StepResult(code, said, time.monotonic() - began, timed_out)
