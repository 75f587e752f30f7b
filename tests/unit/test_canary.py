"""The canary's check on counters that tests write: looks build on one another, and can be judged again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fakes.platform import FakePlatform
from penstock.analysis.plan import Traffic, foresee
from penstock.checks import canary
from penstock.config import CanaryConfig, ServiceConfig
from penstock.core.canary import Latencies
from penstock.core.canaryconfig import JudgeConfig, Metric
from penstock.core.digest import digest
from penstock.core.evidence import Entry, Statement, Subject, seal
from penstock.core.fence import Fence
from penstock.core.pipeline import Canary, Intent, Looked, Measured, State
from penstock.core.predicates import Look
from penstock.core.release import Change, EnvironmentData, Release
from penstock.core.traffic import Counters
from penstock.core.workload import Workload
from penstock.engine.plans import canary_plan
from penstock.ledger import looks
from penstock.ports import Meter, Outcome, Task

DATA = EnvironmentData("shop", "production", {})
STABLE, NEW = (Release("shop", "production", digest(name), DATA.digest) for name in (b"1", b"2"))
PLAN = CanaryConfig((10.0, 50.0), seconds_per_step=20.0, look_every=0.01, patience=20.0)
CHANGE = Change("code", "shop", "production", "/repo", "1" * 40, "Dana", "A change")


@dataclass
class Town:
    """Counters that a test moves on; looks go on from those before them, as the engine has them do."""

    counts: dict[str, list[int]] = field(default_factory=lambda: {NEW.id: [0, 0, 0], STABLE.id: [1000, 1, 0]})
    at: float = 100.0
    epoch: str = "1"
    measured: Measured | None = None
    looked: tuple[tuple[int, Looked], ...] = ()
    #: So many readings more are those of the same moment, as of a collector that was not there again.
    still: int = 0
    #: Requests of the stable release in the second before each reading.
    rate: int = 0
    config: CanaryConfig = PLAN
    platform: FakePlatform = field(default_factory=FakePlatform)
    metrics: tuple[Metric, ...] = ()
    meters: Mapping[str, Meter] = field(default_factory=dict)
    data: EnvironmentData = DATA

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        if self.still:
            self.still -= 1
        else:
            self.at += 0.01 if not self.rate else 1.0
        self.counts[STABLE.id][0] += self.rate
        return tuple(
            Counters(release, self.at, self.epoch, n, bad, self._latency(n, slow))
            for release, (n, bad, slow) in self.counts.items()
        )

    def _latency(self, requests: int, slow: int) -> Mapping[str, int]:
        return {"5": requests - slow, "20": requests - slow, "100": requests}

    def serve(self, release: Release | str, requests: int, bad: int = 0, slow: int = 0) -> None:
        name = release if isinstance(release, str) else release.id
        for place, more in enumerate((requests, bad, slow)):
            self.counts[name][place] += more

    async def measure(self) -> Outcome:
        outcome = await canary.measure(self.task(0), metrics=self, meters=self.meters)
        assert isinstance(outcome.detail, Measured)
        self.measured = outcome.detail
        return outcome

    async def look(self, share: int = 100, seconds: float = 5.0) -> Outcome:
        self.at += seconds
        used = {"metrics": self, "platform": self.platform, "meters": self.meters}
        outcome = await canary.look(self.task(share), **used)
        assert isinstance(outcome.detail, Looked)
        self.looked = (*self.looked, (share, outcome.detail))
        return outcome

    def task(self, share: int) -> Task:
        return Task(
            delivery="shop-1",
            intent=Intent("canary", "look", len(self.looked), share),
            change=CHANGE,
            config=ServiceConfig(service="shop", canary=replace(self.config, metrics=self.metrics)),
            fence=Fence("shop/production", 1, "shop-1/canary/look/0"),
            work=Path("/work"),
            log=Path("/log"),
            data=self.data,
            release=NEW,
            baseline=STABLE,
            measured=self.measured,
            looked=self.looked,
            canary=canary_plan(self.config),
        )


def said(outcome: Outcome) -> Look:
    (statement,) = outcome.statements
    assert isinstance(statement.predicate, Look)
    return statement.predicate


def entry(look: Look) -> Entry:
    statement = Statement((Subject(NEW.id, NEW.digest),), look)
    sealed = seal(statement.payload(), "ab" * 32, b"signature")
    assert sealed.statement() == statement, "it comes back from its bytes"
    return Entry(0, sealed, statement)


async def test_looks_build_on_one_another_and_anybody_can_judge_them_again() -> None:
    town = Town()
    await town.measure()
    for number in range(8):
        town.serve(NEW, 50 if number < 4 else 250)
        town.serve(STABLE, 450 if number < 4 else 250, bad=number % 2)
        outcome = await town.look(100 if number < 4 else 500)
    look = said(outcome)
    assert (look.verdict, outcome.state) == ("PASS", State.SUCCESS)
    assert look.spans is not None
    assert [span[1] for span in look.spans] == [100] * 4 + [500] * 4
    assert sum(span[2] for span in look.spans) == 1200
    assert looks.faults(entry(look)) == []


async def test_a_look_between_two_collections_of_the_counts_waits_for_the_next_one() -> None:
    town = Town()
    await town.measure()
    town.serve(NEW, 50)
    town.serve(STABLE, 450)
    town.still = 3
    look = said(await town.look(seconds=0.0))
    assert (town.still, look.cause, look.new_to.requests) == (0, "MISSING", 50)
    town.config, town.still = replace(PLAN, patience=0.0), 3
    assert said(await town.look(seconds=0.0)).cause == "STALE"
    assert town.still == 2


async def test_a_verdict_that_its_evidence_does_not_give_is_found() -> None:
    town = Town()
    await town.measure()
    town.serve(NEW, 50, bad=1)
    town.serve(STABLE, 450)
    look = said(await town.look())
    assert looks.faults(entry(look)) == []
    assert "evidence gives UNKNOWN" in looks.faults(entry(replace(look, verdict="PASS")))[0]
    fewer = replace(look, new_to=replace(look.new_to, errors=0))
    assert "do not add up" in looks.faults(entry(fewer))[0]
    assert look.rule is not None
    assert looks.faults(entry(replace(look, rule=replace(look.rule, alpha=0.0)))) != []
    assert looks.faults(entry(replace(look, spans=((1, 2),)))) != []


async def test_what_is_slow_is_fixed_before_the_canary() -> None:
    town = Town()
    await town.measure()
    town.serve(NEW, 40, slow=30)
    town.serve(STABLE, 400)
    outcome = await town.look()
    assert outcome.state is State.FAILURE
    assert "30 of 40 slower than 20 ms" in outcome.reason
    assert looks.faults(entry(said(outcome))) == []


async def test_a_quantile_is_judged_by_histograms_that_are_evidence() -> None:
    town = Town(config=replace(PLAN, judge=JudgeConfig(quantiles=(95.0,))))
    await town.measure()
    for number in range(6):
        town.serve(NEW, 50 if number < 3 else 250)
        town.serve(STABLE, 450 if number < 3 else 250)
        look = said(await town.look(100 if number < 3 else 500))
    assert look.verdict == "PASS"
    assert "p95 4.75 ms against 4.75 ms (+0 ms, -5 to +5; " in look.explanation
    first, second = (100, 150, 0, 0, 0, 1350, 0, 0, 0), (500, 750, 0, 0, 0, 750, 0, 0, 0)
    assert look.latencies == Latencies((5.0, 20.0, 100.0), (first, second))
    assert looks.faults(entry(look)) == []
    dropped = looks.faults(entry(replace(look, latencies=None)))
    assert dropped == ["the canary's judge said PASS, and its evidence gives UNKNOWN"]
    changed = replace(look.latencies, steps=((100, 850, *first[2:]), second))
    assert "do not add up" in looks.faults(entry(replace(look, latencies=changed)))[0]
    assert looks.faults(entry(replace(look, latencies=Latencies((5.0,), ((1, 2),))))) != []


async def test_a_slower_quantile_ends_the_canary() -> None:
    """Fewer slow requests than the margin of five points: only the quantile sees them."""
    town = Town(config=replace(PLAN, judge=JudgeConfig(quantiles=(99.0,))))
    await town.measure()
    town.serve(NEW, 600, slow=24)
    town.serve(STABLE, 1200)
    outcome = await town.look(500)
    assert outcome.state is State.FAILURE
    assert outcome.reason.startswith("worse than the stable release: p99 80 ms against 4.95 ms (+75 ms, ")
    assert looks.faults(entry(said(outcome))) == []


async def test_a_reading_that_is_of_no_use_is_told_and_the_next_look_goes_on() -> None:
    town = Town()
    await town.measure()
    town.epoch = "2"
    town.serve(STABLE, 900)
    outcome = await town.look()
    look = said(outcome)
    assert (look.verdict, look.spans, look.quiet) == ("UNKNOWN", None, False)
    assert "restarted" in outcome.reason
    town.epoch = "1"
    town.serve(NEW, 10)
    assert "10" in (await town.look()).reason


async def test_a_quiet_service_is_told_before_it_starts_what_it_cannot_reach() -> None:
    """Three requests a minute."""
    town = Town(counts={NEW.id: [0, 0, 0], STABLE.id: [40, 0, 0]})
    outcome = await town.measure()
    assert "nobody asked while it was measured" in outcome.reason
    for number in range(12):
        town.serve(STABLE if number % 2 else NEW, 1)
        outcome = await town.look(500, seconds=20.0)
    look = said(outcome)
    assert (look.verdict, look.quiet) == ("UNKNOWN", True)
    assert (
        "396 more requests of the new release are needed, about 4 hours at the present rate" in outcome.reason
    )
    assert looks.faults(entry(look)) == []


async def test_what_the_plan_can_show_is_said_when_it_begins() -> None:
    town = Town(rate=100)
    outcome = await town.measure()
    assert "100 requests a second" in outcome.reason
    assert "a good release passes after about 40 s of 40; by the last step a rise to" in outcome.reason


async def test_what_takes_longer_than_the_steps_is_no_part_of_them() -> None:
    town = Town(rate=100, config=replace(PLAN, seconds_per_step=4.0, patience=60.0))
    outcome = await town.measure()
    said = outcome.reason.partition("a good release ")[2].partition(";")[0]
    assert said == "passes after about 16 s"
    assert "16 s; its steps take 8, and it stays at 50% until then; by the last step" in outcome.reason


def test_a_canary_that_is_too_short_to_call_a_service_quiet_says_so() -> None:
    short = Canary((500,), seconds_per_step=6.0, look_every=2.0, patience=5.0)
    quiet, rule = Traffic(20.0, 1, 0), ServiceConfig().canary.rule(None)
    assert "no service is called quiet on less than 30 s: give it longer" in foresee(quiet, short, rule).words
    longer = replace(short, patience=30.0)
    assert "generated requests stand in" in foresee(quiet, longer, rule).words


# --- beside a fresh baseline --------------------------------------------------------------------------------


def beside() -> Town:
    """Fresh copies of the stable release stand beside those that have served a thousand requests."""
    counts = {NEW.id: [0, 0, 0], STABLE.fresh: [0, 0, 0], STABLE.id: [1000, 1, 0]}
    return Town(counts, config=replace(PLAN, baseline="fresh"))


async def test_the_new_release_is_compared_with_fresh_copies_and_not_with_those_that_have_run() -> None:
    town = beside()
    await town.measure()
    for _ in range(8):
        town.serve(NEW, 200, bad=4)
        town.serve(STABLE.fresh, 200, bad=4)
        town.serve(STABLE, 1600)  # which are warm
        outcome = await town.look(100)
    look = said(outcome)
    assert look.verdict == "UNKNOWN", "as bad as the fresh ones; beside the others it would be worse"
    assert look.stable_to.release == STABLE.fresh
    assert look.spans is not None
    assert sum(span[5] for span in look.spans) == 1600
    assert look.rule is not None
    assert look.rule.baseline == "fresh"
    assert looks.faults(entry(look)) == []
    town = beside()
    await town.measure()
    town.serve(NEW, 200, bad=60)
    town.serve(STABLE.fresh, 200, bad=4)
    outcome = await town.look(100)
    assert (outcome.state, outcome.reason.partition(":")[0]) == (
        State.FAILURE,
        "worse than the fresh baseline",
    )


async def test_what_is_slow_and_what_can_be_shown_is_told_from_the_copies_that_have_run() -> None:
    town = beside()
    town.rate = 100
    outcome = await town.measure()
    assert "100 requests a second" in outcome.reason
    town.rate = 0
    town.serve(NEW, 40, slow=30)
    town.serve(STABLE.fresh, 40)
    outcome = await town.look()
    assert outcome.state is State.FAILURE
    assert "30 of 40 slower than 20 ms against 0 of 40" in outcome.reason


@pytest.mark.parametrize(("elsewhere", "quiet"), [(20, True), (2000, False)])
async def test_no_service_is_quiet_because_few_of_its_users_are_compared(elsewhere: int, quiet: bool) -> None:
    town = beside()
    await town.measure()
    town.serve(NEW, 10)
    town.serve(STABLE.fresh, 10)
    town.serve(STABLE, elsewhere)
    assert said(await town.look(10, seconds=40.0)).quiet is quiet


async def test_a_fresh_baseline_that_keeps_ending_ends_the_canary_as_one_that_cannot_tell() -> None:
    town = beside()
    fence = Fence("shop/production", 1, "key")
    await town.platform.place(Workload("shop", "production", STABLE.fresh, "", ("fail",)), fence=fence)
    for _ in range(9):
        await town.platform.tend()
    await town.measure()
    town.serve(NEW, 10)
    town.serve(STABLE.fresh, 10, bad=10)
    outcome = await town.look()
    assert outcome.state is State.ERROR
    assert f"{STABLE.fresh} keeps ending" in outcome.reason
    assert looks.faults(entry(said(outcome))) == []


def test_a_plan_with_a_fresh_baseline_has_as_many_requests_on_both_sides() -> None:
    config = replace(PLAN, baseline="fresh")
    steps = foresee(Traffic(10.0, 1000, 0), canary_plan(config), config.rule()).steps
    assert [(step.new, step.stable) for step in steps] == [(200.0, 200.0), (1000.0, 1000.0)]
