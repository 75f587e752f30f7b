"""What is kept of deliveries that failed, for how long, and which of their commands is gone back to."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fakes.sandbox import FakeSandbox
from penstock.bootstrap.shell import choose
from penstock.core.workload import Isolation, Step, StepResult
from penstock.engine import scratch
from penstock.engine.scratch import FAILED, KEPT, SECONDS, STEPS, Command, Remembering
from penstock.errors import Invalid

ID = "shop-1a2b3c4d"


class Dying(FakeSandbox):
    """The machine goes down while a step runs."""

    async def run(self, step: Step, log: Path) -> StepResult:
        raise SystemExit


def deliver(work: Path, delivery: str = ID, *, failed: bool = True) -> None:
    """A delivery that ran something, and its end."""
    (work / delivery / STEPS).mkdir(parents=True)
    scratch.end(work, delivery, failed=failed)


def log(work: Path) -> Path:
    path = work.parent / "log" / ID / "tests.log"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / ID).mkdir(parents=True)
    return folder


async def test_a_step_is_written_down_before_it_starts(work: Path) -> None:
    with pytest.raises(SystemExit):
        await Remembering(Dying(), work).run(Step(("pytest",), "/app"), log(work))
    scratch.end(work, ID, failed=True)
    folder, (command,) = scratch.commands(work, ID)
    assert (command.stage, command.step.argv, command.exit_code) == ("tests", ("pytest",), None)
    assert command.failed
    assert (folder / "steps/0001.json").stat().st_mode & 0o777 == 0o600


async def test_how_it_ended_is_added(work: Path) -> None:
    sandbox = FakeSandbox(StepResult(3, "", 1.0), StepResult(0, "", 1.0, timed_out=True))
    file = log(work)
    for word in ("first", "second"):
        await Remembering(sandbox, work).run(Step((word,), "/app"), file)
    scratch.end(work, ID, failed=True)
    first, second = scratch.commands(work, ID)[1]
    assert (first.number, first.exit_code, second.number, second.timed_out) == (1, 3, 2, True)
    assert second.failed


async def test_secrets_are_not_written_down(work: Path) -> None:
    env = {"PASSWORD": "hunter2", "HEADERS": '{"token": "hunter2"}', "COLOUR": "teal"}
    told, left_out = scratch._without_secrets(Step(("sh",), "/", env=env, secrets=("hunter2",)))
    assert (told.env, told.secrets, left_out) == ({"COLOUR": "teal"}, (), ("PASSWORD", "HEADERS"))


async def test_a_command_runs_though_it_cannot_be_written_down(work: Path) -> None:
    (work / ID / STEPS).write_text("where the folder would be")
    sandbox = FakeSandbox()
    await Remembering(sandbox, work).run(Step(("sh",), "/"), log(work))
    assert len(sandbox.steps) == 1
    scratch.end(work, ID, failed=True)
    assert scratch.kept(work) == ()
    assert not (work / ID).exists()


async def test_what_belongs_to_no_delivery_is_not_written_down(work: Path, tmp_path: Path) -> None:
    await Remembering(FakeSandbox(), work).run(Step(("sh",), "/"), tmp_path / "log")
    assert [path.name for path in work.iterdir()] == [ID]


def test_the_newest_are_kept_and_nothing_for_longer_than_a_week(work: Path) -> None:
    names = [f"shop-{number:08}" for number in range(KEPT + 2)]
    for number, name in enumerate(names):
        deliver(work, name)
        at = time.time() - 60 * (len(names) - number)
        os.utime(work / FAILED / name, (at, at))
    assert scratch.kept(work) == tuple(reversed(names[-KEPT:]))
    scratch.sweep(work, time.time() + SECONDS + 3600)
    assert scratch.kept(work) == ()
    assert scratch.unfinished(work) == (ID,)  # what still runs is nobody's to sweep


def test_nothing_is_kept_of_what_went_well_or_ran_nothing(work: Path) -> None:
    deliver(work, "shop-00000001", failed=False)
    scratch.end(work, ID, failed=True)
    assert scratch.kept(work) == scratch.unfinished(work) == ()


def ran(number: int, stage: str, code: int, cwd: str = "/app") -> Command:
    return Command(stage, number, Step(("x",), cwd), Isolation.NONE, "/w", code)


def test_the_stage_to_open_is_the_first_in_which_the_project_failed() -> None:
    listed = [ran(1, "build", 0), ran(2, "scan", 200, "/"), ran(3, "tests", 1), ran(4, "tests", 0)]
    assert choose("d", listed).number == 3
    assert choose("d", listed, "scan").number == 2
    assert choose("d", listed, "tests", 4).number == 4
    assert choose("d", listed[:1]).number == 1
    with pytest.raises(Invalid):
        choose("d", listed, "canary")
    with pytest.raises(Invalid):
        choose("d", [])
