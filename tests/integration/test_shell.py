"""``penstock shell``: the sandbox of a failed step, opened again on a copy."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.adapters.unsandboxed import Unsandboxed
from penstock.bootstrap.home import Home
from penstock.cli.main import main
from penstock.core.workload import Isolation, Mount, Step
from penstock.engine import scratch
from penstock.engine.scratch import Remembering
from penstock.ports import Sandbox

ID = "shop-1a2b3c4d"
WAIT = 30.0


@pytest.fixture
def home(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("PENSTOCK_HOME", str(short_tmp / "h"))
    found = Home(short_tmp / "h")
    found.create()
    return found


class Failed:
    """A delivery whose tests failed: moves to make one, and what it left behind."""

    def __init__(self, home: Home, sandbox: Sandbox) -> None:
        self.home = home
        self.sandbox = Remembering(sandbox, home.work)

    def run(self, stage: str, *argv: str, delivery: str = ID, **more: object) -> None:
        """One command of a stage, in a copy of the tree of its own."""
        copy = self.home.work / delivery / "suites" / stage
        copy.mkdir(parents=True, exist_ok=True)
        (copy / "config.txt").write_text("from the commit\n")
        log = self.home.logs / "deliveries" / delivery / f"{stage}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        step = Step(argv, "/app", (Mount(str(copy), "/app", writable=True),), {"COLOUR": "teal"})
        for name, value in more.items():
            object.__setattr__(step, name, value)
        asyncio.run(self.sandbox.run(step, log))

    def end(self, delivery: str = ID, *, failed: bool = True) -> None:
        scratch.end(self.home.work, delivery, failed=failed)

    @property
    def kept(self) -> Path:
        return self.home.work / scratch.FAILED / ID


@pytest.fixture
def failed(home: Home, sandbox: Sandbox) -> Failed:
    """Its tests wrote a file and failed; its analysis went well."""
    made = Failed(home, sandbox)
    made.run("tests", "sh", "-c", "echo broken > found.txt; exit 3")
    made.run("analysis", "sh", "-c", "exit 0")
    made.end()
    return made


def shell(*words: str, fed: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, without a terminal."""
    command = [sys.executable, "-m", "penstock.cli.main", "shell", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False, input=fed or "")


# --- one command ----------------------------------------------------------------------------------------


def test_a_command_sees_what_the_failed_step_saw_and_left(failed: Failed) -> None:
    done = shell(ID, "tests", "--", "sh", "-c", "pwd; cat config.txt found.txt; echo $COLOUR; exit 7")
    assert done.stdout.splitlines()[1:] == ["from the commit", "broken", "teal"]
    assert done.returncode == 7
    assert f"▸ {ID} tests: $ sh -c" in done.stderr
    assert "(ended with 3)" in done.stderr


def test_the_stage_that_failed_is_the_default_and_a_beginning_names_the_delivery(failed: Failed) -> None:
    done = shell("shop-1a", "--", "cat", "found.txt")
    assert (done.returncode, done.stdout) == (0, "broken\n")


def test_words_come_in_on_standard_input(failed: Failed) -> None:
    assert shell(ID, "--", "tr", "a-z", "A-Z", fed="loud\n").stdout == "LOUD\n"


def test_the_evidence_stays_as_it_was(failed: Failed) -> None:
    def everything() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(failed.kept.rglob("*")) if p.is_file()}

    before = everything()
    assert shell(ID, "tests", "--", "sh", "-c", "rm config.txt; echo new > found.txt").returncode == 0
    assert everything() == before


def test_a_document_for_scripts(failed: Failed) -> None:
    done = shell(ID, "-o", "json", "--", "sh", "-c", "echo words; exit 4")
    assert done.returncode == 4
    answer = json.loads(done.stdout)
    assert (answer["stage"], answer["exit_code"]) == ("tests", 4)
    assert "words" in done.stderr
    steps = json.loads(shell(ID, "--list", "-o", "json").stdout)["steps"]
    assert [(s["step"], s["stage"], s["exit_code"]) for s in steps] == [(1, "tests", 3), (2, "analysis", 0)]


