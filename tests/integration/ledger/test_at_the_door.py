"""The door, over a real ledger: what must not come in, however well it is signed."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from integration.ledger.world import World, artifact
from integration.server.shop_repository import git
from penstock.adapters.git import Git
from penstock.bootstrap.identity import publication
from penstock.core.digest import digest
from penstock.core.evidence import PAYLOAD_TYPE, Entry, Statement, Subject, pre_authentication_encoding
from penstock.core.imported import foreign
from penstock.core.people import By, KeyGrant, Review, RoleGrant
from penstock.core.predicates import Imported, TestResult
from penstock.core.saying import spoken, statement_of
from penstock.core.sshsig import parse_public_key
from penstock.engine.door import MOST_ATTEMPTS, Door, Login
from penstock.engine.journal import Journal
from penstock.engine.policyrepo import PolicyRepository
from penstock.errors import Invalid, Refused
from penstock.ledger.log import attest
from penstock.ports import Signer
from sshkeys import make_key

OP = By("op")
ARTIFACT = artifact("a")
POLICY = """
policy: strict
owner: security-lead
guards: [deploy]
environments: [production]
rules:
  - {id: never, when: "false", say: "'yes'", else: "'no'"}
"""


@dataclass
class Entrance:
    world: World
    door: Door
    source: Signer

    async def bring(self, result: TestResult, at: float = 0.0, **formatting: int) -> Entry:
        """What the source signs outside; *formatting* is how its envelope is written."""
        payload = Statement((Subject("a", ARTIFACT.digest),), result).payload()
        made = self.source.sign(pre_authentication_encoding(payload)).value
        signature = {"keyid": "", "sig": base64.b64encode(made).decode()}
        text = base64.b64encode(payload).decode()
        raw = json.dumps(
            {"payloadType": PAYLOAD_TYPE, "payload": text, "signatures": [signature]}, **formatting
        ).encode()
        inner = foreign(raw)
        said = Imported("scanner", inner.predicate_type, base64.b64encode(raw).decode())
        return await self.door.bring_statement(said, inner.subjects)


@pytest.fixture
async def entrance(world: World) -> Entrance:
    server, source = world.key("server"), world.key("source")
    journal = Journal(world.store)
    await journal.migrate()
    await world.say(
        KeyGrant(OP, "server", server.public_key.hex(), "server"),
        KeyGrant(OP, "scanner", source.public_key.hex(), "source"),
    )
    door = Door(world.store, world.ledger, journal, world.languages, world.worker, server)
    return Entrance(world, door, source)


def ran(failed: int) -> TestResult:
    names = tuple(f"t{number}" for number in range(failed))
    return TestResult("FAILED" if failed else "PASSED", "outside", (), 3, failed, 0, names)


async def test_what_was_signed_elsewhere_comes_in_once(
    entrance: Entrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = await entrance.bring(ran(0))
    bad = await entrance.bring(ran(2))
    # Somebody who liked the first result better brings it again, and then in other clothes.
    assert (await entrance.bring(ran(0))).index == good.index
    assert (await entrance.bring(ran(0), indent=3)).index == good.index
    # Nor does bringing it again make it fresh: it is as old as it was.
    monkeypatch.setattr("penstock.engine.door.REPEAT", 0.0)
    assert (await entrance.bring(ran(2))).index == bad.index


async def test_what_no_gate_could_read_does_not_come_in(entrance: Entrance) -> None:
    with pytest.raises(Invalid, match="do not agree"):
        await entrance.bring(replace(ran(2), result="PASSED"))


async def test_a_link_does_not_carry_anothers_signature(entrance: Entrance, tmp_path: Path) -> None:
    world, val, folder = entrance.world, make_key(tmp_path, "val"), tmp_path / "organisation"
    key = parse_public_key(val.with_suffix(".pub").read_text())
    await world.say(KeyGrant(OP, "val", key.hex(), "person"), RoleGrant(OP, "val", "security-lead"))
    await world.say(publication(POLICY, OP))
    (folder / "policies").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")

    def commit(*options: str) -> None:
        git(folder, "add", "--all")
        signing = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={val}")
        git(folder, *signing, "commit", "--quiet", "--allow-empty", "--message", "x", *options)

    (folder / "policies/strict.yaml").write_text(POLICY)
    commit("-S")
    # Val moves the policy elsewhere, and signs that: the last commit that changed the path is hers.
    (folder / "elsewhere").mkdir()
    shutil.move(folder / "policies/strict.yaml", folder / "elsewhere/strict.yaml")
    commit("-S")
    # Anybody at all makes the path lead to a text of their own. Git does not look through links.
    (folder / "CODEOWNERS").write_text("* @security-lead\n")
    (folder / "elsewhere/strict.yaml").write_text(POLICY.replace("false", "true"))
    (folder / "policies").rmdir()
    (folder / "policies").symlink_to("elsewhere")
    commit()
    repository = PolicyRepository(world.store, world.ledger, Git(tmp_path / "cache"), entrance.door)
    with pytest.raises(Invalid, match="link"):
        await repository.sync(str(folder), "", "op")
    async with world.store.transaction(write=False) as tx:
        held = (await world.ledger.authority(tx)).policies["strict"]
    assert held.digest == digest(POLICY.encode())


async def test_a_signed_draft_is_published_by_nobody_who_found_it(entrance: Entrance, tmp_path: Path) -> None:
    """Its author signed it; that it is to hold is said by whoever brings it."""
    world, val, folder = entrance.world, make_key(tmp_path, "val"), tmp_path / "fork"
    key = parse_public_key(val.with_suffix(".pub").read_text())
    await world.say(
        KeyGrant(OP, "val", key.hex(), "person"),
        RoleGrant(OP, "val", "security-lead"),
        RoleGrant(OP, "dan", "development-lead"),
        RoleGrant(OP, "shop-admin", "administrator", "team/shop"),
    )
    (folder / "policies").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "policies/strict.yaml").write_text(POLICY)
    git(folder, "add", "--all")
    signing = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={val}")
    git(folder, *signing, "commit", "--quiet", "--message", "an idea", "-S")
    (folder / "CODEOWNERS").write_text("* @security-lead\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "anybody's")
    repository = PolicyRepository(world.store, world.ledger, Git(tmp_path / "cache"), entrance.door)
    for caller in ("nobody", "dan", "shop-admin"):
        with pytest.raises(Refused, match="may not publish"):
            await repository.sync(str(folder), "", caller)
    with pytest.raises(Refused, match="may not publish"):
        await repository.sync(str(folder / "absent"), "", "nobody")
    (published,) = await repository.sync(str(folder), "", "val")
    assert (published.what, published.identity) == ("published", "val")


async def test_refused_statements_do_not_fill_the_ledger(entrance: Entrance) -> None:
    """Anybody with a token can sign nonsense with a new key, a thousand times."""
    world, mallory = entrance.world, entrance.world.key("mallory")
    async with world.store.transaction(write=False) as tx:
        before, now = await world.ledger.size(tx), await tx.now()

    async def tried(name: str, times: int) -> int:
        for number in range(times):
            said = spoken(Review(By("mallory"), f"{number:040x}", "approve", name), now)
            with pytest.raises(Refused, match="nobody granted"):
                await entrance.door.accept(attest(mallory, statement_of(said)), Login(name, "token"))
        async with world.store.transaction(write=False) as tx:
            return await world.ledger.size(tx)

    assert await tried("ci", 30) == before + MOST_ATTEMPTS
    assert await tried("other", 2) == before + MOST_ATTEMPTS + 2
