"""Witnesses: what they sign is kept and served, what they refuse is told, and nothing waits for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from fakes.witness import WitnessServer
from integration.ledger.world import Delivery, World, artifact
from penstock.adapters.witness import HttpWitness
from penstock.core.notes import VerifierKey, cosigners, split
from penstock.core.predicates import Ended
from penstock.errors import Conflict, Invalid, PenstockError, Refused, Unavailable
from penstock.ledger import bundle, fsck
from penstock.ledger.signatures import signed_by
from penstock.ledger.witnesses import Known, Witnesses, ask

SECONDS = 30.0
#: A line with the end of its signature changed.
CHANGED = "substr(line, 1, length(line) - 8) || 'AAAAA==\n'"
FIRST = Delivery("d-1", artifact("a"))


@pytest.fixture
async def servers(world: World) -> AsyncIterator[list[WitnessServer]]:
    """Two witnesses that know the ledger."""
    found = [WitnessServer(f"witness.example/w{number}") for number in (1, 2)]
    for server in found:
        server.logs["penstock"] = bytes.fromhex(world.trust.log_key)
        await server.start()
    yield found
    for server in found:
        await server.stop()


@pytest.fixture
def server(servers: list[WitnessServer]) -> WitnessServer:
    return servers[0]


def known(server: WitnessServer) -> Known:
    return Known(server.key, server.url, HttpWitness(server.url))


async def asked(world: World, server: WitnessServer) -> int:
    return await ask(world.store, world.ledger, known(server))


async def happen(world: World, *reasons: str) -> int:
    """One entry for each reason. Returns the ledger's size."""
    entries = await world.report(FIRST, *(Ended("d-1", "success", "promoted", reason) for reason in reasons))
    return entries[-1].index + 1


async def run(world: World, sql: str, *parameters: object) -> None:
    async with world.store.transaction() as tx:
        await tx.execute(sql, parameters)


async def cut_nodes(world: World, last: int) -> None:
    """Take out of the tree whatever covers an entry above *last*."""
    async with world.store.transaction() as tx:
        for level, index in await tx.execute("SELECT level, idx FROM nodes"):
            if (int(str(index)) + 1) << int(str(level)) > last + 1:
                await tx.execute("DELETE FROM nodes WHERE level = ? AND idx = ?", (level, index))


async def checkpoint(world: World, **wanted: int) -> str:
    async with world.store.transaction(write=False) as tx:
        return (await world.ledger.head(tx, **wanted))[1]


async def problems(world: World, trust: fsck.Trust, kept: str | None = None) -> tuple[str, ...]:
    return (await fsck.verify(world.store, trust, world.languages, kept=kept)).problems


def trusting(world: World, *servers: WitnessServer, quorum: int = 0) -> fsck.Trust:
    return replace(world.trust, witnesses=tuple(str(server.key) for server in servers), quorum=quorum)


# --- asking -------------------------------------------------------------------------------------------


async def test_the_served_checkpoint_carries_what_the_witnesses_signed(
    world: World, servers: list[WitnessServer]
) -> None:
    for server in servers:
        await asked(world, server)
    keys = [server.key for server in servers]
    assert cosigners(await checkpoint(world), keys, signed_by) == tuple(key.name for key in keys)
    assert await problems(world, trusting(world, *servers)) == ()


async def test_a_witness_is_asked_from_where_it_signed_last(world: World, server: WitnessServer) -> None:
    first = await asked(world, server)
    assert await asked(world, server) == first
    size = await happen(world, "one", "two")
    assert await asked(world, server) == size
    assert [body.partition("\n")[0] for body in server.asked] == ["old 0", f"old {first}"]


@pytest.mark.parametrize("again", [False, True], ids=["grown", "same"])
async def test_what_a_witness_signed_and_we_lost_is_signed_again(
    world: World, server: WitnessServer, again: bool
) -> None:
    await asked(world, server)
    await run(world, "DELETE FROM cosignatures")
    size = await happen(world, "one") if not again else server.seen["penstock"].size
    assert await asked(world, server) == size
    assert cosigners(await checkpoint(world), [server.key], signed_by) == (server.key.name,)


async def test_a_witness_that_saw_more_entries_says_that_some_were_cut_off(
    world: World, server: WitnessServer
) -> None:
    copy = await happen(world, "one")
    await asked(world, server)
    for table, column in (
        ("entries", "idx"),
        ("tags", "idx"),
        ("checkpoints", "size"),
        ("cosignatures", "size"),
    ):
        limit = copy if column == "size" else copy - 1
        await run(world, f"DELETE FROM {table} WHERE {column} >= ?", limit)
    await cut_nodes(world, copy - 2)
    assert await problems(world, world.trust) == ()
    with pytest.raises(Conflict, match="entries were cut off"):
        await asked(world, server)


async def test_a_rewritten_ledger_is_never_cosigned(world: World, server: WitnessServer) -> None:
    size = await happen(world, "one")
    await asked(world, server)
    server.seen["penstock"] = replace(server.seen["penstock"], root=bytes(32))
    await happen(world, "two")
    with pytest.raises(Refused, match="only grew"):
        await asked(world, server)
    assert f"\n{size}\n" in await checkpoint(world, cosigned=1)


