"""An experiment with two variants, from the first user to the last: what the plan does, what actions make of
traffic, what a look says, and that users are always brought back."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from penstock.actions import experiment, rollback
from penstock.checks import weigh
from penstock.config import ServiceConfig
from penstock.core.canary import ROW
from penstock.core.canaryconfig import CanaryConfig, JudgeConfig
from penstock.core.decide import UNDO, Finish, Perform, Wait, decide
from penstock.core.digest import digest
from penstock.core.experiment import MOST_LOOKS, Dealt, Experiment, Goal, Plan, Terms, Variant, Weighed
from penstock.core.fence import Fence
from penstock.core.pipeline import Begun, Facts, Gated, Intent, Record, State
from penstock.core.predicates import RolledBack, Shifted
from penstock.core.release import Artifact, Change, EnvironmentData, Release, Value, Variable
from penstock.core.traffic import WHOLE, Backend, TrafficPlan, Weight, sticky_cookie
from penstock.engine.begin import dealt
from penstock.engine.plans import experiment as planned
from penstock.errors import Invalid
from penstock.ledger.live import Live
from penstock.ports import Image, Outcome, Surplus, Task

FENCE = Fence("shop/production", 1, "shop-1/stage/verb/0")
DATA = {n: EnvironmentData("shop", "production", {"BUTTON": n}) for n in ("live", "fast", "loud")}
ARTIFACT = Artifact("shop", digest(b"image"))
CONTROL, FAST, LOUD = (Release("shop", "production", ARTIFACT.digest, data.digest) for data in DATA.values())
ASKED = Plan(
    "button",
    "shop",
    Goal("/thanks"),
    Terms(effect=0.5, longest=3600.0),
    (Variant("fast", {"BUTTON": "fast"}, 300), Variant("loud", {"BUTTON": "loud"}, 300)),
    "",
)
PIPELINE = planned(ASKED, ServiceConfig(service="shop"))


class Scene:
    """Control and both variants are placed; *weighed* is what the steps so far have left."""

    def __init__(self) -> None:
        self.router, self.platform = FakeRouter(), FakePlatform()
        self.config = ServiceConfig(service="shop")
        self.weighed: tuple[Weighed, ...] = ()
        self.looks = 0

    async def placed(self) -> None:
        backends = []
        for release in (CONTROL, FAST, LOUD):
            self.router.up.add(f"unix:/{release.id}")
            backends.append(Backend(release.id, (f"unix:/{release.id}",)))
        plan = TrafficPlan("shop", "production", tuple(backends), (Weight(CONTROL.id, WHOLE),))
        await self.router.apply(plan, fence=FENCE)

    def task(self, verb: str, target: str = "") -> Task:
        change = Change("experiment", "shop", "production", "", "", "Dana", "A question")
        return Task(
            delivery="shop-1",
            intent=Intent("experiment", verb, self.looks, target=target),
            change=change,
            config=self.config,
            fence=FENCE,
            work=Path("/work"),
            log=Path("/log"),
            artifact=ARTIFACT,
            release={"loud": LOUD}.get(target, FAST),
            baseline=CONTROL,
            experiment=ASKED,
            variants=(FAST, LOUD),
            weighed=self.weighed,
        )

    async def assign(self) -> Outcome:
        return self._kept(
            await experiment.assign(self.task("assign"), router=self.router, metrics=self.router)
        )

    async def look(self) -> Outcome:
        made = await weigh.perform(self.task("weigh"), metrics=self.router, platform=self.platform)
        self.looks += 1
        return self._kept(made)

    def _kept(self, made: Outcome) -> Outcome:
        assert isinstance(made.detail, Weighed)
        self.weighed = (*self.weighed, made.detail)
        return made

    def users(self, count: int, reaching: dict[str, float]) -> None:
        """So many come; of those of each release, a part reaches the goal."""
        seen = {release.id: 0 for release in (CONTROL, FAST, LOUD)}
        for _ in range(count):
            _, release, cookies = self.router.ask("http://shop.production", {})
            seen[release] += 1
            ticket = cookies[sticky_cookie("shop-1")]
            name = {FAST.id: "fast", LOUD.id: "loud"}.get(release, "control")
            if int(seen[release] * reaching[name]) > int((seen[release] - 1) * reaching[name]):
                header = {"cookie": f"{sticky_cookie('shop-1')}={ticket}"}
                self.router.ask("http://shop.production", header, "/thanks")


@pytest.fixture
async def scene() -> Scene:
    made = Scene()
    await made.placed()
    return made


def said(outcome: Outcome) -> dict[str, Experiment]:
    found = [s.predicate for s in outcome.statements if isinstance(s.predicate, Experiment)]
    return {look.variant: look for look in found}


async def test_users_are_dealt_out_and_each_variant_has_its_evidence(scene: Scene) -> None:
    made = await scene.assign()
    state = await scene.router.read("shop", "production")
    assert state.weights == (Weight(CONTROL.id, 400), Weight(FAST.id, 300), Weight(LOUD.id, 300))
    assert (state.sticky, state.rules, state.mirror) == ("shop-1", (), None)
    shifted = [s.subjects[0].name for s in made.statements if isinstance(s.predicate, Shifted)]
    assert shifted == [FAST.id, LOUD.id]


async def test_a_variant_is_found_and_another_is_not_and_the_last_look_says_both(scene: Scene) -> None:
    await scene.assign()
    first = await scene.look()
    assert (first.state, first.detail.verdicts) == (State.SUCCESS, ("UNKNOWN", "UNKNOWN"))  # type: ignore[union-attr]
    scene.users(3000, {"control": 0.1, "fast": 0.25, "loud": 0.03})
    last = await scene.look()
    assert (last.state, last.detail.ended) == (State.SUCCESS, True)  # type: ignore[union-attr]
    looks = said(last)
    assert {name: look.verdict for name, look in looks.items()} == {"fast": "PASS", "loud": "FAIL"}
    assert sum(arm.users for arm in looks["fast"].arms) == 3000
    assert all(look.ended and len(look.course) == 2 for look in looks.values())
    assert {s.subjects[0].digest for s in last.statements} == {FAST.digest, LOUD.digest}


async def test_a_look_that_says_nothing_new_leaves_no_evidence(scene: Scene) -> None:
    await scene.assign()
    scene.users(100, {"control": 0.1, "fast": 0.1, "loud": 0.1})
    assert len((await scene.look()).statements) == 2
    scene.users(100, {"control": 0.1, "fast": 0.1, "loud": 0.1})
    assert (await scene.look()).statements == ()


async def test_weights_that_somebody_else_moved_end_it_without_a_verdict(scene: Scene) -> None:
    await scene.assign()
    state = await scene.router.read("shop", "production")
    moved = (Weight(CONTROL.id, 900), Weight(FAST.id, 50), Weight(LOUD.id, 50))
    scene.router.meddled["shop", "production"] = replace(state.plan, weights=moved)
    scene.users(1000, {"control": 0.1, "fast": 0.9, "loud": 0.1})
    made = await scene.look()
    assert (made.state, made.detail.ended) == (State.ERROR, True)  # type: ignore[union-attr]
    assert "sample ratio mismatch" in made.reason


async def test_quantiles_of_the_service_are_for_its_canaries(scene: Scene) -> None:
    quantiles = CanaryConfig(judge=JudgeConfig(quantiles=(95.0,)))
    scene.config = ServiceConfig(service="shop", canary=quantiles)
    await scene.assign()
    scene.users(3000, {"control": 0.1, "fast": 0.25, "loud": 0.03})
    looks = said(await scene.look())
    assert {name: look.verdict for name, look in looks.items()} == {"fast": "PASS", "loud": "FAIL"}
    assert {len(look.rows[-1]) for look in looks.values()} == {ROW}


async def test_it_ends_with_its_time_whatever_is_known(scene: Scene) -> None:
    await scene.assign()
    scene.users(200, {"control": 0.1, "fast": 0.1, "loud": 0.1})
    scene.router.time += ASKED.terms.longest
    made = await scene.look()
    assert (made.state, made.detail.ended) == (State.SUCCESS, True)  # type: ignore[union-attr]
    assert {look.verdict for look in said(made).values()} == {"UNKNOWN"}


async def test_everybody_is_brought_back_and_both_variants_are_taken_out(scene: Scene) -> None:
    await scene.assign()
    scene.users(100, {"control": 0.1, "fast": 0.1, "loud": 0.1})
    powers = {"router": scene.router, "platform": scene.platform, "metrics": scene.router}
    made = await rollback.undo(scene.task("rollback"), **powers)
    state = await scene.router.read("shop", "production")
    assert (state.weights, state.sticky) == ((Weight(CONTROL.id, WHOLE),), "")
    assert [backend.release for backend in state.backends] == [CONTROL.id]
    rolled = [s.predicate for s in made.statements if isinstance(s.predicate, RolledBack)]
    assert [(r.release, r.restored) for r in rolled] == [(FAST, CONTROL), (LOUD, CONTROL)]
    assert all(0 < r.exposed < r.requests for r in rolled)


# --- what is refused before it begins ---------------------------------------------------------------------


class Images:
    async def describe(self, artifact: str) -> Image:
        return Image(
            ("run",), ServiceConfig(service="shop", environment={"BUTTON": Variable(default="live")})
        )

    async def prune(self, keep: Collection[str], before: float, *, dry: bool = False) -> Surplus:
        raise AssertionError


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (({"BUTTON": "live"},), "its users would see the same as those of control"),
        (({"BUTTON": "a"}, {"BUTTON": "a"}), "its users would see the same as those of v0"),
        (({"COLOUR": "red"},), "COLOUR is not declared by shop (declared: BUTTON)"),
        (({"BUTTON": 7},), "BUTTON must be of type string, found 7"),
    ],
)
async def test_values_that_make_no_variant_are_refused(
    values: tuple[dict[str, Value], ...], problem: str
) -> None:
    variants = tuple(Variant(f"v{number}", given, 100) for number, given in enumerate(values))
    now_live = Live(CONTROL, DATA["live"], "shop-0", 7)
    with pytest.raises(Invalid, match=re.escape(problem)) as caught:
        await dealt(replace(ASKED, variants=variants), "production", now_live, Images())
    assert caught.value.where == f"variants.v{len(values) - 1}"


async def test_without_a_control_there_is_no_experiment() -> None:
    with pytest.raises(Invalid, match="there is no control"):
        await dealt(ASKED, "production", None, Images())


# --- what comes next ----------------------------------------------------------------------------------------


def record(intent: Intent, at: float, detail: object = None, state: State = State.SUCCESS) -> Record:
    return Record(intent, state, at, at, f"{intent.key} ended", (), detail)  # type: ignore[arg-type]


def begun(*more: Record) -> Facts:
    """Both variants may be seen, and users were dealt out at 10."""
    dealt = tuple(Dealt(name, DATA[name]) for name in ("fast", "loud"))
    records = [record(Intent("begin", "begin"), 0.0, Begun("begun", DATA["fast"], CONTROL, ARTIFACT, dealt))]
    for stage in PIPELINE.stages[1:-1]:
        if stage.guards:
            gate = Intent(stage.name, "gate", guards=stage.guards, target=stage.target)
            records.append(record(gate, 1.0, Gated("gated")))
        records.append(record(Intent(stage.name, stage.verb, target=stage.target), 2.0))
    records.append(record(Intent("experiment", "assign"), 10.0, Weighed("weighed", "e", ())))
    return Facts("shop", "production", (*records, *more))


def looked(
    number: int, at: float, *verdicts: str, ended: bool = False, state: State = State.SUCCESS
) -> Record:
    return record(
        Intent("experiment", "weigh", number), at, Weighed("weighed", "e", (), (), verdicts, ended), state
    )


def test_each_variant_is_gated_by_itself_before_users_are_dealt_out() -> None:
    guarded = [(stage.guards, stage.target) for stage in PIPELINE.stages if stage.guards]
    assert guarded == [(guard, name) for name in ("fast", "loud") for guard in ("deploy", "experiment")]
    assert PIPELINE.stages[-1].after == ("expose-fast", "expose-loud")
    assert begun().variants == {"fast": FAST, "loud": LOUD}


def test_looks_are_close_at_first_far_apart_later_and_not_too_many() -> None:
    for longest in (60.0, 3600.0, 90 * 86400.0):
        asked = replace(ASKED, terms=replace(ASKED.terms, longest=longest))
        pipeline, facts, now = planned(asked, ServiceConfig(service="shop")), begun(), 10.0
        pauses, count = [], 0
        while now < 10.0 + longest:
            following = decide(pipeline, facts, now)
            if isinstance(following, Wait):
                pauses.append(following.until - now)
                now = following.until
                continue
            assert following.intents[0].verb == "weigh"  # type: ignore[union-attr]
            # Only the last look counts for when the next one is due.
            facts = begun(looked(count, now, "UNKNOWN", "UNKNOWN"))
            count += 1
            facts = replace(
                facts,
                records=(
                    *facts.records[:-1],
                    replace(facts.records[-1], intent=Intent("experiment", "weigh", 0)),
                ),
            )
        assert count <= MOST_LOOKS
        assert pauses[0] == min(5.0, longest / 10)
        assert max(pauses) <= max(longest / 250, 6.0) + 1e-6


@pytest.mark.parametrize(
    ("last", "state", "outcome"),
    [
        (looked(0, 20.0, "PASS", "FAIL", ended=True), State.SUCCESS, "concluded"),
        (looked(0, 20.0, "UNKNOWN", "FAIL", ended=True), State.ERROR, "concluded"),
        (looked(0, 20.0, "FAIL", "FAIL", ended=True, state=State.FAILURE), State.FAILURE, "rolled-back"),
        (looked(0, 20.0, "UNKNOWN", "UNKNOWN", ended=True, state=State.ERROR), State.ERROR, "rolled-back"),
    ],
)
def test_users_go_back_before_it_ends_however_it_ends(last: Record, state: State, outcome: str) -> None:
    assert decide(PIPELINE, begun(last), 21.0) == Perform((UNDO,))
    end = decide(PIPELINE, begun(last, record(UNDO, 22.0)), 23.0)
    assert isinstance(end, Finish)
    assert (end.state, end.outcome) == (state, outcome)
    stuck = decide(PIPELINE, begun(last, record(UNDO, 22.0, state=State.ERROR)), 23.0)
    assert isinstance(stuck, Finish)
    assert (stuck.state, stuck.outcome) == (State.ERROR, "failed")


def test_an_abort_and_a_time_that_is_over_bring_users_back_too() -> None:
    assert decide(PIPELINE, replace(begun(), request="abort"), 11.0) == Perform((UNDO,))
    end = decide(PIPELINE, replace(begun(record(UNDO, 12.0)), request="abort"), 13.0)
    assert isinstance(end, Finish)
    assert end.outcome == "aborted"
