"""`ledger verify` reads page by page: nothing hides behind a page, and nobody waits for the whole."""

from __future__ import annotations

import asyncio

import pytest

from integration.ledger.world import World, suite_ran
from penstock.core.digest import digest
from penstock.core.evidence import Envelope, Statement, Subject
from penstock.ledger import fsck
from penstock.ledger.log import attest
from penstock.ports import Store

#: Entries in a transaction of their own, so that there are more checkpoints than a page holds.
SINGLY = fsck.PAGE + 20
SIZE = 2 * fsck.PAGE + 200
#: An entry on the last page.
LATE = SIZE - 90


def said(world: World, number: int) -> Envelope:
    about = Subject("catalog", digest(b"%d" % number))
    return attest(world.worker, Statement((about,), suite_ran(suite=f"suite-{number}")))


@pytest.fixture
async def long(tmp_path_factory: pytest.TempPathFactory, store: Store) -> World:
    world = await World.begin(tmp_path_factory.mktemp("keys"), store, [])
    async with store.transaction(write=False) as tx:
        begun = await world.ledger.size(tx)
    for number in range(begun, SINGLY):
        await world.keep(said(world, number))
    await world.keep(*(said(world, number) for number in range(SINGLY, SIZE)))
    return world


async def test_what_is_done_to_any_page_is_found_and_named(long: World) -> None:
    report = await long.verify()
    assert report.verified
    assert (report.entries, report.checkpoints) == (SIZE, SINGLY)
    about = f"about:{digest(b'%d' % LATE)}"
    for change, back, problem in (
        (
            f"UPDATE nodes SET level = 30 WHERE level = 0 AND idx = {LATE}",
            f"UPDATE nodes SET level = 0 WHERE level = 30 AND idx = {LATE}",
            f"node 0/{LATE}: is missing",
        ),
        (
            f"UPDATE nodes SET idx = {SIZE} WHERE level = 3 AND idx = {LATE // 8}",
            f"UPDATE nodes SET idx = {LATE // 8} WHERE level = 3 AND idx = {SIZE}",
            f"node 3/{LATE // 8}: is missing\nnode 3/{SIZE}: is not what the entries give",
        ),
        (
            f"UPDATE tags SET idx = {LATE + 1} WHERE tag = '{about}'",
            f"UPDATE tags SET idx = {LATE} WHERE tag = '{about}'",
            f"tag {about} of entry {LATE}: stored and computed tags differ\n"
            f"tag {about} of entry {LATE + 1}: stored and computed tags differ",
        ),
        (
            f"UPDATE tags SET idx = -1 WHERE tag = '{about}'",
            f"UPDATE tags SET idx = {LATE} WHERE tag = '{about}'",
            f"tag {about} of entry -1: is not of an entry",
        ),
        (
            f"UPDATE tags SET tag = 'x' WHERE tag = '{about}'",
            f"UPDATE tags SET tag = '{about}' WHERE tag = 'x'",
            f"tag x of entry {LATE}: stored and computed tags differ",
        ),
        (
            f"UPDATE checkpoints SET note = note || ' ' WHERE size = {SINGLY - 1}",
            f"UPDATE checkpoints SET note = substr(note, 1, length(note) - 1) WHERE size = {SINGLY - 1}",
            f"checkpoint {SINGLY - 1}: ",
        ),
        (
            f"UPDATE entries SET idx = {SIZE + 1} WHERE idx = {LATE}",
            f"UPDATE entries SET idx = {LATE} WHERE idx = {SIZE + 1}",
            f"entry {LATE}: is missing",
        ),
    ):
        await run(long.store, change)
        assert problem in "\n".join((await long.verify()).problems), change
        await run(long.store, back)
    assert (await long.verify()).verified


async def test_an_entry_over_again_is_named_however_long_ago_it_was(long: World) -> None:
    again = (await long.keep(said(long, LATE), said(long, 5)))[0].index
    problems = (await long.verify()).problems
    assert sorted(problem for problem in problems if "over again" in problem) == [
        f"entry {again}: is an earlier entry over again",
        f"entry {again + 1}: is an earlier entry over again",
    ]


async def test_others_get_their_turn_all_the_time(long: World) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    waiting = asyncio.create_task(others())
    assert (await long.verify()).verified
    waiting.cancel()
    # One for every page of every table at the very least, if the machine were infinitely fast.
    assert turns >= 3


async def run(store: Store, sql: str) -> None:
    async with store.transaction() as tx:
        await tx.execute(sql)