@pytest.mark.parametrize(
    ("forge", "error"),
    [
        (lambda note: WitnessServer("witness.example/w1").signed(note), Refused),
        (lambda note: WitnessServer("other.example").signed(note), Refused),
        (lambda _: "hello\n", Invalid),
        (lambda _: "", Invalid),
    ],
    ids=["its name, another key", "another witness", "no line", "nothing"],
)
async def test_what_the_witness_did_not_sign_is_not_kept(
    world: World, server: WitnessServer, forge: Callable[[str], str], error: type[PenstockError]
) -> None:
    server.answer = (200, "text/plain", forge(await checkpoint(world)))
    with pytest.raises(error):
        await asked(world, server)
    with pytest.raises(Invalid, match="no checkpoint with 1 cosignatures"):
        await checkpoint(world, cosigned=1)


async def test_a_signature_under_another_checkpoint_is_not_kept(world: World, server: WitnessServer) -> None:
    old = await checkpoint(world)
    await happen(world, "one")
    server.answer = (200, "text/plain", server.signed(old))
    with pytest.raises(Invalid, match="not a cosignature by"):
        await asked(world, server)
    with pytest.raises(Invalid, match="no checkpoint with 1 cosignatures"):
        await checkpoint(world, cosigned=1)


async def test_lines_of_others_in_an_answer_are_left_out(world: World, server: WitnessServer) -> None:
    note = await checkpoint(world)
    other = WitnessServer("other.example").signed(note)
    server.answer = (200, "text/plain", other + server.signed(note))
    await asked(world, server)
    assert [line.name for line in split(await checkpoint(world))[1]] == ["penstock", server.key.name]


async def test_the_newest_checkpoint_that_enough_witnesses_signed(
    world: World, servers: list[WitnessServer]
) -> None:
    for server in servers:
        both = await asked(world, server)
    await happen(world, "one")
    one = await asked(world, servers[0])
    newest = await happen(world, "two")
    for cosigned, size in ((0, newest), (1, one), (2, both)):
        assert f"penstock\n{size}\n" in await checkpoint(world, cosigned=cosigned)
    with pytest.raises(Invalid, match="no checkpoint with 3 cosignatures"):
        await checkpoint(world, cosigned=3)


# --- checking -----------------------------------------------------------------------------------------


async def checked(world: World, trust: fsck.Trust) -> list[bundle.StepResult]:
    async with world.store.transaction(write=False) as tx:
        data = await bundle.export(world.ledger, tx, "d-1")
    return bundle.check(data, trust, world.languages)


async def test_a_bundle_shows_the_quorum_that_the_trust_file_asks_for(
    world: World, servers: list[WitnessServer]
) -> None:
    await world.ship(FIRST)
    two = trusting(world, *servers, quorum=2)
    await asked(world, servers[0])
    (failed,) = [step for step in await checked(world, two) if not step.ok]
    assert failed.what == "1 of 2 witnesses cosigned the checkpoint"
    await asked(world, servers[1])
    assert all(step.ok for step in await checked(world, two))
    assert all(step.ok for step in await checked(world, world.trust))


async def test_a_bundle_has_the_checkpoint_that_most_witnesses_signed(
    world: World, servers: list[WitnessServer]
) -> None:
    await world.ship(FIRST)
    for server in servers:
        await asked(world, server)
    # About another delivery: nothing that this bundle needs.
    await world.propose(Delivery("d-2", artifact("b"), FIRST.release))
    assert all(step.ok for step in await checked(world, trusting(world, *servers, quorum=2)))


async def test_one_key_under_two_names_is_one_witness(world: World, server: WitnessServer) -> None:
    await world.ship(FIRST)
    await asked(world, server)
    note = await checkpoint(world)
    twin = VerifierKey("twin.example", server.key.public_key)
    _, (_, line) = split(note)
    forged = note + str(replace(line, name=twin.name, hash=twin.hash))
    assert len(cosigners(forged, [server.key, twin], signed_by)) == 1


async def test_a_false_line_in_a_trusted_witness_name_fails_the_bundle(
    world: World, server: WitnessServer
) -> None:
    await world.ship(FIRST)
    await asked(world, server)
    async with world.store.transaction(write=False) as tx:
        given = json.loads(await bundle.export(world.ledger, tx, "d-1"))
    body, (mine, line) = split(given["checkpoint"])
    false = replace(line, signature=line.signature[:-1] + bytes([line.signature[-1] ^ 1]))
    given["checkpoint"] = f"{body}\n{mine}{false}"
    data = json.dumps(given, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    steps = bundle.check(data, trusting(world, server, quorum=1), world.languages)
    assert (steps[-1].what, steps[-1].ok) == ("witnesses", False)
    assert "not a cosignature" in steps[-1].reason


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE cosignatures SET size = size - 1", "no checkpoint of that size"),
        ("UPDATE cosignatures SET name = 'other'", "not a signature line by that name"),
        ("UPDATE cosignatures SET line = 'x'", "not a signed note"),
        ("UPDATE cosignatures SET line = '— a AAAAAQ==\n'", "not a signature line by that name"),
        ("UPDATE cosignatures SET line = line || line", "not a signature line by that name"),
        (f"UPDATE cosignatures SET line = {CHANGED}", "not a cosignature by"),
    ],
)
async def test_ledger_verify_finds_whatever_somebody_does_to_a_cosignature(
    world: World, server: WitnessServer, sql: str, words: str
) -> None:
    await asked(world, server)
    await run(world, sql)
    found = await problems(world, trusting(world, server))
    assert any(words in problem for problem in found)
    assert all(problem.startswith("cosignature ") for problem in found)


