"""Opens the sandbox of a failed step again: the same mounts, environment, folder, network and isolation.

Called by ``penstock shell``. It reads what `engine.scratch` kept in this data folder, and works on a copy:
the evidence of the failure stays as it was. Must not ask a server, and must not let anything that is shared
with deliveries (caches, installed dependencies) be written to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.bootstrap import terminal
from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import open_sandbox
from penstock.core.workload import Isolation, Step
from penstock.engine import scratch
from penstock.engine.scratch import Command
from penstock.errors import Conflict, Invalid, Unavailable

HERE = "it works on the machine whose data folder ran the delivery; PENSTOCK_HOME names that folder"
#: Handed in for people, beside the step's own environment.
HUMAN = ("TERM", "COLORTERM", "NO_COLOR")


@dataclass(frozen=True)
class Opened:
    """A step's copy, ready to be entered. *notes* say in what it is not what it was."""

    delivery: str
    command: Command
    step: Step
    notes: tuple[str, ...]


def kept_commands(home: Home, delivery: str) -> tuple[str, Path, tuple[Command, ...]]:
    """The whole id of a failed delivery (its beginning is enough), its folder, and what it ran."""
    kept, running = scratch.kept(home.work), scratch.unfinished(home.work)
    logs = home.logs / "deliveries"
    ended = sorted(path.name for path in logs.iterdir()) if logs.is_dir() else []
    known = [name for name in dict.fromkeys((*kept, *running, *ended)) if name.startswith(delivery)]
    known = [delivery] if delivery in known else known
    if not delivery or len(known) != 1:
        problem = "is ambiguous" if len(known) > 1 else "is not known in this data folder"
        raise Invalid(f"delivery {delivery!r} {problem}", where=str(home.path), next_move=_instead(kept))
    (name,) = known
    if name in kept:
        folder, ran = scratch.commands(home.work, name)
        return name, folder, ran
    if name in running:
        raise Conflict(
            "the delivery has not ended; its steps can be opened once it has failed",
            where=name,
            next_move=f"penstock status {name}",
        )
    days = scratch.SECONDS / 86400
    raise Invalid(
        f"nothing of it is kept: of deliveries that failed, the last {scratch.KEPT} are, for {days:.0f} days",
        where=name,
        next_move=_instead(kept),
    )


def _instead(kept: Sequence[str]) -> str:
    return f"{HERE}; kept here: {', '.join(kept) or 'nothing'}"


def choose(delivery: str, ran: Sequence[Command], stage: str = "", number: int = 0) -> Command:
    """The command to go back to: by its number, or the last one that failed in the stage.

    Without a stage, the first in which a command on the project failed. (What looks at a project from outside
    ends with other codes than 0 if it found something.)
    """
    if not ran:
        raise Invalid("none of its commands could be written down", where=delivery)
    stages = list(dict.fromkeys(command.stage for command in ran))
    if stage and stage not in stages:
        raise Invalid(
            f"the stage {stage!r} ran no command of this delivery",
            where=delivery,
            next_move=f"stages that did: {', '.join(stages)}",
        )
    if number:
        found = [c for c in ran if c.number == number and stage in ("", c.stage)]
        if not found:
            raise Invalid(
                f"there is no command {number}{' in ' + stage if stage else ''}",
                where=delivery,
                next_move=f"penstock shell {delivery} --list",
            )
        return found[0]
    failed = [command for command in ran if command.failed]
    chosen = stage or ([c for c in failed if c.step.cwd != "/"] or failed or list(ran))[0].stage
    inside = [command for command in ran if command.stage == chosen]
    return ([command for command in inside if command.failed] or inside)[-1]


def reopen(delivery: str, folder: Path, command: Command, into: Path) -> Opened:
    """Copy what the command could see of its delivery, and all that it could write to, into *into*."""
    if command.isolation is Isolation.CONTAINER:
        raise Invalid(
            "this command ran in the cluster, and its pod is gone",
            where=delivery,
            next_move=f"penstock logs {delivery} shows what it wrote; penstock run PATH runs it here",
        )
    notes = [f"{name} was secret and is not set" for name in command.left_out]
    mounts = []
    for place, mount in enumerate(command.step.mounts):
        source = _now(mount.source, command, folder)
        if source.is_relative_to(folder) or mount.writable:
            copy = into / str(place)
            if not source.exists():
                notes.append(f"{mount.target} is empty: what was written there was temporary")
                copy.mkdir()
            else:
                _copy(source, copy)
            source = copy
        elif not source.exists():
            raise Invalid(
                f"{mount.target} can no longer be shown: {source} is gone",
                where=delivery,
                next_move="ship the commit again",
            )
        mounts.append(replace(mount, source=str(source)))
    return Opened(delivery, command, replace(command.step, mounts=tuple(mounts)), tuple(notes))


def _now(source: str, command: Command, folder: Path) -> Path:
    """Where a mount's source is since its delivery's folder was put aside."""
    path = Path(source)
    return folder / path.relative_to(command.work) if path.is_relative_to(command.work) else path


def _copy(source: Path, copy: Path) -> None:
    try:
        if source.is_dir():
            shutil.copytree(source, copy, symlinks=True, copy_function=_copy_file)
        else:
            shutil.copy2(source, copy)
    except shutil.Error as error:
        path, _, why = error.args[0][0]
        raise Unavailable(f"cannot be copied: {why}", where=str(path)) from error
    except OSError as error:
        what = f"cannot be copied: {error.strerror}"
        raise Unavailable(what, where=str(source), next_move="was it swept in between? try again") from error


def _copy_file(source: str, copy: str) -> None:
    if Path(source).is_file():  # not a socket or pipe: nobody is at its other end any more
        shutil.copy2(source, copy)


def enter(opened: Opened, words: Sequence[str], output: int | None = None) -> int:
    """Run *words*, or an interactive shell, in the step's sandbox; the exit code.

    On a terminal the command gets one of its own. *output* is a file for what it writes, if not ours.
    """
    sandbox = open_sandbox(opened.command.isolation.value)
    interactive = terminal.is_terminal() and output is None
    if not words and not interactive:
        raise Invalid(
            "an interactive shell needs a terminal",
            next_move=f"penstock shell {opened.delivery} {opened.command.stage} -- COMMAND",
        )
    env = {**_human(opened.command.stage if not words else ""), **opened.step.env}
    if interactive:
        words = terminal.taking(_python(), words or _shell())
        step = replace(opened.step, argv=tuple(words), env=env)
        code = terminal.run(sandbox.enclose(step))
    else:
        step = replace(opened.step, argv=tuple(words), env=opened.step.env)
        done = subprocess.run(sandbox.enclose(step), stdout=output, stderr=output, check=False)
        code = done.returncode
    return code if code >= 0 else 128 - code


def _human(stage: str) -> dict[str, str]:
    prompt = {"PS1": f"({stage}) \\w $ "} if stage else {}
    return {**{name: os.environ[name] for name in HUMAN if name in os.environ}, **prompt}


def _shell() -> tuple[str, ...]:
    # The host's start files are not the step's.
    return ("bash", "--norc", "-i") if shutil.which("bash") else ("sh", "-i")


def _python() -> str:
    """Our interpreter as the sandbox shows it: it is there whatever the step's PATH says."""
    return str(Path(sys.executable).resolve())
