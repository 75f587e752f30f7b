"""The judge of experiments: it promises alpha at every look, trusts no users that were not dealt as asked,
and says the same to whoever asks again."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from penstock.analysis.experiment import SRM_ALPHA, Judgment, judge, mismatch, plan, ratio_bounds
from penstock.core.canary import Rule
from penstock.core.evidence import Entry, Envelope, Statement, Subject
from penstock.core.experiment import Arm, Experiment, Goal, Plan, Terms, Variant
from penstock.core.verdict import Cause, Result
from penstock.ledger import looks

QUIET = ((1000, 500, 500, 0, 0, 500, 0, 0),)
TERMS = Terms(effect=0.2)


def arms(control: tuple[int, int], *variants: tuple[int, int], share: int = 0) -> tuple[Arm, ...]:
    each = share or 1000 // (len(variants) + 1)
    rest = 1000 - each * len(variants)
    found = [Arm(f"v{number}", f"shop-{number}", each, *counts) for number, counts in enumerate(variants)]
    return (Arm("control", "shop-c", rest, *control), *found)


def look(*given: Arm, rows: tuple[tuple[int, ...], ...] = QUIET, terms: Terms = TERMS) -> Experiment:
    course = ((1000, given[0].users, given[0].reached, given[1].users, given[1].reached),)
    goal, guard = Goal("/orders", "POST"), Rule(1e6)
    said = ("shop-1", "button", "v0", "UNKNOWN", "", goal, terms)
    return Experiment(*said, given, 0, 3, True, guard, rows, course)


def found(*given: Arm, terms: Terms = TERMS) -> Judgment:
    return judge(look(*given, terms=terms))


def test_more_users_fewer_users_and_not_enough_of_them() -> None:
    better = found(*arms((2000, 200), (2000, 330)))
    assert better.verdict.result is Result.PASS
    assert better.verdict.reason.startswith(
        "more users reach the goal: v0 330 of 2000 users (16.50%) against control 200 of 2000 users (10.00%)"
    )
    assert better.ratio.low > 1
    worse = found(*arms((2000, 330), (2000, 200)))
    assert (worse.verdict.result, worse.broken) == (Result.FAIL, False)
    open_ = found(*arms((500, 50), (500, 60)))
    assert (open_.verdict.result, open_.verdict.cause) == (Result.UNKNOWN, Cause.MISSING)
    assert open_.more
    assert f"about {open_.more} more users are needed, about " in open_.verdict.reason


def test_the_number_of_users_that_is_said_to_be_missing_is_enough_and_not_far_more() -> None:
    control, variant = arms((500, 50), (500, 60))
    more = found(control, variant).more
    assert more

    def with_more(extra: float) -> Result:
        f = (1000 + extra) / 1000
        grown = [
            replace(a, users=round(a.users * f), reached=round(a.reached * f)) for a in (control, variant)
        ]
        return found(*grown).verdict.result

    assert (with_more(more * 1.05), with_more(more * 0.9)) == (Result.PASS, Result.UNKNOWN)


def test_no_worse_than_a_margin() -> None:
    terms = Terms("no-worse", margin=0.2)
    assert found(*arms((5000, 1000), (5000, 1010)), terms=terms).verdict.result is Result.PASS
    assert found(*arms((5000, 1000), (5000, 600)), terms=terms).verdict.result is Result.FAIL
    assert found(*arms((300, 60), (300, 60)), terms=terms).verdict.result is Result.UNKNOWN


def test_nobody_and_nothing_are_never_a_pass() -> None:
    for control, variant in (((0, 0), (0, 0)), ((10, 0), (10, 0)), ((50, 0), (50, 8))):
        verdict = found(*arms(control, variant)).verdict
        assert (verdict.result, verdict.cause) == (Result.UNKNOWN, Cause.MISSING), (control, variant)
    blind = judge(look(*arms((2000, 200), (2000, 330)), rows=()))
    assert (blind.verdict.result, blind.verdict.cause) == (Result.UNKNOWN, Cause.MISSING)
    assert blind.verdict.reason.startswith("no guardrail was read")


def test_users_that_were_not_dealt_as_asked_say_nothing_whatever_the_goal_says() -> None:
    skewed = arms((3000, 300), (2000, 500))
    assert mismatch(skewed) <= SRM_ALPHA
    verdict = found(*skewed).verdict
    assert (verdict.result, verdict.cause) == (Result.UNKNOWN, Cause.ERROR)
    assert verdict.reason.startswith(
        "sample ratio mismatch: users were not dealt as asked (control 3000 of 50%"
    )
    assert mismatch(arms((3000, 0), (2000, 0), share=400)) == 1.0
    one_of_three = arms((2000, 0), (2000, 0), (1500, 0))
    assert mismatch(one_of_three) <= SRM_ALPHA


def test_what_is_wrong_with_the_counts_comes_before_the_goal_and_a_guardrail_before_both() -> None:
    good = look(*arms((2000, 200), (2000, 330)))
    for wrong in (replace(good, fault="counting began again"), replace(good, moved=400)):
        verdict = judge(wrong).verdict
        assert (verdict.result, verdict.cause) == (Result.UNKNOWN, Cause.ERROR)
    broken = replace(good, moved=400, rows=((1000, 500, 500, 100, 0, 500, 0, 0),))
    found_ = judge(broken)
    assert (found_.verdict.result, found_.broken) == (Result.FAIL, True)
    assert found_.verdict.reason.startswith("guardrail: worse than the stable release: 100 of 500 failed")


def test_several_variants_share_alpha() -> None:
    control, variant = arms((2000, 200), (2000, 262))
    alone = found(control, variant).ratio
    third = replace(variant, name="v1")
    shares = [
        replace(arm, share=share)
        for arm, share in zip((control, variant, third), (334, 333, 333), strict=True)
    ]
    beside = judge(look(*shares)).ratio
    assert beside.low < alone.low < alone.high < beside.high


def test_false_alarms_at_every_look_are_as_rare_as_was_promised() -> None:
    """200 runs of 60 looks each; with the promise kept, more than 20 have a chance of one in 1,000."""
    rng, wrong = random.Random(7), 0
    for _ in range(200):
        counts = [[0, 0], [0, 0]]
        for _ in range(60):
            for _ in range(20):
                arm = counts[rng.random() < 0.5]
                arm[0] += 1
                arm[1] += rng.random() < 0.2
            control, variant = arms((counts[0][0], counts[0][1]), (counts[1][0], counts[1][1]))
            bounds = ratio_bounds(control, variant, 0.05, TERMS)
            if not bounds.low <= 1 <= bounds.high:
                wrong += 1
                break
    assert wrong <= 20


def asked(rate_change: float = 0.2, variants: int = 1, **terms: object) -> Plan:
    given = tuple(Variant(f"v{n}", {"X": n}, 1000 // (variants + 1)) for n in range(variants))
    return Plan("button", "shop", Goal("/"), Terms(effect=rate_change, **terms), given, "")  # type: ignore[arg-type]


def test_a_plan_says_how_many_users_and_whether_they_come_in_time() -> None:
    small, large = plan(asked(0.4), 0.05, 2000), plan(asked(0.1), 0.05, 2000)
    assert (small.reachable, large.reachable) == (True, False)
    assert small.users < large.users
    assert small.fixed < small.users < 4 * small.fixed
    assert "more than 336 hours, which is the most" in large.words
    assert plan(asked(0.4, 3), 0.05, 0).users > small.users
    assert plan(asked(0.01), 0.01, 0).reachable is False  # more than can be told apart


# --- recomputed from evidence -------------------------------------------------------------------------------


def entry(said: Experiment) -> Entry:
    statement = Statement((Subject("shop-0", "sha256:" + "0" * 64),), said)
    return Entry(1, Envelope(b"", statement.payload(), "", b""), statement)


def test_a_verdict_is_what_its_counts_give_or_it_is_found() -> None:
    good = look(*arms((2000, 200), (2000, 330)))
    good = replace(good, verdict="PASS")
    assert looks.faults(entry(good)) == []
    assert looks.faults(entry(replace(good, verdict="UNKNOWN"))) == [
        "the experiment's judge said UNKNOWN, and its evidence gives PASS"
    ]
    for lie in (
        replace(good, course=()),
        replace(good, course=((1000, 2000, 200, 2000, 331),)),
        replace(good, variant="v7"),
        replace(good, arms=(good.arms[0], replace(good.arms[1], share=300))),
        replace(good, arms=(good.arms[0], replace(good.arms[1], reached=2001))),
        replace(good, terms=replace(TERMS, alpha=0.9)),
        replace(good, rows=((1000, 500, 1, 100, 0, 500, 0, 0),)),
    ):
        assert looks.faults(entry(lie)) != [], lie


@pytest.mark.parametrize(
    ("path", "met"),
    [("/orders", True), ("/orders/7", False), ("/orders?x=1", False), ("/order", False), ("/", False)],
)
def test_a_goal_is_met_by_its_path_alone(path: str, met: bool) -> None:
    assert Goal("/orders", "POST").met("POST", path, 201) is met


def test_a_goal_is_not_met_by_another_method_or_an_answer_that_is_none() -> None:
    goal = Goal("/orders/*", "POST")
    assert goal.met("POST", "/orders/7", 303)
    wrong = [
        ("GET", "/orders/7", 200),
        ("POST", "/orders/7", 404),
        ("POST", "/orders", 200),
        ("POST", "/orders/7", 0),
    ]
    assert [goal.met(*request) for request in wrong] == [False] * 4
