"""What the door takes for the same report over again, and what it takes for news."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.core.predicates import Imported, Predicate, TestResult
from penstock.engine.door import REPEAT, _repeats

RESULT = TestResult("PASSED", "load", (), 3, 0, 0, (), "external", None, "jenkins", "sha256:" + "a" * 64)
SIGNED = Imported("scanner", "https://example.org/x", "e30=")


@pytest.mark.parametrize("said", [RESULT, SIGNED])
def test_what_is_sent_again_is_one_report_and_a_later_run_is_another(said: Predicate) -> None:
    last = replace(said, at=1000.0)  # type: ignore[arg-type]
    assert _repeats(last, said, 1000.0)
    assert _repeats(last, said, 1000.0 + REPEAT - 1)
    assert not _repeats(last, said, 1000.0 + REPEAT)
    assert not _repeats(said, said, 1000.0)  # nobody knows when that was


def test_another_result_is_always_news() -> None:
    last = replace(RESULT, at=1000.0)
    for other in (replace(RESULT, passed=4), replace(RESULT, report="sha256:" + "b" * 64)):
        assert not _repeats(last, other, 1000.0)
