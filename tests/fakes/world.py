"""A model of a delivery's world for tests of `decide`: performs what it says, in every way it can go."""

from __future__ import annotations

from penstock.core.decide import Finish, Perform, Wait, decide
from penstock.core.pipeline import (
    Begun,
    Canary,
    Detail,
    Facts,
    Gated,
    Intent,
    Looked,
    Made,
    Measured,
    Pipeline,
    Record,
    State,
)
from penstock.core.release import Artifact, EnvironmentData, Release
from penstock.core.stages import standard
from penstock.core.traffic import Counters

CANARY = Canary((100, 500), seconds_per_step=4.0, look_every=2.0, patience=4.0)
ARTIFACT = Artifact("shop", "sha256:" + "a" * 64)
DATA = EnvironmentData("shop", "production")
OLD = Release("shop", "production", "sha256:" + "0" * 64, DATA.digest)
COUNTERS = Counters("shop-1", 0.0, "e", 0, 0)


class World:
    """Performs intents; *fails* maps a verb to the state in which it ends instead of success."""

    def __init__(self, pipeline: Pipeline, *, baseline: Release | None = OLD) -> None:
        self.pipeline = pipeline
        self.baseline = baseline
        self.records: tuple[Record, ...] = ()
        self.request = ""
        self.now = 0.0
        self.fails: dict[str, State] = {}
        self.verdict = "PASS"
        self.quiet = False
        self.turns = 0

    @property
    def facts(self) -> Facts:
        return Facts("shop", "production", self.records, self.request)  # type: ignore[arg-type]

    def perform(self, intent: Intent) -> None:
        state = self.fails.get(intent.verb, State.SUCCESS)
        if intent.verb == "look" and self.verdict == "FAIL":
            state = State.FAILURE
        words, detail = f"{intent.verb} ended", self.detail(intent)
        self.records = (*self.records, Record(intent, state, self.now, self.now + 0.1, words, (), detail))
        self.now += 0.1

    def detail(self, intent: Intent) -> Detail | None:
        given = ARTIFACT if self.pipeline.name != "standard" else None
        return {
            "begin": Begun("begun", DATA, self.baseline, given),
            "build": Made("made", ARTIFACT),
            "gate": Gated("gated", ("some-lead",) if "gate" in self.fails else ()),
            "measure": Measured("measured", COUNTERS, COUNTERS),
            "look": Looked("looked", self.verdict, self.quiet),  # type: ignore[arg-type]
        }.get(intent.verb)

    def run(self, *, request_at: int = -1, request: str = "") -> Finish:
        for self.turns in range(200):
            if self.turns == request_at:
                self.request = request
            following = decide(self.pipeline, self.facts, self.now)
            if isinstance(following, Finish):
                return following
            if isinstance(following, Wait):
                assert following.until > self.now
                self.now = following.until
            else:
                assert isinstance(following, Perform)
                assert not any(self.facts.done(intent) for intent in following.intents), (
                    "the same intent twice"
                )
                # Whichever of those that run side by side ends first.
                self.perform(following.intents[self.turns % len(following.intents)])
        raise AssertionError("the delivery does not end")

    @property
    def verbs(self) -> list[str]:
        return [record.intent.verb for record in self.records]

    @property
    def shares(self) -> list[int]:
        return [record.intent.share for record in self.records if record.intent.verb == "shift"]


VERBS = ("begin", "build", "suite", "scan", "gate", "deploy", "acceptance", "measure", "shift", "promote")
BAD = (State.FAILURE, State.ERROR, State.TIMEOUT)


DEPLOY = Intent("deploy", "gate", guards="deploy")


def at_the_gate(*gates: tuple[State, Gated], lapsed: bool = False, begun: bool = False) -> Facts:
    """A delivery that was asked about at its first gate as often as there are *gates*."""
    world = World(standard(CANARY))
    for verb in ("begin", "build", "suite", "scan"):
        stage = "tests" if verb == "suite" else verb
        world.perform(Intent(stage, verb))
    for number, (state, detail) in enumerate(gates):
        intent = Intent("deploy", "gate", number, guards="deploy")
        world.records = (*world.records, Record(intent, state, 1.0, 1.1, "", (), detail))
    if begun:
        world.perform(Intent("deploy", "deploy"))
    return Facts("shop", "production", world.records, lapsed=frozenset(["deploy"] if lapsed else []))


PASSED = (State.SUCCESS, Gated("gated", (), 10, expires=100.0))
WAITS = (State.PENDING, Gated("gated", ("lead",), 10, expires=100.0, waits_until=50.0))
AGAIN = Intent("deploy", "gate", 1, guards="deploy")
