"""An evidence bundle convinces a stranger who has nothing but the trust file, and only of what is true."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from integration.ledger.world import DATA, Delivery, World, artifact, built, scanned, suite_ran
from penstock.bootstrap.identity import publication, shipped_policies
from penstock.core.digest import canonical
from penstock.core.people import By
from penstock.core.predicates import Deployed
from penstock.errors import Invalid
from penstock.ledger import bundle
from penstock.ledger.bundle import StepResult

FIRST = Delivery("d-1", artifact("a"))
SECOND = Delivery("d-2", artifact("b"), FIRST.release)


@pytest.fixture
async def shipped(world: World) -> World:
    await world.ship(FIRST)
    await world.ship(SECOND)
    return world


async def export(world: World, delivery: str) -> bytes:
    async with world.store.transaction(write=False) as tx:
        return await bundle.export(world.ledger, tx, delivery)


def check(world: World, data: bytes) -> list[StepResult]:
    return bundle.check(data, world.trust, world.languages)


def refused(world: World, data: bytes) -> str:
    """Where the verification says no, and why."""
    wrong = [step for step in check(world, data) if not step.ok]
    assert wrong, "a bad bundle was believed"
    assert all(step.reason for step in wrong)
    return "\n".join(f"{step.what}: {step.reason}" for step in wrong)


async def test_a_delivery_is_proven_step_by_step(shipped: World) -> None:
    steps = check(shipped, await export(shipped, "d-2"))
    assert [step for step in steps if not step.ok] == []
    told = "\n".join(step.what for step in steps)
    for words in (
        "well formed",
        "signed by the log's key",
        "in that checkpoint's tree",
        "2 granted keys",
        "sign-off of development-lead for deploy",
        "sign-off of security-lead for deploy",
        "sign-off of test-lead for shift",
        "sign-off of test-lead for promote",
        "sign-off of operations-lead for promote",
        "deploy (entry",
        "shift (entry",
        "promote (entry",
    ):
        assert words in told


async def test_a_bundle_holds_one_delivery_and_what_it_rests_on(shipped: World) -> None:
    async with shipped.store.transaction(write=False) as tx:
        size = await shipped.ledger.size(tx)
    listed = json.loads(await export(shipped, "d-2"))["entries"]
    assert 0 < len(listed) < size
    assert listed[0]["index"] == 0


async def test_a_refusal_is_proven_too(world: World) -> None:
    await world.propose(FIRST)
    await world.report(FIRST, built(), suite_ran(failed=2), scanned())
    await world.gate(FIRST, "deploy")
    steps = check(world, await export(world, "d-1"))
    assert all(step.ok for step in steps)
    assert any("development-lead for deploy" in step.what and "FAIL" in step.what for step in steps)


async def test_a_rollback_by_hand_is_proven_by_the_earlier_promotion(shipped: World) -> None:
    await shipped.roll_back(Delivery("d-3", SECOND.artifact, SECOND.release, "rollback"), FIRST.release)
    steps = check(shipped, await export(shipped, "d-3"))
    assert all(step.ok for step in steps)
    assert any("deploy" in step.what for step in steps)


async def test_a_bundle_stays_true_as_the_ledger_grows(shipped: World) -> None:
    data = await export(shipped, "d-1")
    await shipped.ship(Delivery("d-4", artifact("c"), SECOND.release))
    for text in shipped_policies():
        await shipped.say(publication(text + "# a newer version\n", By("op")))
    assert all(step.ok for step in check(shipped, data))
    assert all(step.ok for step in check(shipped, await export(shipped, "d-1")))


async def test_an_unknown_delivery_is_invalid(shipped: World) -> None:
    with pytest.raises(Invalid, match="'d-9'"):
        await export(shipped, "d-9")


async def test_no_byte_of_a_bundle_can_change(shipped: World) -> None:
    data = await export(shipped, "d-2")
    chance = random.Random(1)
    for place in {chance.randrange(len(data)) for _ in range(150)}:
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        assert refused(shipped, bytes(changed)), f"byte {place}"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"genesis": "sha256:" + "0" * 64}, "not the genesis"),
        ({"origin": "other"}, "not of 'other'"),
        ({"log_key": "00" * 32}, "does not name the log's key"),
        ({"log_key": "text"}, "does not name the log's key"),
    ],
)
async def test_another_log_proves_nothing(shipped: World, change: dict[str, str], why: str) -> None:
    data = await export(shipped, "d-2")
    steps = bundle.check(data, replace(shipped.trust, **change), shipped.languages)
    assert not steps[-1].ok
    assert why in f"{steps[-1].what}: {steps[-1].reason}"


def without(data: bytes, unwanted: Callable[[str], bool]) -> bytes:
    """The bundle without the entries whose payload is unwanted."""
    parts = json.loads(data)

    def payload(entry: dict[str, str]) -> str:
        return base64.b64decode(json.loads(base64.b64decode(entry["envelope"]))["payload"]).decode()

    parts["entries"] = [entry for entry in parts["entries"] if not unwanted(payload(entry))]
    return canonical(parts)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("urn:penstock:genesis:v1", "not the genesis"),
        ("urn:penstock:key-grant:v1", "nobody granted the key"),
        ("urn:penstock:policy:v1", "that was in force"),
        ("urn:penstock:change:v1", "nothing here began d-2"),
        ("test-result/v0.1", "does not recompute"),
        ("urn:penstock:canary:v1", "does not recompute"),
        ("verification_summary", "promote without the sign-off of"),
        ('"policy":"security-lead"', "deploy without the sign-off of security-lead"),
    ],
)
async def test_what_was_left_out_is_missed(shipped: World, words: str, problem: str) -> None:
    data = await export(shipped, "d-2")
    # The new policy text also names its policy: only sign-offs carry it as a JSON field.
    assert problem in refused(shipped, without(data, lambda payload: words in payload))


async def test_entries_come_in_order_and_once(shipped: World) -> None:
    parts = json.loads(await export(shipped, "d-1"))
    for changed in (list(reversed(parts["entries"])), [*parts["entries"], parts["entries"][-1]]):
        assert refused(shipped, canonical({**parts, "entries": changed}))


async def test_an_action_without_sign_offs_shows(world: World) -> None:
    await world.propose(FIRST)
    await world.report(FIRST, Deployed(FIRST.id, FIRST.release, DATA, "none", 1))
    said = refused(world, await export(world, "d-1"))
    assert "deploy without the sign-off of security-lead" in said


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"schema":"penstock.bundle/v1"}']
)
async def test_what_is_no_bundle_is_refused_at_the_first_step(world: World, data: bytes) -> None:
    (step,) = check(world, data)
    assert not step.ok
    assert step.what == "well formed"


@pytest.mark.parametrize("changes", [{"proof": ["AA=="]}, {"proof": ["é"]}, {"index": -1}, {"index": 10**40}])
async def test_a_proof_that_is_none_is_refused(shipped: World, changes: dict[str, object]) -> None:
    parts = json.loads(await export(shipped, "d-1"))
    parts["entries"][1].update(changes)
    data = json.dumps(parts, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    assert refused(shipped, data)
