"""Acceptance of dark releases together: what the data plane has led where, and where a chain was lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.router import FakeRouter
from penstock.adapters.cel import Cel
from penstock.checks import chained
from penstock.config import ServiceConfig
from penstock.core.authority import Authority
from penstock.core.chain import Link, Met
from penstock.core.codec import encode
from penstock.core.digest import digest
from penstock.core.evidence import Entry, Statement, Subject, seal
from penstock.core.factfinding import facts
from penstock.core.fence import Fence
from penstock.core.pipeline import Intent
from penstock.core.predicates import Accepted
from penstock.core.release import Artifact, Change, EnvironmentData, Release
from penstock.core.selection import Question
from penstock.core.traffic import PREVIEW_HEADER, TOKEN_HEADER, Backend, Egress, Led, TrafficPlan, Weight
from penstock.errors import Invalid, Unavailable
from penstock.policyfile import parse_policy
from penstock.ports import Task


def release(service: str, number: int) -> Release:
    data = EnvironmentData(service, "production").digest
    return Release(service, "production", digest(f"{service} {number}".encode()), data)


SHOP, CART, CATALOG, PRICES = (release(name, 2) for name in ("shop", "cart", "catalog", "prices"))
CHAIN = (Link(PRICES), Link(CATALOG, ("cart",)))


class Town:
    """shop calls cart, which has users and calls catalog; and prices. Of each the second release is dark."""

    def __init__(self) -> None:
        self.router = FakeRouter()

    async def open(self) -> None:
        for service, calls in {
            "shop": ("cart", "prices"),
            "cart": ("catalog",),
            "catalog": (),
            "prices": (),
        }.items():
            backends = tuple(
                Backend(
                    release(service, number).id,
                    (f"unix:/{service}{number}",),
                    egress=tuple(Egress(callee, f"unix:/{service}{number}-{callee}") for callee in calls),
                )
                for number in (1, 2)
            )
            self.router.up |= {address for backend in backends for address in backend.addresses}
            users = (Weight(release(service, 1).id, 1000),)
            plan = TrafficPlan(service, "production", backends, users)
            await self.router.apply(plan, fence=Fence(f"{service}/production", 1, "key"))

    async def state(self):  # type: ignore[no-untyped-def]
        return await self.router.read("shop", "production")

    async def tested(
        self, task: Task, *, forwards: bool, calls_prices: bool = True
    ) -> tuple[Met, ...] | None:
        """The tests ask the shop twice. It asks prices, and cart, which asks catalog; the second time only if
        somebody who asked has to be told of."""
        state = await self.state()
        await chained.lead(task, state, self.router)
        before = await chained.read(task, self.router)
        for _ in range(2):
            self.ask(state.address, {PREVIEW_HEADER: SHOP.id, TOKEN_HEADER: state.preview_token})
            if calls_prices:
                self.ask("unix:/shop2-prices", {})
            self.ask("unix:/shop2-cart", {})
            heard = self.router.seen[release("cart", 1).id][-1]
            baggage = heard.partition("baggage: ")[2].split("\r\n")[0]
            self.ask("unix:/cart1-catalog", {"baggage": baggage} if forwards else {})
        return chained.met(task, before, await chained.read(task, self.router))

    def ask(self, address: str, headers: dict[str, str]) -> None:
        assert self.router.ask(address, headers)[0] == 200


@pytest.fixture
async def town() -> Town:
    made = Town()
    await made.open()
    return made


def task(*chain: Link) -> Task:
    return Task(
        delivery="shop-1",
        intent=Intent("acceptance", "acceptance"),
        change=Change("code", "shop", "production", "/repo", "1" * 40, "Dana", "A change"),
        config=ServiceConfig(service="shop"),
        fence=Fence("shop/production", 1, "key"),
        work=Path("/work"),
        log=Path("/log"),
        release=SHOP,
        chain=chain,
    )


async def test_dark_releases_meet_past_a_service_that_forwards(town: Town) -> None:
    together = await town.tested(task(*CHAIN), forwards=True)
    assert together == (
        Met(PRICES.id, PRICES.digest, 2, 2),
        Met(CATALOG.id, CATALOG.digest, 2, 2),
    )
    assert chained.in_words(together) == (
        f"; together with {PRICES.id} (2 requests); together with {CATALOG.id} (2 requests)"
    )


async def test_it_is_told_where_the_chain_was_lost(town: Town) -> None:
    together = await town.tested(task(*CHAIN), forwards=False)
    assert together is not None
    assert together[1] == Met(CATALOG.id, CATALOG.digest, 2, 0, ("cart",))
    lost = f"the chain was lost after cart: {CATALOG.id} saw none of 2 requests; forward the baggage header"
    assert lost in chained.in_words(together)


async def test_what_the_tests_never_called_is_not_lost(town: Town) -> None:
    together = await town.tested(task(*CHAIN), forwards=True, calls_prices=False)
    assert together is not None
    assert together[0] == Met(PRICES.id, PRICES.digest, 2, 0)
    assert f"{PRICES.id} saw none of 2 requests: the tests never called it" in chained.in_words(together)


async def test_without_a_chain_there_is_nothing_to_tell(town: Town) -> None:
    applied = len(town.router.applied)
    together = await town.tested(task(), forwards=False)
    assert (together, chained.in_words(together), len(town.router.applied)) == (None, "", applied)


async def test_a_chain_of_before_is_put_right(town: Town) -> None:
    await town.tested(task(*CHAIN), forwards=True)
    await chained.lead(task(), await town.state(), town.router)
    assert all(not known.backend.chain for known in (await town.state()).backends)


async def test_a_release_with_users_leads_nobody_to_dark_ones(town: Town) -> None:
    plan = replace((await town.state()).plan, weights=(Weight(SHOP.id, 1000),))
    await town.router.apply(plan, fence=Fence("shop/production", 1, "key"))
    await chained.lead(task(*CHAIN), await town.state(), town.router)
    assert all(not known.backend.chain for known in (await town.state()).backends)


async def test_what_is_gone_cannot_be_met(town: Town) -> None:
    gone = Link(release("catalog", 3))
    with pytest.raises(Invalid, match="is not there any more"):
        await chained.read(task(gone), town.router)


def test_counts_of_two_lives_of_the_proxy_are_not_subtracted() -> None:
    before = chained.Reading({("a", ""): Led("a", "1", 5)})
    after = chained.Reading({("a", ""): Led("a", "2", 7)})
    with pytest.raises(Unavailable, match="started anew"):
        after.since(before, "a")


TOGETHER = """\
policy: together
owner: test-lead
scope: organisation
guards: [promote]
environments: [production]
rules:
  - id: tested-together
    when: size(evidence.acceptance.lost) == 0
    say: "'met ' + string(size(evidence.acceptance.together)) + ' other dark releases'"
    else: "'did not meet ' + evidence.acceptance.lost.join(', ')"
"""


@pytest.mark.parametrize(
    ("requests", "passes", "says"),
    [(3, True, "met 2 other dark releases"), (0, False, f"did not meet {CATALOG.id}")],
)
def test_a_policy_can_ask_who_was_met(requests: int, passes: bool, says: str) -> None:
    together = (Met(PRICES.id, PRICES.digest, 3, 3), Met(CATALOG.id, CATALOG.digest, 3, requests, ("cart",)))
    accepted = Accepted(1, 0, (), together=together)
    artifact = Artifact("shop", SHOP.artifact)
    question = Question("shop-1", "promote", task().change, artifact, SHOP, False, 10, 1.0)
    statement = Statement((Subject(SHOP.id, SHOP.digest),), accepted)
    entry = Entry(1, seal(statement.payload(), "ab" * 32, b"s"), statement)
    assert entry.envelope.statement() == statement
    (rule,) = (
        Cel()
        .compile(parse_policy(TOGETHER.encode(), "together"))
        .decide(facts([entry], question, Authority()))
    )
    assert (rule.verdict.passed, rule.says) == (passes, says)


def test_evidence_of_one_tested_by_itself_is_what_it_was() -> None:
    assert "together" not in encode(Accepted(1, 0, ()))