def test_a_step_by_its_number(failed: Failed) -> None:
    done = shell(ID, "--step", "2", "--", "ls")
    assert done.stdout == "config.txt\n"
    assert "analysis" in done.stderr


def test_isolation_is_that_of_the_step(failed: Failed) -> None:
    if failed.sandbox.isolation is not Isolation.BUBBLEWRAP:
        pytest.skip("apt install bubblewrap")
    done = shell(ID, "--", "sh", "-c", f"ls {failed.home.path}; cat /proc/net/dev")
    assert "No such file" in done.stderr
    assert re.findall(r"^ *(\w+):", done.stdout, re.MULTILINE) == ["lo"]


# --- interactive ----------------------------------------------------------------------------------------


class Terminal:
    """A user at a terminal, who types and reads."""

    def __init__(self, *words: str) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, "-m", "penstock.cli.main", "shell", *words])
        self.seen = ""

    def types(self, text: str) -> None:
        os.write(self.file, text.encode())

    def reads(self, awaited: str) -> str:
        """What was seen since the last reading, up to *awaited*."""
        deadline = time.monotonic() + WAIT
        while awaited not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if not self._more():
                raise AssertionError(f"it ended without {awaited!r}: {self.seen}")
        before, _, self.seen = self.seen.partition(awaited)
        return before

    def ends(self) -> int:
        while self._more():
            pass
        os.close(self.file)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _more(self) -> bool:
        assert select.select([self.file], [], [], WAIT)[0], self.seen
        try:
            data = os.read(self.file, 4096)
        except OSError:  # EIO: nobody holds the other end any more
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


def test_an_interactive_shell_has_job_control_and_gives_its_exit_code(failed: Failed) -> None:
    user = Terminal(ID)
    user.reads("(tests)")
    user.types("cat found.txt\n")
    user.reads("broken")
    sleep = "sh -c 'echo slee''ping; exec sleep 1000'\n"  # what is typed is echoed: not the same words
    user.types(sleep)
    user.reads("sleeping")
    user.types("\x1a")  # ctrl-Z: it stops, and the shell is there again
    user.reads("Stopped")
    user.types("disown %1; echo disowned-$?\n")
    user.reads("disowned-0")
    user.types(sleep)
    user.reads("sleeping")
    user.types("\x03")  # ctrl-C ends it, and not the shell
    user.reads("^C")
    user.reads("(tests)")
    user.types("echo still-$((40+2))\n")
    user.reads("still-42")
    user.types("exit 9\n")
    assert user.ends() == 9
    assert "cannot set terminal" not in user.seen


def test_what_is_inside_cannot_type_into_the_users_terminal(failed: Failed) -> None:
    """It may put words into its own input only; the user's next command is not among them."""
    if failed.sandbox.isolation is not Isolation.BUBBLEWRAP:
        pytest.skip("apt install bubblewrap")
    code = "import fcntl, termios\nfor c in b'typed\\n': fcntl.ioctl(0, termios.TIOCSTI, bytes([c]))"
    command = f'{sys.executable} -m penstock.cli.main shell {ID} -- python3 -c "$CODE"'
    # The user's shell would run what it reads after the command.
    script = f"{command}; read -t 1 line; echo [$line]"
    pid, file = pty.fork()
    if pid == 0:
        os.execve("/bin/bash", ["bash", "-c", script], {**os.environ, "CODE": code})
    said = ""
    while True:
        try:
            said += os.read(file, 4096).decode(errors="replace")
        except OSError:
            break
    os.close(file)
    os.waitpid(pid, 0)
    assert said.rstrip().endswith("[]")


