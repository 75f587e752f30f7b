"""Commands that work on this machine alone, without a server: shell.

Called by `main`. Thin: what they do is in `bootstrap.shell`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from penstock.bootstrap import shell as sandboxes
from penstock.bootstrap.home import Home
from penstock.cli.show import complain, document, say, table
from penstock.engine.scratch import Command
from penstock.errors import Invalid


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is Penstock's, and what comes after ``--`` and is the command to run inside."""
    given = list(words)
    if given[:1] != ["shell"] or "--" not in given:
        return given, []
    place = given.index("--")
    return given[:place], given[place + 1 :]


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
