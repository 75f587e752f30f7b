"""Appending, finding again and proving: on the real database, with real signatures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from integration.ledger.world import Delivery, World, artifact, suite_ran
from penstock.adapters.ed25519 import Ed25519
from penstock.bootstrap.identity import publication
from penstock.core import merkle
from penstock.core.evidence import Envelope, Statement, pre_authentication_encoding
from penstock.core.notes import open_note
from penstock.core.people import Binding, By, Genesis, KeyGrant, PolicyVersion, RoleGrant, Said
from penstock.core.predicates import Ended, Predicate
from penstock.core.saying import named, spoken
from penstock.errors import Invalid, PenstockError, Refused
from penstock.ledger.live import history, live
from penstock.ledger.log import Ledger, attest
from penstock.ledger.signatures import signed_by
from penstock.ports import Signature, Signer

OP = By("op")
A, B = artifact("a"), artifact("b")
SECURITY = """
policy: security-lead
owner: {owner}
guards: [deploy]
environments: [production]
rules: [{{id: always, when: "true", say: "'yes'", else: "'no'"}}]
"""


async def refuse(
    world: World, *predicates: Predicate, by: Signer, error: type[PenstockError] = Refused
) -> str:
    """What the refusal says; nothing may have been kept."""
    async with world.store.transaction(write=False) as tx:
        before = await world.ledger.size(tx), await world.ledger.checkpoint(tx)
    with pytest.raises(error) as caught:
        await world.keep(*(_signed(world, predicate, by) for predicate in predicates))
    async with world.store.transaction(write=False) as tx:
        assert (await world.ledger.size(tx), await world.ledger.checkpoint(tx)) == before
    return str(caught.value)


def _signed(world: World, predicate: Predicate, by: Signer) -> Envelope:
    if isinstance(predicate, Said):
        return world.signed(predicate, by)
    return attest(by, Statement((named("x"),), predicate))


class Pretender:
    """Signs with a key of its own, under the id of one that is known."""

    def __init__(self, own: Signer, keyid: str) -> None:
        self.keyid, self.public_key, self._own = keyid, own.public_key, own

    def sign(self, payload: bytes) -> Signature:
        return Signature(self.keyid, self._own.sign(payload).value)


async def test_what_is_signed_here_counts_under_a_known_key_of_the_signers_own(world: World) -> None:
    said = Statement((named("x"),), Ended("d-1", "success", "promoted", ""))
    other = Ed25519.create(world.folder / "other.key")
    async with world.store.transaction() as tx:
        batch = await world.ledger.batch(tx)
        (entry,) = batch.attest(world.worker, [said])
        message = pre_authentication_encoding(entry.envelope.payload)
        assert signed_by(world.worker.public_key, message, entry.envelope.signature)
        with pytest.raises(Refused, match="not signed by worker"):
            batch.attest(Pretender(other, world.worker.keyid), [said])
        with pytest.raises(Refused, match="nobody granted"):
            batch.attest(other, [said])
        assert batch.entries == (entry,)


async def test_entries_are_kept_in_order_and_found_again(world: World) -> None:
    first = Delivery("d-1", A)
    await world.propose(first)
    (entry,) = await world.report(first, suite_ran())
    async with world.store.transaction(write=False) as tx:
        assert await world.ledger.size(tx) == entry.index + 1
        assert await world.ledger.entry(tx, entry.index) == entry
        assert (await world.ledger.entries(tx, entry.index - 1))[-1] == entry
        found = await world.ledger.tagged(tx, f"about:{A.digest}")
        assert [e.index for e in found] == [entry.index - 1, entry.index]
        assert [e.index for e in await world.ledger.tagged(tx, "delivery:d-1")] == [entry.index - 1]
        assert await world.ledger.tagged(tx, f"about:{A.digest}", before=entry.index - 1) == ()
        both = (f"about:{A.digest}", "delivery:d-1")  # one entry has both tags, and is one
        assert [e.index for e in await world.ledger.tagged(tx, *both, last=1)] == [entry.index]
        assert await world.ledger.tagged(tx, *both, last=2) == found
        with pytest.raises(Invalid, match="no entry 99"):
            await world.ledger.entry(tx, 99)
        with pytest.raises(Invalid):
            await world.ledger.entry(tx, 10**30)


async def test_every_checkpoint_is_signed_and_everything_is_proven_in_it(world: World) -> None:
    for number in range(5):
        await world.report(Delivery("d", A), *(suite_ran(suite=f"s{number}-{n}") for n in range(number)))
    async with world.store.transaction(write=False) as tx:
        size = await world.ledger.size(tx)
        note = await world.ledger.checkpoint(tx)
        head = open_note(note, "penstock", world.log.public_key, signed_by)
        assert (head.size, head.root) == (size, await world.ledger.root(tx, size))
        for entry in await world.ledger.entries(tx):
            proof = await world.ledger.inclusion(tx, entry.index, size)
            leaf = merkle.leaf_hash(entry.envelope.raw)
            assert merkle.root_from_inclusion(entry.index, size, leaf, proof) == head.root
        for old in range(size + 1):
            proof = await world.ledger.consistency(tx, old, size)
            old_root = await world.ledger.root(tx, old)
            assert merkle.is_consistent(old, size, old_root, head.root, proof)


async def test_nothing_to_append_changes_nothing(world: World) -> None:
    async with world.store.transaction(write=False) as tx:
        before = await world.ledger.checkpoint(tx)
    assert await world.keep() == ()
    async with world.store.transaction(write=False) as tx:
        assert await world.ledger.checkpoint(tx) == before


async def test_what_was_rolled_back_grants_nothing(world: World) -> None:
    mallory = world.key("mallory")
    grant = KeyGrant(OP, "mallory", mallory.public_key.hex(), "worker")

    async def fail() -> None:
        async with world.store.transaction() as tx:
            await world.ledger.append(tx, [world.signed(grant)])
            assert mallory.keyid in (await world.ledger.authority(tx)).keys
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    # Somebody else fills the place: the ledger is as long as the one that never was.
    other = Ledger(world.store, [world.log], "penstock")
    async with world.store.transaction() as tx:
        await other.append(tx, [world.signed(RoleGrant(OP, "ada", "reviewer"))])
    async with world.store.transaction(write=False) as tx:
        assert mallory.keyid not in (await world.ledger.authority(tx)).keys
    assert "nobody granted" in await refuse(world, Ended("d", "success", "x", ""), by=mallory)


async def test_a_batch_is_kept_whole_or_not_at_all(world: World) -> None:
    said = await refuse(world, RoleGrant(OP, "ada", "x"), Ended("d", "success", "x", ""), by=world.operator)
    assert "signed by a worker" in said


async def test_another_process_sees_the_same_authority(world: World) -> None:
    other = Ledger(world.store, [world.log], "penstock")
    await world.say(RoleGrant(OP, "ada", "reviewer"))
    async with world.store.transaction(write=False) as tx:
        assert await other.authority(tx) == await world.ledger.authority(tx)
        assert (await other.authority(tx)).covers("ada", "reviewer", "organisation")


async def test_a_reader_of_an_older_state_sees_the_authority_of_then(world: World) -> None:
    async with world.store.transaction(write=False) as tx:
        size = await world.ledger.size(tx)
        await world.say(RoleGrant(OP, "ada", "reviewer"))
        async with world.store.transaction(write=False) as later:
            now = await world.ledger.authority(later)
        then = await world.ledger.authority(tx)
    assert (then.changed, now.changed) == (size - 1, size)
    assert now.covers("ada", "reviewer", "organisation")
    assert not then.covers("ada", "reviewer", "organisation")


class TestAuthority:
    """Who may say what."""

    async def test_a_key_that_nobody_granted_says_nothing(self, world: World) -> None:
        said = await refuse(world, Ended("d", "success", "x", ""), by=world.key("mallory"))
        assert "nobody granted the key" in said

    async def test_a_signature_must_be_the_keys_own(self, world: World) -> None:
        mallory = world.key("mallory")
        mallory.keyid = world.worker.keyid
        said = await refuse(world, Ended("d", "success", "x", ""), by=mallory)
        assert "not signed by worker" in said

    @pytest.mark.parametrize(
        "grant",
        [
            KeyGrant(OP, "x", "ab" * 32, "worker"),
            RoleGrant(OP, "worker", "administrator"),
            Binding(OP, "catalog", "shop"),
            PolicyVersion(OP, "p", "security-lead", "organisation", "text"),
        ],
    )
    async def test_a_worker_grants_nothing(self, world: World, grant: Predicate) -> None:
        assert "signed by a person" in await refuse(world, grant, by=world.worker)

    async def test_a_person_gives_no_machine_evidence(self, world: World) -> None:
        assert "signed by a worker" in await refuse(world, suite_ran(), by=world.operator)

    @pytest.mark.parametrize(
        "grant",
        [
            KeyGrant(OP, "x", "ab" * 32, "worker"),
            RoleGrant(OP, "ada", "administrator"),
            Binding(OP, "catalog", "shop"),
        ],
    )
    async def test_only_administrators_grant(self, world: World, grant: Predicate) -> None:
        ada = world.key("ada")
        await world.say(
            KeyGrant(OP, "ada", ada.public_key.hex(), "person"), RoleGrant(OP, "ada", "security-lead")
        )
        own = replace(grant, by=By("ada"))
        assert "ask a holder of it: op" in await refuse(world, own, by=ada)
        await world.say(RoleGrant(OP, "ada", "administrator"))
        assert "says it is by op" in await refuse(world, grant, by=ada)
        await world.say(own, by=ada)

    async def test_a_policy_is_published_by_its_owner(self, world: World) -> None:
        ada, bob = world.key("ada"), world.key("bob")
        for name, key, role in (("ada", ada, "security-lead"), ("bob", bob, "test-lead")):
            await world.say(KeyGrant(OP, name, key.public_key.hex(), "person"), RoleGrant(OP, name, role))
        await world.say(publication(SECURITY.format(owner="security-lead"), By("ada")), by=ada)
        for owner in ("security-lead", "test-lead"):
            with pytest.raises(Refused, match="does not hold the role security-lead"):
                await world.say(publication(SECURITY.format(owner=owner), By("bob")), by=bob)
        # A new version may not hand the policy to a role that the publisher does not hold.
        with pytest.raises(Refused, match="does not hold the role test-lead"):
            await world.say(publication(SECURITY.format(owner="test-lead"), By("ada")), by=ada)

    async def test_a_policy_is_what_its_text_says(self, world: World) -> None:
        text = SECURITY.format(owner="security-lead")
        for version, error in (
            (
                PolicyVersion(OP, "another", "security-lead", "organisation", text),
                "its text is security-lead",
            ),
            (
                PolicyVersion(OP, "security-lead", "security-lead", "organisation", "not: a policy"),
                "unknown field",
            ),
        ):
            with pytest.raises(Invalid, match=error):
                await world.say(version)
        version = PolicyVersion(OP, "security-lead", "security-lead", "organisation", text)
        other = Statement((named("security-lead"),), spoken(version, 99.0))
        with pytest.raises(Invalid, match="subject"):
            await world.keep(attest(world.operator, other))

    @pytest.mark.parametrize("key", ["", "zz" * 32, "ab" * 31, "AB" * 32, "ab " * 32])
    async def test_a_key_is_32_bytes_of_hex(self, world: World, key: str) -> None:
        assert "hex" in await refuse(
            world, KeyGrant(OP, "x", key, "worker"), by=world.operator, error=Invalid
        )

    async def test_a_ledger_has_one_beginning(self, world: World) -> None:
        again = world.genesis_of(world.operator)
        said = await refuse(world, again, by=world.operator, error=Invalid)
        assert "only one" in said

    async def test_a_ledger_begins_with_its_genesis(self, world: World) -> None:
        mallory = world.key("mallory")
        async with world.store.transaction() as tx:
            for table in ("entries", "nodes", "tags", "checkpoints"):
                await tx.execute(f"DELETE FROM {table}")
        with pytest.raises(Refused):
            await world.say(RoleGrant(OP, "ada", "reviewer"))
        # Whoever signs a genesis must hold the key that it names.
        with pytest.raises(Refused):
            await world.say(world.genesis_of(world.operator), by=mallory)
        renamed = Ed25519.load(world.folder / "op.key")
        renamed.keyid = mallory.keyid
        with pytest.raises(Refused):
            await world.say(world.genesis_of(renamed), by=renamed)
        genesis: Genesis = world.genesis_of(mallory)
        (entry,) = await world.say(genesis, by=mallory)
        assert entry.index == 0


async def test_what_is_live_follows_from_promotions_and_rollbacks(world: World) -> None:
    first = Delivery("d-1", A)
    second = Delivery("d-2", B, first.release)
    async with world.store.transaction(write=False) as tx:
        assert await live(world.ledger, tx, "catalog", "production") is None
    await world.ship(first)
    await world.ship(second)
    async with world.store.transaction(write=False) as tx:
        now = await live(world.ledger, tx, "catalog", "production")
        before = (await history(world.ledger, tx, "catalog", "production"))[1]
    assert now is not None
    assert before is not None
    assert (now.release, now.delivery) == (second.release, "d-2")
    assert (before.release, before.delivery) == (first.release, "d-1")
    await world.roll_back(Delivery("d-3", B, second.release, "rollback"), first.release)
    async with world.store.transaction(write=False) as tx:
        now = await live(world.ledger, tx, "catalog", "production")
        assert now is not None
        assert now.release == first.release
        assert (await history(world.ledger, tx, "catalog", "production"))[1] is None
