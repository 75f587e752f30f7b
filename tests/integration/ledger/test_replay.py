"""Replaying a policy over past deliveries: the answers of then, and what a change would have done."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from integration.ledger.world import Delivery, World, artifact, built, scanned, suite_ran
from penstock.adapters.sqlite import SqliteStore
from penstock.bootstrap.identity import publication, shipped_policies
from penstock.core.people import Binding, By, RoleGrant
from penstock.ledger.again import compiled
from penstock.policyfile import parse_policy
from penstock.projections.replay import Replay, replay

SHIPPED = {parse_policy(text.encode(), "p").policy: text for text in shipped_policies()}
OP = By("op")
MANY = 200


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two hundred deliveries that came to the first gate: every third failed tests, every fifth the scan."""
    return asyncio.run(happen(tmp_path_factory.mktemp("history")))


async def happen(folder: Path) -> World:
    world = await World.begin(folder, SqliteStore(folder / "ledger.db"))
    for number in range(MANY):
        delivery = Delivery(f"d-{number}", artifact(f"a{number}"))
        await world.propose(delivery)
        tests, scan = suite_ran(number + 1, int(number % 3 == 0)), scanned(int(number % 5 == 0))
        await world.report(delivery, built(), tests, scan)
        await world.gate(delivery, "deploy")
        if number == MANY // 2:  # the rules and the roles of then are those that count
            await world.say(RoleGrant(OP, "op", "shop-lead"), Binding(OP, "catalog", "shop"))
            await world.say(publication(SHIPPED["development-lead"] + "# later\n", OP))
    return world


async def ask(world: World, text: str, limit: int = MANY) -> Replay:
    document = parse_policy(text.encode(), "p")
    async with world.store.transaction(write=False) as tx:
        return await replay(world.ledger, tx, document, compiled(document, world.languages), limit)


@pytest.mark.parametrize("name", ["development-lead", "security-lead"])
async def test_the_same_policy_gives_the_same_answers(history: World, name: str) -> None:
    found = await ask(history, SHIPPED[name])
    assert (found.deliveries, found.questions) == (MANY, MANY)
    assert [answer.delivery for answer in found.answers] == [f"d-{number}" for number in range(MANY)]
    assert {answer.then == answer.now for answer in found.answers} == {True}
    assert (found.refused, found.let_through) == (0, 0)
    failed = sum(number % (3 if name == "development-lead" else 5) == 0 for number in range(MANY))
    assert sum(answer.now == "FAIL" for answer in found.answers) == failed


async def test_a_stricter_policy_would_have_refused_some(history: World) -> None:
    strict = SHIPPED["development-lead"].replace("evidence.tests.passed > 0", "evidence.tests.passed > 50")
    found = await ask(history, strict)
    passed = [n for n in range(MANY) if n % 3 and n % 5]
    assert found.refused == len([n for n in passed if n + 1 <= 50])
    assert found.let_through == 0
    refused = {answer.delivery for answer in found.answers if answer.effect == "refused"}
    assert refused == {f"d-{n}" for n in passed if n + 1 <= 50}


async def test_a_weaker_policy_would_have_let_some_through(history: World) -> None:
    weak = SHIPPED["development-lead"].replace("evidence.tests.blocking == 0", "evidence.tests.failed < 9")
    found = await ask(history, weak)
    # Only those that this policy alone had stopped.
    assert found.let_through == len([n for n in range(MANY) if n % 3 == 0 and n % 5])
    assert found.refused == 0


async def test_a_new_policy_is_asked_where_it_would_have_held(history: World) -> None:
    new = (
        SHIPPED["development-lead"]
        .replace("policy: development-lead", "policy: extra")
        .replace("scope: organisation", "scope: team/shop")
        .replace("evidence.tests.passed > 0", "evidence.tests.passed > 1000")
    )
    found = await ask(history, new)
    # The service belonged to the team from the middle on.
    assert found.questions == MANY - MANY // 2 - 1
    assert {answer.then for answer in found.answers} == {""}
    assert found.refused == len([n for n in range(MANY // 2 + 1, MANY) if n % 3 and n % 5])


async def test_only_the_newest_are_asked(history: World) -> None:
    found = await ask(history, SHIPPED["security-lead"], limit=7)
    assert [answer.delivery for answer in found.answers] == [f"d-{n}" for n in range(MANY - 7, MANY)]


async def test_a_policy_that_guards_something_else_answers_nothing(history: World) -> None:
    found = await ask(history, SHIPPED["test-lead"])
    assert (found.deliveries, found.questions, found.answers) == (MANY, 0, ())


async def test_the_whole_history_verifies(history: World) -> None:
    assert (await history.verify()).problems == ()
