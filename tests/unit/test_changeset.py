"""Change sets: whatever fails, whoever aborts, in whatever order workers come to it, all of a set stays or
none of it does; callers meet users after what they call, and leave them before it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.world import BAD, CANARY, VERBS, World
from penstock.config import ServiceConfig
from penstock.core.changeset import ChangeSet, Fate, Together, in_order
from penstock.core.decide import Expire, Finish, Perform, Settle, Wait, decide
from penstock.core.pipeline import GOOD, Facts, Intent, Pipeline, State
from penstock.core.release import Change, Release
from penstock.core.stages import rollback, standard
from penstock.engine.changesets import peer
from penstock.engine.journal import Delivery, Header


@dataclass
class Member:
    name: str
    after: tuple[str, ...]
    world: World
    request: str = ""
    doing: Intent | None = None
    end: Finish | None = None
    ended: float = 0.0


@dataclass
class Set:
    """Deliveries of one set, each driven by a worker of its own: what one does and when it is recorded are
    two moments, and anything may happen between them."""

    members: dict[str, Member] = field(default_factory=dict)
    fate: Fate = ""
    reason: str = ""
    decided: float = 0.0
    now: float = 0.0
    story: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, *after: str, pipeline: Pipeline | None = None, **fails: State) -> Member:
        world = World(pipeline or standard(CANARY))
        world.fails = dict(fails)
        self.members[name] = Member(name, after, world)
        return self.members[name]

    def delivery(self, name: str) -> Delivery:
        member = self.members[name]
        change = Change("code", name, "production", "/repo", "1" * 40, "Dana", "A change")
        part = ChangeSet("set-1", tuple(self.members), member.after)
        plan = member.world.pipeline
        header = Header(change, ServiceConfig(service=name), pipeline=plan, changeset=part)
        state = member.end.state if member.end else State.EXECUTING
        outcome = member.end.outcome if member.end else ""
        return Delivery(name, header, state, outcome, "", "", 1, 0.0, member.ended, member.world.records)

    def facts(self, name: str) -> Facts:
        member, own = self.members[name], self.delivery(name)
        peers = tuple(peer(own, self.delivery(other)) for other in self.members if other != name)
        together = Together(peers, self.fate, self.reason, self.decided)
        return replace(own.facts, request=member.request, together=together)  # type: ignore[arg-type]

    def turn(self, name: str) -> None:
        member = self.members[name]
        self.now += 0.01
        if member.doing is not None:
            member.world.now = self.now
            member.world.perform(member.doing)
            member.doing = None
            return
        following = decide(member.world.pipeline, self.facts(name), self.now)
        match following:
            case Perform(intents):
                member.doing = intents[0]
                self.story.append((name, intents[0].verb))
            case Settle(fate, reason):
                self.settle(member, fate, reason)
            case Finish():
                member.end, member.ended = following, self.now
            case Wait(until):
                assert until > self.now
            case Expire():
                raise AssertionError(f"{name} expired: {following}")

    def settle(self, member: Member, fate: Fate, reason: str) -> None:
        if not self.fate:
            self.fate, self.reason, self.decided = fate, f"{member.name}: {reason}", self.now
            if fate == "undone":
                for other in self.members.values():
                    other.request = other.request if other.end else "abort"

    def run(self, order: list[int], aborts: tuple[int, int] = (-1, 0)) -> None:
        for number in range(4000):
            open_ones = [member for member in self.members.values() if member.end is None]
            if not open_ones:
                return
            if number == aborts[0]:
                open_ones[aborts[1] % len(open_ones)].request = "abort"
            pick = order[number % len(order)] if order else number
            self.turn(open_ones[pick % len(open_ones)].name)
            self.now += 0.5 * (number % 7 == 0)
        raise AssertionError("the set does not end")

    def outcomes(self) -> dict[str, str]:
        return {name: member.end.outcome if member.end else "" for name, member in self.members.items()}

    def first(self, name: str, *verbs: str) -> int:
        """The place in the story where *name* first does one of *verbs*; far away if never."""
        return next((i for i, (who, verb) in enumerate(self.story) if who == name and verb in verbs), 10**6)

    def last(self, name: str, verb: str) -> int:
        return max(i for i, (who, what) in enumerate(self.story) if (who, what) == (name, verb))


def shops(**fails: dict[str, State]) -> Set:
    """storefront calls catalog, which calls stock; mail calls nobody."""
    made = Set()
    made.add("stock", **fails.get("stock", {}))
    made.add("catalog", "stock", **fails.get("catalog", {}))
    made.add("storefront", "catalog", **fails.get("storefront", {}))
    made.add("mail", **fails.get("mail", {}))
    return made


def test_all_of_a_set_is_promoted_and_what_is_called_goes_first() -> None:
    made = shops()
    made.run([])
    assert set(made.outcomes().values()) == {"promoted"}
    assert made.fate == "kept"
    order = [made.first(name, "promote") for name in ("stock", "catalog", "storefront")]
    assert order == sorted(order)
    assert made.first("storefront", "shift") > made.first("catalog", "promote")
    # Each knows the release of every other before it makes its first request, and all meet in the tests.
    deployed, tested = (
        [made.first(name, verb) for name in made.members] for verb in ("deploy", "acceptance")
    )
    assert max(made.last(name, "build") for name in made.members) < min(deployed)
    assert max(deployed) < min(tested)


def test_nobody_has_users_before_everybody_passed_the_tests_in_production() -> None:
    made = shops(mail={"acceptance": State.FAILURE})
    made.run([])
    assert not {"shift", "promote"} & {verb for _, verb in made.story}
    assert made.outcomes() == {
        "mail": "rolled-back",
        "stock": "rolled-back",
        "catalog": "rolled-back",
        "storefront": "rolled-back",
    }
    assert all(
        member.end and member.end.reason.startswith("mail: ")
        for name, member in made.members.items()
        if name != "mail"
    )


def test_the_last_one_that_fails_takes_back_those_that_were_promoted_callers_first() -> None:
    made = shops(storefront={"promote": State.FAILURE})
    made.run([])
    assert made.outcomes()["stock"] == "rolled-back"
    undone = [name for name, verb in made.story if verb == "rollback"]
    assert undone.index("storefront") < undone.index("catalog") < undone.index("stock")


def test_one_that_changes_nothing_holds_nobody_up() -> None:
    made = shops()
    artifact = made.members["stock"].world.detail(Intent("build", "build")).artifact  # type: ignore[union-attr]
    world = made.members["stock"].world
    world.baseline = Release(
        "shop", "production", artifact.digest, world.detail(Intent("begin", "begin")).data.digest
    )  # type: ignore[union-attr]
    # The model's service is called shop everywhere; the facts of the delivery are asked by its own name.
    world.baseline = replace(world.baseline, service="stock")
    made.run([])
    assert made.outcomes() == {
        "stock": "unchanged",
        "catalog": "promoted",
        "storefront": "promoted",
        "mail": "promoted",
    }


@pytest.mark.parametrize("fails", [{}, {"restore": State.FAILURE}])
def test_a_rollback_of_a_set_restores_all_of_it_or_nothing(fails: dict[str, State]) -> None:
    made = Set()
    made.add("storefront", pipeline=rollback(CANARY))
    made.add("catalog", "storefront", pipeline=rollback(CANARY), **fails)
    made.run([])
    assert made.first("storefront", "restore") < made.first("catalog", "restore")
    undone = [name for name, verb in made.story if verb == "rollback"]
    assert undone == (["catalog", "storefront"] if fails else [])
    assert set(made.outcomes().values()) == ({"rolled-back"} if fails else {"restored"})


def test_an_abort_of_one_ends_them_all_until_all_are_promoted() -> None:
    for at in range(0, 400, 7):
        made = shops()
        made.run([], aborts=(at, at))
        words = set(made.outcomes().values())
        assert words == {"promoted"} or words <= {"aborted", "rolled-back"}, (at, made.outcomes())


@given(data=st.data())
def test_all_of_it_stays_or_none_of_it(data: st.DataObject) -> None:
    made = Set()
    for number in range(data.draw(st.integers(2, 4))):
        earlier = tuple(made.members)
        after = tuple(sorted(data.draw(st.sets(st.sampled_from(earlier))))) if earlier else ()
        fails = data.draw(
            st.dictionaries(st.sampled_from(VERBS), st.sampled_from(BAD), max_size=1)
            if data.draw(st.booleans())
            else st.just({})
        )
        made.add(f"s{number}", *after, **fails)
    order = data.draw(st.lists(st.integers(0, 3), max_size=60))
    # Every worker comes to its delivery now and then.
    made.run([*order, 0, 1, 2, 3], aborts=(data.draw(st.integers(-1, 300)), data.draw(st.integers(0, 3))))
    stays = {name for name, outcome in made.outcomes().items() if outcome in ("promoted", "unchanged")}
    assert stays in (set(), set(made.members)), made.outcomes()
    for name, member in made.members.items():
        verbs = member.world.verbs
        touched = any(
            r.intent.verb == "deploy" or (r.intent.key == "deploy/gate/0" and r.state in GOOD)
            for r in member.world.records
        )
        assert ("rollback" in verbs) == (touched and not stays)
        for callee in member.after:
            if "shift" in verbs or "promote" in verbs:
                assert made.first(callee, "promote") < made.first(name, "shift", "promote")
            if not stays and {"shift", "promote"} & set(verbs):
                assert made.last(name, "rollback") < made.last(callee, "rollback")


@pytest.mark.parametrize(
    ("calls", "ordered"),
    [
        ({"a": ["b"], "b": []}, (("b", ()), ("a", ("b",)))),
        ({"a": ["x"], "b": ["a"]}, (("a", ()), ("b", ("a",)))),
        ({"a": ["b"], "b": ["a"]}, (("b", ()), ("a", ("b",)))),
        ({"a": ["a"], "c": [], "b": ["c", "a"]}, (("a", ()), ("c", ()), ("b", ("a", "c")))),
    ],
)
def test_what_is_called_comes_before_what_calls_it(
    calls: dict[str, list[str]], ordered: tuple[tuple[str, tuple[str, ...]], ...]
) -> None:
    assert in_order(calls) == ordered
