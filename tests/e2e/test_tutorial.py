"""The tutorial is true: its files are written, its commands run, and what it shows is what comes.

Numbers and digests are compared by their form, names of deliveries are those of this run, and ``…`` stands
for anything. The ports, which may be taken, are others; the installation (``make demo``) is not run again.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.bootstrap.home import Home
from tests.e2e.machine import Machine
from tests.fakes.web import free_port

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs/tutorial.md"
#: Half a minute where nothing else runs; a busy machine is no defect.
SECONDS = 600.0
MARK = "@@ ended with"
BLOCK = re.compile(r"(?:^`(?P<file>[\w./-]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{6,}\b|\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Command:
    """What is typed, and the lines that are shown for it."""

    text: str
    shown: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        return any(line.startswith("✗") for line in self.shown)


def commands(page: str) -> Iterator[Command]:
    """What a reader does, from top to bottom: files become commands that write them."""
    for block in BLOCK.finditer(page):
        if block["file"]:
            file = Path(block["file"])
            yield Command(f"mkdir -p {file.parent} && cat > {file} <<'EOF'\n{block['text']}EOF")
        elif block["kind"] == "console":
            for part in re.split(r"^\$ ", block["text"], flags=re.M)[1:]:
                typed, *shown = part.splitlines()
                yield Command(typed, tuple(line for line in shown if line.strip(" …")))


def pattern(shown: str) -> re.Pattern[str]:
    """A shown line, with any number for each number, and anything for each ``…``."""
    words = NUMBER.sub("\0", shown.strip())
    parts = [r"\s+".join(map(re.escape, part.split(" "))) for part in re.sub(" +", " ", words).split("…")]
    return re.compile(".*".join(parts).replace(re.escape("\0"), r"[0-9a-f.]+"))


def missing(shown: tuple[str, ...], lines: list[str]) -> list[str]:
    """The shown lines that did not come, in the order shown."""
    rest = iter(lines)
    return [line for line in shown if not any(pattern(line).fullmatch(other.strip()) for other in rest)]


class Shell:
    """One bash for the whole page, so that folders, variables and jobs last. *close* ends what it started."""

    def __init__(self, folder: Path) -> None:
        scripts = str(Path(sys.executable).parent)
        env = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
        env["PATH"] = f"{scripts}:{env['PATH']}"
        env.pop("PENSTOCK_URL", None)
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            cwd=ROOT,
            start_new_session=True,
        )
        self._timer = threading.Timer(SECONDS, self._kill)
        self._timer.start()

    def run(self, command: str) -> tuple[int, list[str]]:
        """The exit code of a command, and the lines that it wrote."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n{MARK} %s\\n' $?\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(MARK):
                return int(line.removeprefix(MARK)), lines
            lines.append(line.rstrip("\n"))
        raise AssertionError(f"the shell ended in {command!r}:\n" + "\n".join(lines))

    def close(self) -> None:
        self._timer.cancel()
        self._kill()
        self._bash.communicate(timeout=30)

    def _kill(self) -> None:
        if self._bash.poll() is None:
            os.killpg(self._bash.pid, signal.SIGKILL)


@pytest.fixture
def shell(short_tmp: Path) -> Iterator[Shell]:
    made = Shell(short_tmp)
    try:
        yield made
    finally:
        made.close()
        for home in short_tmp.glob("*/data"):
            left = Machine(short_tmp)
            left.home = Home(home)
            left.penstock("down", check=False)
            left.kill_everything()  # what was still starting when `up` gave up waiting


def here() -> dict[str, str]:
    """What is written otherwise on this machine: ports that are free, no sandbox where none works.

    And a canary that does not mind slow answers: a busy machine gives both releases so many of them that
    nothing can be told.
    """
    api, ingress = str(free_port()), str(free_port())
    options = "" if Machine.sandboxed() else " --unsandboxed-workloads"
    return {
        "penstock up": f"penstock up --port {api} --ingress-port {ingress}{options}",
        "127.0.0.1:8600": f"127.0.0.1:{ingress}",
        "patience: 60}": "patience: 60, judge: {slow_points: 90}}",
    }


@pytest.mark.timeout(SECONDS)
@pytest.mark.long
def test_every_command_of_the_tutorial_does_what_it_shows(shell: Shell) -> None:
    names = here()
    for command in commands(TUTORIAL.read_text(encoding="utf-8")):
        typed = command.text
        for shown, real in names.items():
            typed = typed.replace(shown, real)
        code, lines = shell.run(typed)
        told = f"$ {typed}\n" + "\n".join(lines)
        assert bool(code) == command.fails, f"exit code {code}: {told}"
        assert missing(command.shown, lines) == [], told
        names |= dict(zip(deliveries(command.shown), deliveries(lines), strict=True))


def deliveries(lines: list[str] | tuple[str, ...]) -> list[str]:
    return re.findall(r"^▸ (\S+)", "\n".join(lines), re.M)


def test_what_is_shown_and_does_not_come_is_found() -> None:
    shown = ("▸ x-12ab34cd", "  ✓ tests  0.8 s  1 passed, …", "✗ no")
    (command,) = commands("\n".join(["```console", "$ penstock ship x", *shown, "…", "```", ""]))
    assert command == Command("penstock ship x", shown)
    assert command.fails
    assert missing(command.shown, ["▸ x-00ff00aa", "✓ tests   11 s  2 passed, 0 failed", "✗ no"]) == []
    assert missing(command.shown, ["▸ x-00ff00aa", "✓ tests   11 s  2 failed", "✗ no"]) != []
    assert missing(command.shown, ["✗ no", "▸ x-00ff00aa", "✓ tests   11 s  2 passed, 0 failed"]) != []
