"""Counters and lines of services' own: what is read, what is passed over, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from penstock.adapters.processes.counting import MOST_LOG, Counting
from penstock.adapters.processes.record import Place, Record, rotate
from penstock.core.canary import Count
from penstock.core.canaryconfig import CanaryConfig, Metric
from penstock.core.exposed import Told, selector, told
from penstock.core.loglines import bad_lines
from penstock.core.workload import Isolation
from penstock.errors import Invalid, Unavailable

PAGE = r"""# HELP paid_total Payments.
# TYPE paid_total counter
paid_total{outcome="ok",method="card \"x\", y"} 5
paid_total{outcome="failed",} 2 1700000000000
paid_total_seconds 9.25
paid_total{outcome="ok",method="\\"} 1.0
# TYPE refunds counter
queue NaN
nothing at all {{{
open_total 7 1700000000.5 # {trace="1"} 1
"""


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("paid_total", Told(8, 1700000000.0)),
        ('paid_total{outcome="failed"}', Told(2, 1700000000.0)),
        ('paid_total{outcome="ok", method="card \\"x\\", y"}', Told(5)),
        ('paid_total{outcome="lost"}', Told(0)),
        ("paid_total{}", Told(8, 1700000000.0)),
        ("refunds", Told(0)),
        ("refunds_total", Told(0)),
        ("open_total", Told(7, 1700000000.5)),
        ("paid", None),
        ("HELP", None),
    ],
)
def test_a_counter_is_read_among_others(asked: str, found: Told | None) -> None:
    assert told(PAGE, selector(asked)) == found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a NaN", "NaN is no number of events"),
        ("a 1.5", "1.5 is no whole number"),
        ("a -1", "-1 is no whole number"),
        ("a 1e300", "no whole number"),
        ("a 1_000", "should be a number is none"),
        ("a", None),
        ("a ", "neither a value"),
        ("a 1 2 3", "neither a value"),
        ("a 1 soon", "should be a number is none"),
        ('a{x="1" 2', "labels that do not end"),
        ('a{x="1",x="2"} 2', "the label x twice"),
        ("a{x=1} 2", "labels that do not end"),
        ("a 1\na 1", "the same series twice"),
        ('a{x="1",y="2"} 1\na{y="2",x="1"} 1', "the same series twice"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_not_shown(line: str, words: str | None) -> None:
    if words is None:
        assert told(line, selector("a")) is None
        return
    with pytest.raises(Invalid, match=words) as caught:
        told(f"b 1\n{line}\n", selector("a"))
    assert "line " in str(caught.value)


def test_ten_thousand_labels_do_not_take_long() -> None:
    labels = ",".join(f'l{n}="{n}"' for n in range(10_000))
    assert told(f"a{{{labels}}} 3", selector("a")) == Told(3)


# --- what penstock.yaml may ask for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (Metric("Payments", "theirs", "a", "b"), "is not a name"),
        (Metric("m", "theirs", "a"), "metric from theirs needs total"),
        (Metric("m", "logs"), "metric from logs needs level or contains"),
        (Metric("m", "logs", "a", level="error"), "metric from logs takes no bad"),
        (Metric("m", "exposed", "a", "b", level="error"), "takes no level or contains"),
        (Metric("m", "logs", contains=("", "x")), "an empty text is in every line"),
        (Metric("m", "exposed", "a(b)", "c"), "only labels with exact values"),
        (Metric("m", "exposed", "a", "b", "metrics"), "path begins with a slash"),
        (Metric("m", "theirs", "a", "b", "/metrics"), "only a metric that is exposed has one"),
        (Metric("m", "theirs", "a\nb", "b"), "one line of at most"),
        (Metric("m", "theirs", "a", "b" * 2001), "one line of at most"),
        (Metric("m", "theirs", "a", "b", ratio=0.5), "ratio must be 1 or more"),
        (Metric("m", "theirs", "a", "b", ratio=1, points=0), "nothing could ever be shown"),
        (Metric("m", "theirs", "a", "b", points=100), "below 100 per cent"),
        (Metric("m", "theirs", "a", "b", fresh_seconds=0), "fresh_seconds"),
    ],
)
def test_a_metric_that_cannot_be_counted_is_refused(metric: Metric, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        CanaryConfig(metrics=(metric,)).check()
    assert str(caught.value).startswith("penstock.yaml: canary.metrics")


def test_metrics_have_names_of_their_own_and_are_few() -> None:
    good = Metric("m", "theirs", "a", "b")
    with pytest.raises(Invalid, match="there twice"):
        CanaryConfig(metrics=(good, good)).check()
    with pytest.raises(Invalid, match="at most 10"):
        CanaryConfig(metrics=tuple(Metric(f"m{n}", "theirs", "a", "b") for n in range(11))).check()


# --- lines -------------------------------------------------------------------------------------------------

LINES = [
    b"plain, and all is well",
    b"an ERROR of the plain kind",
    b'{"level": "error", "message": "x"}',
    b'{"severity": "CRITICAL"}',
    b'{"level": "warn"}',
    b'{"level": 50}',
    b'{"level": 30}',
    b'{"level": true}',
    b'{"level": ["error"]}',
    b'["error"]',
    b'{"level": "error"',
    b"\xff\xfe ERROR",
    json.dumps({"level": "error", "more": "x" * 100_000}).encode(),
]


@pytest.mark.parametrize(
    ("metric", "count"),
    [
        (Metric("m", "logs", level="error"), 3),
        (Metric("m", "logs", level="warning"), 4),
        (Metric("m", "logs", level="critical"), 1),
        (Metric("m", "logs", contains=("ERROR",)), 2),
        (Metric("m", "logs", contains=("ERROR", "plain")), 3),
        (Metric("m", "logs", contains=("ERROR",), level="error"), 5),
    ],
)
def test_which_lines_count(metric: Metric, count: int) -> None:
    assert bad_lines(metric, LINES) == count


# --- logs that go on, and are emptied ----------------------------------------------------------------------

ERRORS = Metric("m", "logs", contains=("ERROR",))


class Diary:
    """One copy's log, as the driver keeps it."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder / "s", folder / "logs", folder / "data")
        self.copies = [Record("0")]
        self.counting = Counting(Isolation.NONE)
        self.place.logs.mkdir(parents=True)

    def write(self, text: str, copy: str = "0") -> None:
        with self.place.log(Record(copy)).open("a") as file:
            file.write(text)

    async def bad(self) -> int:
        found = await self.counting.count(ERRORS, "shop-1", self.place, self.copies)
        assert isinstance(found, Count)
        assert abs(found.at - time.time()) < 60
        return found.bad


async def test_lines_are_counted_once_and_from_the_first_question_on(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    diary.write("ERROR before anybody asked\n")
    assert await diary.bad() == 0
    diary.write("ERROR\nfine\nERR")
    assert await diary.bad() == 1
    diary.write("OR\n")
    assert await diary.bad() == 2, "a line that was not whole yet"
    diary.copies.append(Record("1"))
    diary.write("ERROR\n", "1")
    assert await diary.bad() == 3, "a copy that came later, from its beginning"
    diary.copies.pop()
    assert await diary.bad() == 3, "and what it wrote stays"


async def test_a_log_that_was_rotated_goes_on(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    diary.write("a first line that can be told from all the others\n")
    assert await diary.bad() == 0
    diary.write("ERROR\n")
    diary.write("x" * 1000 + "\n")
    log = diary.place.log(Record("0"))
    log.with_suffix(".log.1").write_bytes(log.read_bytes())
    log.write_text("")
    diary.write("ERROR\n" * 3)
    assert await diary.bad() == 4
    rotate(diary.place, Record("0"))
    assert await diary.bad() == 4, "it is not as large as that"


async def test_more_than_can_be_looked_at_is_told_and_counted_anew(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    diary.write("begin\n")
    before = await diary.counting.count(ERRORS, "shop-1", diary.place, diary.copies)
    diary.write(("x" * 1023 + "\n") * (MOST_LOG // 1024 + 1))
    with pytest.raises(Unavailable, match="faster than it could be counted"):
        await diary.bad()
    after = await diary.counting.count(ERRORS, "shop-1", diary.place, diary.copies)
    assert before is not None
    assert after is not None
    assert before.epoch != after.epoch


async def test_what_was_counted_of_a_release_is_forgotten_with_it(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    first = await diary.counting.count(ERRORS, "shop-1", diary.place, diary.copies)
    diary.counting.forget("shop-1")
    again = await diary.counting.count(ERRORS, "shop-1", diary.place, diary.copies)
    assert first is not None
    assert again is not None
    assert first.epoch != again.epoch
