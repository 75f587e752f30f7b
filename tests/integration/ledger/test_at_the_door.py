"""The door, over a real ledger: what must not come in, however well it is signed."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

import pytest

from integration.ledger.world import World, artifact
from penstock.core.evidence import PAYLOAD_TYPE, Entry, Statement, Subject, pre_authentication_encoding
from penstock.core.imported import foreign
from penstock.core.people import By, KeyGrant
from penstock.core.predicates import Imported, TestResult
from penstock.engine.door import Door
from penstock.engine.journal import Journal
from penstock.ports import Signer

OP = By("op")
ARTIFACT = artifact("a")


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
