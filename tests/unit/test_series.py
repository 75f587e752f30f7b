"""Metrics of the service's own: from samples to what happened, and what the judge makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.analysis.judge import judge
from penstock.analysis.plan import expect
from penstock.analysis.replay import replay
from penstock.analysis.series import faults, growth, series
from penstock.analysis.spans import Arm, Span
from penstock.core.canary import Count, Margin, Part, Rule, Sample, Series
from penstock.core.canaryconfig import CanaryConfig, Metric
from penstock.core.pipeline import Canary
from penstock.core.verdict import Cause, Result, unknown
from penstock.errors import Invalid
from penstock.server.chart import picture

METRIC = Metric("payments", "theirs", "bad", "total")
MARGIN = METRIC.margin


def count(total: int, bad: int = 0, release: str = "new", part: str = "0", epoch: str = "") -> Count:
    return Count(release, 1000.0, epoch, (Part(part, bad, total),))


def sample(new: Count, stable: Count | None = None, read: float = 1000.0) -> Sample:
    return Sample("payments", read, new, stable or replace(new, release="stable"))


def told(*samples: Sample | None) -> Series:
    return series(METRIC, 1000.0, [(500, one) for one in samples])


# --- from samples to spans --------------------------------------------------------------------------------


def test_what_happened_from_look_to_look() -> None:
    first, second = sample(count(10, 1)), sample(count(30, 2), read=1005.0)
    third = sample(count(60, 2), count(90, 4, "stable"), read=1010.0)
    found = told(first, second, third)
    assert found.spans == ((5000, 500, 20, 1, 20, 1), (10_000, 500, 30, 0, 60, 2))
    assert (found.since, found.until) == (first, third)
    assert faults(found) == []


def test_copies_come_and_go() -> None:
    """A new copy counts from zero; of one that has gone nothing more is known."""
    both = Count("new", 1.0, "", (Part("0-a", 1, 10), Part("1-b", 0, 5)))
    later = Count("new", 2.0, "", (Part("1-b", 2, 9), Part("2-c", 1, 3)))
    assert growth(both, later) == (7, 3)
    found = told(sample(both), sample(later))
    assert found.spans == ((0, 500, 7, 3, 7, 3),)
    assert faults(found) == []


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (count(5), "ran backwards"),
        (count(30, 0), "ran backwards"),
        (count(30, 1, epoch="2"), "began anew"),
    ],
)
def test_what_began_anew_is_lost_whatever_comes_later(later: Count, words: str) -> None:
    found = told(sample(count(10, 1)), sample(later), sample(replace(count(1000, 50), epoch=later.epoch)))
    assert (found.spans, found.cause) == (None, "ERROR")
    assert words in (found.reason or "")


def test_the_first_sample_may_come_late_and_others_may_be_missing() -> None:
    found = told(None, None, sample(count(10)), None, sample(count(30), read=1020.0))
    assert found.spans == ((20_000, 500, 20, 0, 20, 0),)
    assert told(None, None).reason == "payments: nothing has been counted yet"
    nothing = told(sample(count(10)), sample(count(10)))
    assert (nothing.cause, nothing.since is not None) == ("MISSING", True)


def test_a_sample_that_is_of_no_use_now_is_passed_over_later() -> None:
    wrong = unknown(Cause.STALE, "payments: old")
    taken = [(0, sample(count(10))), (500, sample(count(30))), (500, wrong)]
    assert series(METRIC, 1000.0, taken).cause == "STALE"


def test_evidence_that_does_not_add_up_is_found() -> None:
    found = told(sample(count(10, 1)), sample(count(30, 2)))
    assert faults(replace(found, spans=((0, 500, 20, 0, 20, 1),))) == [
        "payments: the looks do not add up to its samples"
    ]
    assert faults(replace(found, until=None)) != []
    assert faults(replace(found, until=sample(count(1)))) != []
    with pytest.raises(Invalid, match="6 whole numbers"):
        faults(replace(found, spans=((1, 2),)))


# --- what the judge makes of it ---------------------------------------------------------------------------

RULE = Rule(60.0, metrics=(MARGIN,))
FINE = [Span(5.0 * n, 500, Arm(200, 0), Arm(200, 0)) for n in range(1, 7)]


def rows(new: tuple[int, int], stable: tuple[int, int], looks: int = 6) -> Series:
    return Series("payments", spans=tuple((5000 * n, 500, *new, *stable) for n in range(1, looks + 1)))


def test_all_metrics_share_one_alpha() -> None:
    assert Rule(60.0).alpha_each == 0.01
    assert Rule(60.0, slow_ms=20.0, metrics=(MARGIN,)).alpha_each == pytest.approx(0.01 / 3)
    judgment = judge(FINE, RULE, series=[rows((200, 0), (200, 0))])
    assert {finding.alpha for finding in judgment.findings} == {0.01 / 2 * 0.2}


def test_it_passes_only_if_every_metric_does() -> None:
    assert judge(FINE, RULE, series=[rows((200, 0), (200, 0))]).verdict.result is Result.PASS
    few = judge(FINE, RULE, series=[rows((10, 0), (10, 0))])
    assert (few.verdict.result, few.verdict.cause) == (Result.UNKNOWN, Cause.MISSING)
    assert "more events of payments of the new release are needed, about" in few.verdict.reason
    assert "0 of 60 bad by payments against 0 of 60" in few.verdict.reason


def test_a_rise_by_one_metric_alone_stops_it() -> None:
    judgment = judge(FINE, RULE, series=[rows((200, 20), (200, 0))])
    assert judgment.verdict.result is Result.FAIL
    assert "120 of 1200 bad by payments against 0 of 1200" in judgment.verdict.reason


def test_a_rise_within_its_margin_stops_nothing() -> None:
    wide = replace(RULE, metrics=(replace(MARGIN, points=0.2),))
    judgment = judge(FINE, wide, series=[rows((200, 20), (200, 0))])
    assert judgment.verdict.result is Result.PASS, "10 points more, of 20"
    assert judgment.findings[1].p < judgment.findings[1].alpha, "though it is shown"


@pytest.mark.parametrize(
    ("found", "cause", "words"),
    [
        ([], Cause.MISSING, "nothing was counted in this canary"),
        ([Series("payments", cause="STALE", reason="payments: old")], Cause.STALE, "payments: old"),
        ([Series("payments")], Cause.ERROR, "not told"),
        ([rows((0, 0), (5, 0))], Cause.MISSING, "the new release has counted no event yet"),
        ([rows((5, 0), (0, 0))], Cause.MISSING, "the stable release has counted no event yet"),
    ],
)
def test_what_cannot_be_told_never_passes(found: list[Series], cause: Cause, words: str) -> None:
    judgment = judge(FINE, RULE, series=found)
    assert (judgment.verdict.result, judgment.verdict.cause) == (Result.UNKNOWN, cause)
    assert words in judgment.verdict.reason
    worse = [replace(span, new=Arm(200, 100)) for span in FINE]
    assert judge(worse, RULE, series=found).verdict.result is Result.FAIL, "and hides nothing that users see"


def test_of_logs_no_more_requests_are_bad_than_there_are() -> None:
    judgment = judge(FINE, RULE, series=[rows((200, 2000), (200, 2000))])
    assert judgment.findings[1].new == (1200, 1200)


# --- before and afterwards --------------------------------------------------------------------------------

PLAN = Canary((100, 500), seconds_per_step=60.0, look_every=5.0, patience=60.0)
CONFIG = CanaryConfig((10.0, 50.0), 60.0, 5.0, 60.0, metrics=(METRIC,))


def test_a_plan_says_what_a_metric_will_show() -> None:
    rule = CONFIG.rule()
    assert rule.metrics == (Margin("payments", "theirs", 2.0, 0.01),)
    good = expect(
        METRIC, Count("s", 0.0, "", (Part("", 0, 0),)), Count("s", 3.0, "", (Part("", 0, 300),)), PLAN, rule
    )
    assert (good.reachable, good.words.startswith("payments: 100 events a second, 0.00% of them bad")) == (
        True,
        True,
    )
    few = expect(
        METRIC, Count("s", 0.0, "", (Part("", 0, 0),)), Count("s", 3.0, "", (Part("", 0, 1),)), PLAN, rule
    )
    assert not few.reachable
    assert "generated" not in few.words, "nobody can generate a payment"
    still = Count("s", 0.0, "", (Part("", 0, 7),))
    assert "nothing was counted while it was measured" in expect(METRIC, still, still, PLAN, rule).words
    away = unknown(Cause.ERROR, "payments: away")
    assert (
        expect(METRIC, still, away, PLAN, rule).words
        == expect(METRIC, away, still, PLAN, rule).words
        == away.reason
    )


def test_a_replay_looks_at_a_metric_as_far_as_it_was_known_then() -> None:
    late = Series(
        "payments", spans=tuple((5000 * n + 40, 500, 200, 90 * (n > 3), 200, 0) for n in range(1, 7))
    )
    found = replay(FINE, RULE, series=[late])
    assert (found.verdict, found.stopped) == ("FAIL", 4)
    assert [len(look.metrics) for look in found.looks] == [1] * 4
    drawn = picture(found)
    assert drawn is not None
    assert [panel.title.partition(",")[0] for panel in drawn.metrics] == ["How much more is bad by payments"]
    assert picture(replay(FINE, RULE, series=[Series("payments", cause="STALE", reason="old")])) is not None
