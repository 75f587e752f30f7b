"""The report of a service's own acceptance tests: whatever they put there is looked at before it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.checks.acceptance import _read_report
from penstock.checks.reports import MAX_BYTES, JUnit
from penstock.core.workload import StepResult

GOOD = b'<testsuite><testcase classname="a" name="b"/></testsuite>'
DONE = StepResult(0, "", 1.0)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "secret.xml").write_bytes(GOOD)
    (tmp_path / "copy").mkdir()
    return tmp_path / "copy"


def test_a_report_is_read(copy: Path) -> None:
    (copy / "junit.xml").write_bytes(GOOD)
    assert _read_report(copy, "junit.xml", DONE) == JUnit(1, 0, 0, ())


def test_a_link_out_of_the_repository_is_not_followed(copy: Path) -> None:
    (copy / "junit.xml").symlink_to(copy.parent / "secret.xml")
    (copy / "out").symlink_to(copy.parent)
    for name in ("junit.xml", "out/secret.xml", "../secret.xml", str(copy.parent / "secret.xml")):
        assert "out of the repository" in str(_read_report(copy, name, DONE))


def test_one_that_would_fill_the_memory_is_not_read(copy: Path) -> None:
    (copy / "junit.xml").touch()
    os.truncate(copy / "junit.xml", MAX_BYTES + 1)  # takes no room on the disk
    assert "larger than" in str(_read_report(copy, "junit.xml", DONE))