async def test_a_cosignature_moved_to_another_size_does_not_verify(
    world: World, server: WitnessServer
) -> None:
    await asked(world, server)
    size = await happen(world, "one")
    await run(world, "UPDATE cosignatures SET size = ?", size)
    (problem,) = await problems(world, trusting(world, server))
    assert "not a cosignature by" in problem


# --- a checkpoint that somebody kept --------------------------------------------------------------------


async def test_a_kept_checkpoint_of_this_ledger_is_found_in_it(world: World, server: WitnessServer) -> None:
    await asked(world, server)
    kept = await checkpoint(world)
    await happen(world, "one", "two")
    assert await problems(world, world.trust, kept) == ()
    assert await problems(world, world.trust, await checkpoint(world)) == ()


async def test_entries_that_were_cut_off_are_missed(world: World) -> None:
    before = await checkpoint(world)
    size = await happen(world, "one")
    kept = await checkpoint(world)
    await run(world, "DELETE FROM entries WHERE idx >= ?", size - 1)
    await run(world, "DELETE FROM tags WHERE idx >= ?", size - 1)
    await run(world, "DELETE FROM checkpoints WHERE size >= ?", size)
    await cut_nodes(world, size - 2)
    assert await problems(world, world.trust) == ()
    assert await problems(world, world.trust, before) == ()
    (problem,) = await problems(world, world.trust, kept)
    assert f"is of {size} entries; there are {size - 1}: entries were cut off" in problem
    await happen(world, "another")
    (problem,) = await problems(world, world.trust, kept)
    assert f"the first {size} entries are not the ones that it was made of" in problem


@pytest.mark.parametrize("kept", ["", "hello", "penstock\n1\nAAAA\n\n— penstock AAAAAQ==\n"])
async def test_what_is_no_checkpoint_of_this_log_is_told(world: World, kept: str) -> None:
    """And not as if the ledger had been tampered with."""
    with pytest.raises(Invalid, match="this is no checkpoint"):
        await problems(world, world.trust, kept)


# --- in the background --------------------------------------------------------------------------------------


async def until(world: World, *holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not all(check() for check in holds):
            await asyncio.sleep(0.01)


async def test_new_checkpoints_are_cosigned_in_the_background(
    world: World, servers: list[WitnessServer]
) -> None:
    first, second = servers
    configured = [known(first)]
    witnesses = Witnesses(world.store, world.ledger, lambda: configured, pause=0.01)
    task = asyncio.create_task(witnesses.run())
    size = await happen(world, "one")
    await until(world, lambda: first.seen["penstock"].size == size if first.seen else False)
    configured.append(known(second))
    size = await happen(world, "two")
    for server in servers:
        await until(world, lambda held=server: bool(held.seen) and held.seen["penstock"].size == size)  # type: ignore[misc]
    configured.clear()
    size = await happen(world, "three")
    await until(world, lambda: not witnesses._tasks)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_witness_that_fails_is_told_and_asked_again_and_nobody_waits(
    world: World, server: WitnessServer
) -> None:
    server.answer = (500, "text/plain", "sorry\n")
    gone = WitnessServer("gone.example")
    away = Known(gone.key, "http://127.0.0.1:1", HttpWitness("http://127.0.0.1:1"))
    witnesses = Witnesses(world.store, world.ledger, lambda: [away, known(server)], pause=0.001)
    task = asyncio.create_task(witnesses.run())
    await until(
        world, lambda: server.key.name in witnesses.problems, lambda: "gone.example" in witnesses.problems
    )
    size = await happen(world, "one")
    server.answer = None
    await until(world, lambda: bool(server.seen) and server.seen["penstock"].size == size)
    await until(world, lambda: server.key.name not in witnesses.problems)
    assert "does not answer" in witnesses.problems["gone.example"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_settings_that_cannot_be_read_end_nothing(world: World, server: WitnessServer) -> None:
    broken = True

    def configured() -> list[Known]:
        if broken:
            raise Unavailable("no settings")
        return [known(server)]

    witnesses = Witnesses(world.store, world.ledger, configured, pause=0.01)
    task = asyncio.create_task(witnesses.run())
    await asyncio.sleep(0)
    broken = False
    size = await happen(world, "one")
    await until(world, lambda: bool(server.seen) and server.seen["penstock"].size == size)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
