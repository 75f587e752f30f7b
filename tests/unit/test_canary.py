"""The canary's check on counters that tests write: looks build on one another, and can be judged again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fakes.platform import FakePlatform
from penstock.analysis.plan import Traffic, foresee
from penstock.checks import canary
from penstock.config import CanaryConfig, ServiceConfig
from penstock.core.canaryconfig import Metric
from penstock.core.digest import digest
from penstock.core.evidence import Entry, Statement, Subject, seal
from penstock.core.fence import Fence
from penstock.core.pipeline import Canary, Intent, Looked, Measured, State
from penstock.core.predicates import Look
from penstock.core.release import Change, EnvironmentData, Release
from penstock.core.traffic import Counters
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
    #: Requests of the stable release in the second before each reading.
    rate: int = 0
    metrics: tuple[Metric, ...] = ()
    meters: Mapping[str, Meter] = field(default_factory=dict)
    data: EnvironmentData = DATA

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        self.at += 0.01 if not self.rate else 1.0
        self.counts[STABLE.id][0] += self.rate
        return tuple(
            Counters(release, self.at, self.epoch, n, bad, self._latency(n, slow))
            for release, (n, bad, slow) in self.counts.items()
        )

    def _latency(self, requests: int, slow: int) -> Mapping[str, int]:
        return {"5": requests - slow, "20": requests - slow, "100": requests}

    def serve(self, release: Release, requests: int, bad: int = 0, slow: int = 0) -> None:
        for place, more in enumerate((requests, bad, slow)):
            self.counts[release.id][place] += more

    async def measure(self) -> Outcome:
        outcome = await canary.measure(self.task(0), metrics=self, meters=self.meters)
        assert isinstance(outcome.detail, Measured)
        self.measured = outcome.detail
        return outcome

    async def look(self, share: int = 100, seconds: float = 5.0) -> Outcome:
        self.at += seconds
        platform = FakePlatform()
        outcome = await canary.look(self.task(share), metrics=self, platform=platform, meters=self.meters)
        assert isinstance(outcome.detail, Looked)
        self.looked = (*self.looked, (share, outcome.detail))
        return outcome

    def task(self, share: int) -> Task:
        return Task(
            delivery="shop-1",
            intent=Intent("canary", "look", len(self.looked), share),
            change=CHANGE,
            config=ServiceConfig(service="shop", canary=replace(PLAN, metrics=self.metrics)),
            fence=Fence("shop/production", 1, "shop-1/canary/look/0"),
            work=Path("/work"),
            log=Path("/log"),
            data=self.data,
            release=NEW,
            baseline=STABLE,
            measured=self.measured,
            looked=self.looked,
            canary=Canary((100, 500), 20.0, 0.01, 20.0),
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


def test_a_canary_that_is_too_short_to_call_a_service_quiet_says_so() -> None:
    short = Canary((500,), seconds_per_step=6.0, look_every=2.0, patience=5.0)
    quiet, rule = Traffic(20.0, 1, 0), ServiceConfig().canary.rule(None)
    assert "no service is called quiet on less than 30 s: give it longer" in foresee(quiet, short, rule).words
    longer = replace(short, patience=30.0)
    assert "generated requests stand in" in foresee(quiet, longer, rule).words