def test_a_closed_window_leaves_nothing_behind(
    failed: Failed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    user = Terminal(ID)
    user.reads("(tests)")
    assert [path.name[:15] for path in tmp_path.iterdir()] == ["penstock-shell-"]
    os.close(user.file)
    os.waitpid(user.pid, 0)
    assert list(tmp_path.iterdir()) == []


def test_without_a_sandbox_there_is_a_shell_too(home: Home) -> None:
    """The step ran without isolation, so this does, and says so."""
    failed = Failed(home, Unsandboxed.detect())
    failed.run("tests", "sh", "-c", "echo broken > found.txt; exit 3")
    failed.end()
    user = Terminal(ID)
    user.reads("isolation none")
    user.reads("(tests)")
    user.types("cat found.txt; echo new > found.txt; jobs; exit 4\n")
    user.reads("broken")
    assert user.ends() == 4
    assert "no job control" not in user.seen
    assert (failed.kept / "suites/tests/found.txt").read_text() == "broken\n"


def test_a_program_that_is_not_there(failed: Failed) -> None:
    user = Terminal(ID, "--", "no-such-program")
    assert user.ends() == 127
    assert "no-such-program: No such file" in user.seen


def test_an_interactive_shell_needs_a_terminal(failed: Failed) -> None:
    done = shell(ID)
    assert done.returncode == 2
    assert f"next: penstock shell {ID} tests -- COMMAND" in done.stderr


# --- bad input ------------------------------------------------------------------------------------------


def test_an_unknown_delivery(failed: Failed) -> None:
    done = shell("cart-00000000", "--", "true")
    assert done.returncode == 2
    assert "is not known in this data folder" in done.stderr
    assert "PENSTOCK_HOME" in done.stderr
    assert f"kept here: {ID}" in done.stderr
    for bad in ("", "../h", "/", "failed"):
        assert shell(bad, "--", "true").returncode == 2


def test_a_stage_that_ran_nothing(failed: Failed) -> None:
    done = shell(ID, "deploy", "--", "true")
    assert done.returncode == 2
    assert "the stage 'deploy' ran no command" in done.stderr
    assert "stages that did: tests, analysis" in done.stderr
    assert shell(ID, "--step", "9", "--", "true").returncode == 2


def test_a_delivery_that_still_runs(failed: Failed) -> None:
    failed.run("tests", "false", delivery="shop-55555555")
    done = shell("shop-5", "--", "true")
    assert done.returncode == 1
    assert "has not ended" in done.stderr


def test_a_delivery_that_went_well_or_was_swept(failed: Failed) -> None:
    failed.run("tests", "true", delivery="shop-66666666")
    failed.end("shop-66666666", failed=False)
    shutil.rmtree(failed.kept)
    for delivery in ("shop-66666666", ID):
        done = shell(delivery, "--", "true")
        assert done.returncode == 2
        assert "nothing of it is kept" in done.stderr


def test_what_was_written_down_is_damaged(failed: Failed) -> None:
    (failed.kept / "steps/0001.json").write_text("{")
    assert shell(ID, "--", "true").returncode == 2


def test_what_was_shown_is_gone(failed: Failed, capsys: pytest.CaptureFixture[str]) -> None:
    """A cache may be emptied; a folder that was only there while the step ran is made again, empty."""
    tools = failed.home.path / "tools"
    tools.mkdir()
    delivery = "shop-77777777"
    mounts = (Mount(str(tools), "/tools"), Mount(str(tools), "/out", writable=True))
    failed.run("tests", "false", delivery=delivery, mounts=mounts, cwd="/")
    failed.run("more", "false", delivery=delivery, mounts=mounts[1:], cwd="/")
    failed.end(delivery)
    tools.rmdir()
    assert main(["shell", delivery, "tests", "--", "true"]) == 2
    assert "/tools can no longer be shown" in capsys.readouterr().err
    assert main(["shell", delivery, "more", "--", "touch", "/out/x"]) == 0
    assert "/out is empty" in capsys.readouterr().err
    assert not tools.exists()


def test_a_command_that_ran_in_a_cluster_is_not_there(failed: Failed) -> None:
    for file in (failed.kept / "steps").glob("*.json"):
        told = json.loads(file.read_text()) | {"isolation": Isolation.CONTAINER.value}
        file.write_text(json.dumps(told))
    done = shell(ID, "--", "true")
    assert done.returncode == 2
    assert "this command ran in the cluster" in done.stderr
    assert f"penstock logs {ID}" in done.stderr
