"""Commands that work on this machine alone, without a server: run, shell.

Called by `main`. Thin: what they do is in `bootstrap.local` and `bootstrap.shell`.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from penstock.bootstrap import shell as sandboxes
from penstock.bootstrap import verdicts
from penstock.bootstrap.home import Home
from penstock.bootstrap.local import Asked, Done, Listener, Report
from penstock.bootstrap.local import run as run_here
from penstock.bootstrap.verdicts import Answer
from penstock.cli.show import complain, document, mark, say, table
from penstock.core.codec import encode
from penstock.engine.scratch import Command
from penstock.errors import Invalid


def shell_parser(command: argparse.ArgumentParser) -> None:
    command.usage = "penstock shell [-o text|json] [--list] [--step N] DELIVERY [STAGE] [-- COMMAND …]"
    command.add_argument("delivery", help="one that failed here; its beginning is enough")
    command.add_argument("stage", nargs="?", default="", help="default: the one in which a command failed")
    what = "one of --list (default: the one that failed)"
    command.add_argument("--step", type=int, default=0, metavar="N", help=what)
    command.add_argument("--list", action="store_true", help="only show what can be opened")


def shell(given: argparse.Namespace) -> int:
    delivery, folder, ran = sandboxes.kept_commands(Home.find(), given.delivery)
    if given.list:
        return _listed(given, delivery, ran)
    inside: list[str] = given.inside
    if given.format == "json" and not inside:
        raise Invalid("-o json needs --list, or a command after --")
    command = sandboxes.choose(delivery, ran, given.stage, given.step)
    with tempfile.TemporaryDirectory(prefix="penstock-shell-", ignore_cleanup_errors=True) as copy:
        opened = sandboxes.reopen(delivery, folder, command, Path(copy))
        _introduce(opened)
        document_wanted = given.format == "json"
        code = sandboxes.enter(opened, inside, sys.stderr.fileno() if document_wanted else None)
    if document_wanted:
        document({"delivery": delivery, "stage": command.stage, "command": inside, "exit_code": code})
    return code


def _introduce(opened: sandboxes.Opened) -> None:
    """On standard error: what a command says on standard output is all there is."""
    step, command = opened.step, opened.command
    ended = "did not end" if command.exit_code is None else f"ended with {command.exit_code}"
    complain(f"▸ {opened.delivery} {command.stage}: $ {shlex.join(step.argv)}  ({ended})")
    network = "host" if step.network else "none"
    complain(f"  a copy; isolation {command.isolation.value}, network {network}, folder {step.cwd}")
    for note in opened.notes:
        complain(f"  ! {note}")


def _listed(given: argparse.Namespace, delivery: str, ran: Sequence[Command]) -> int:
    rows = [
        {
            "step": command.number,
            "stage": command.stage,
            "exit_code": command.exit_code,
            "timed_out": command.timed_out,
            "command": list(command.step.argv),
        }
        for command in ran
    ]
    if given.format == "json":
        document({"delivery": delivery, "steps": rows})
        return 0
    lines = [
        (c.number, c.stage, "–" if c.exit_code is None else c.exit_code, shlex.join(c.step.argv)[:90])
        for c in ran
    ]
    say(table(("step", "stage", "exit", "command"), lines))
    return 0


# --- run ------------------------------------------------------------------------------------------------

SIGNS = {"pass": "✓", "fail": "✗", "later": "…"}


def run_parser(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "path", nargs="?", type=Path, default=Path(), help="a git repository (default: here)"
    )
    what = "only this one; may be given more than once (build, tests, scan)"
    command.add_argument("--stage", action="append", default=[], metavar="NAME", help=what)
    what = "the files as they are, not the commit: tracked ones, and new ones that git does not ignore"
    command.add_argument("--dirty", action="store_true", help=what)
    what = "ask these instead of the policies that come with Penstock"
    command.add_argument("--policies", type=Path, metavar="FOLDER", help=what)
    what = "run without a sandbox: the project's code can read your files"
    command.add_argument("--unsandboxed-workloads", action="store_true", help=what)


def run(given: argparse.Namespace) -> int:
    tell = complain if given.format == "json" else say
    listener = Listener(
        begins=lambda stage: tell(f"▸ {stage}"),
        line=lambda text: tell(f"  │ {text}"),
        ended=lambda done: tell(_stage(done)),
    )
    asked = Asked(given.path, tuple(given.stage), given.dirty, given.unsandboxed_workloads)
    report = asyncio.run(run_here(Home.find(), asked, verdicts.load(given.policies), listener))
    if given.format == "json":
        document({**encode(report), "good": report.good})
    else:
        _tell(report)
    return 0 if report.good else 1


def _stage(done: Done) -> str:
    first, *more = done.says.splitlines() or [""]
    optional = "(optional) " if done.optional and not done.good else ""
    return "\n".join([f"{mark(done.good)} {done.stage:<8} {done.seconds:6.1f} s  {optional}{first}", *more])


def _tell(report: Report) -> None:
    say()
    for action in dict.fromkeys(answer.action for answer in report.policies):
        say(f"▸ {action}: what its policies would say")
        for answer in report.policies:
            if answer.action == action:
                say(_policy(answer))
    for note in report.notes:
        say(f"! {note}")
    what = "uncommitted files, not a commit" if report.dirty else f"commit {report.revision[:12]}"
    title = "" if report.dirty else f" ({report.title})"
    artifact = f", {report.artifact[:19]}" if report.artifact else ""
    said = "nothing here would stop a delivery" if report.good else "a delivery would not get through"
    say(
        f"{mark(report.good)} {report.service}, {what}{title}{artifact}, isolation {report.isolation}: {said}"
    )


def _policy(answer: Answer) -> str:
    words = answer.says
    if answer.would == "later":
        words = f"not known yet: {', '.join(answer.awaits) or answer.says}"
    elif answer.verdict.startswith("UNKNOWN"):
        words = f"{answer.verdict}: {answer.says}"
    return f"  {SIGNS[answer.would]} {answer.policy}: {words}"
