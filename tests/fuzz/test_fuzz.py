"""No bytes from outside make a parser stumble: the table of `targets`, with mutations of real seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.atheris_run import judged
from fuzz.mutation import inputs
from fuzz.targets import BY_NAME, SEEDS, TARGETS, Target, accepts

EXAMPLES = 120


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_good_seed_gets_all_the_way(target: Target) -> None:
    assert [seed for seed in target.seeds if accepts(target, seed)]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@settings(max_examples=EXAMPLES, derandomize=True, database=None)
@given(data=st.data())
def test_no_bytes_make_a_parser_stumble(target: Target, data: st.DataObject) -> None:
    assert accepts(target, data.draw(inputs(target.seeds))) in (True, False)


FOUND = sorted(SEEDS.glob("*/found-*"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_made_a_parser_stumble_is_refused(path: Path) -> None:
    assert not accepts(BY_NAME[path.parent.name], path.read_bytes())


def test_every_seed_belongs_to_a_target() -> None:
    assert {folder.name for folder in SEEDS.iterdir()} <= set(BY_NAME)
    assert len(BY_NAME) == len(TARGETS)


def test_a_stumble_would_be_seen() -> None:
    with pytest.raises(ZeroDivisionError):
        accepts(Target("bad", lambda data: 1 // len(data)), b"")


@pytest.mark.parametrize(
    ("exit_code", "said", "good"),
    [
        (0, "x\nstat::number_of_executed_units: 12\n", (12, True)),
        (77, "x\nstat::number_of_executed_units: 12\n", (12, False)),
        (0, "stat::number_of_executed_units: 0\n", (0, False)),
        (0, "", (0, False)),
    ],
)
def test_a_fuzzer_that_ran_nothing_has_failed(exit_code: int, said: str, good: tuple[int, bool]) -> None:
    assert judged(exit_code, said) == good
