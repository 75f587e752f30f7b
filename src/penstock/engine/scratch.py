"""What a delivery's commands leave behind: written down as they start, kept if it fails, swept later.

`Remembering` is the sandbox that bootstrap hands to checks, tools and builders; the engine calls `end`; and
``penstock shell`` reads. A command is known by the log that it writes to, ``…/DELIVERY/STAGE.log``.
Must not write a secret's value, and must not keep more than `KEPT`, `SECONDS` and `ROOM` allow.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.core.codec import decode, encode
from penstock.core.workload import Isolation, Step, StepResult
from penstock.errors import Invalid
from penstock.ports import Sandbox

#: Of the failed deliveries, this many are kept, for this long, while this much of the disk is free.
KEPT = 5
SECONDS = 7 * 86400.0
ROOM = 1024**3

#: Where failed deliveries are kept, in the folder of those that run. No delivery can be called so.
FAILED = "failed"
STEPS = "steps"


@dataclass(frozen=True)
class Command:
    """One command of a delivery, as it was started. *work* is the delivery's folder at that time.

    *exit_code* is None until it has ended. *left_out* names the variables whose values were secret.
    """

    stage: str
    number: int
    step: Step
    isolation: Isolation
    work: str
    exit_code: int | None = None
    timed_out: bool = False
    left_out: tuple[str, ...] = ()
    version: int = 1

    @property
    def failed(self) -> bool:
        return self.exit_code != 0 or self.timed_out


class Remembering:
    """A sandbox that writes each step down before it starts, in the scratch folder of its delivery."""

    def __init__(self, inner: Sandbox, work: Path) -> None:
        self.isolation = inner.isolation
        self._inner = inner
        self._work = work

    def enclose(
        self, step: Step, *, outlives_us: bool = False, hand: Callable[[bytes], int] | None = None
    ) -> tuple[str, ...]:
        return self._inner.enclose(step, outlives_us=outlives_us, hand=hand)

    async def run(self, step: Step, log: Path) -> StepResult:
        folder = self._work / log.parent.name
        if not folder.is_dir():  # no delivery's command
            return await self._inner.run(step, log)
        command = _started(folder, log.stem, step, self.isolation)
        result = await self._inner.run(step, log)
        _write(replace(command, exit_code=result.exit_code, timed_out=result.timed_out))
        return result


def _started(folder: Path, stage: str, step: Step, isolation: Isolation) -> Command:
    told, left_out = _without_secrets(step)
    number = sum(1 for _ in folder.glob(f"{STEPS}/*.json")) + 1
    command = Command(stage, number, told, isolation, str(folder), left_out=left_out)
    _write(command)
    return command


def _without_secrets(step: Step) -> tuple[Step, tuple[str, ...]]:
    """The step without the variables that hold one of its secrets, and the names of those."""
    names = tuple(name for name, value in step.env.items() if any(s in value for s in step.secrets))
    env = {name: value for name, value in step.env.items() if name not in names}
    return replace(step, env=env, secrets=()), names


def _write(command: Command) -> None:
    steps = Path(command.work) / STEPS
    # A delivery must not fail for this: it is a convenience, and the disk may be full.
    with contextlib.suppress(OSError):
        steps.mkdir(mode=0o700, exist_ok=True)
        fresh = steps / f"{command.number:04}.new"
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(encode(command)))
        fresh.replace(fresh.with_suffix(".json"))


# --- when a delivery has ended ---------------------------------------------------------------------------


def end(work: Path, delivery: str, *, failed: bool) -> None:
    """Keep the folder of a delivery that failed and ran commands, remove any other, and sweep."""
    folder = work / delivery
    if failed and (folder / STEPS).is_dir():
        with contextlib.suppress(OSError):  # what cannot be put aside is removed like any other
            _put_aside(folder, work / FAILED / delivery)
    shutil.rmtree(folder, ignore_errors=True)
    sweep(work, time.time())


def _put_aside(folder: Path, kept: Path) -> None:
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    shutil.rmtree(kept, ignore_errors=True)
    os.utime(folder)  # the folder's own time is when it ended
    folder.rename(kept)


def sweep(work: Path, now: float) -> None:
    """Remove what was kept longest, as far as the limits ask for it."""
    newest = _newest_first(work)
    for number, (ended, path) in enumerate(newest):
        if number >= KEPT or now - ended > SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    for _, path in reversed(newest):
        if shutil.disk_usage(work).free >= ROOM:
            return
        shutil.rmtree(path, ignore_errors=True)


def _newest_first(work: Path) -> list[tuple[float, Path]]:
    """Each kept folder with the time at which its delivery ended."""
    found = []
    for path in (work / FAILED).glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another worker of this machine may be sweeping
            found.append((path.stat().st_mtime, path))
    return sorted(found, reverse=True)


# --- for whoever looks afterwards ------------------------------------------------------------------------


def kept(work: Path) -> tuple[str, ...]:
    """The failed deliveries that are kept, the newest first."""
    return tuple(path.name for _, path in _newest_first(work))


def unfinished(work: Path) -> tuple[str, ...]:
    """The deliveries that have a folder and have not ended."""
    found = [path.name for path in work.iterdir() if path.is_dir()] if work.is_dir() else []
    return tuple(sorted(name for name in found if name != FAILED))


def commands(work: Path, delivery: str) -> tuple[Path, tuple[Command, ...]]:
    """The folder of a delivery that is kept, and the commands that it ran, in order."""
    folder = work / FAILED / delivery
    return folder, tuple(_read(folder / STEPS))


def _read(steps: Path) -> Iterator[Command]:
    for file in sorted(steps.glob("*.json")):
        try:
            yield decode(Command, json.loads(file.read_text()), file.name)
        except ValueError as error:
            raise Invalid(f"cannot be read: {error}", where=str(file), next_move="ship again") from error
