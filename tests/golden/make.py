"""Writes the golden journal of the release that it is run with: ``python -m tests.golden.make``, once a
release; and beside it a sign-off (see `deciding`).

The file is a dump of a SQLite store with a delivery at every stage, as SQL text:
``tests/golden/VERSION/journal.sql``. It is never written again: later releases have to go on from it as it
is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from penstock.adapters.sqlite import SqliteStore
from penstock.engine import prune
from tests.golden.deciding import QUESTION, decided
from tests.golden.scene import ENDS, OPEN, STOPS, GoldenEngine, GoldenStage, header
from tests.integration.engine.stage import running

HERE = Path(__file__).parent


async def play(folder: Path) -> None:
    """A store in *folder* in which every delivery is where the scene says."""
    store = SqliteStore(folder / "penstock.db")
    stage = GoldenStage(folder, store)
    await stage.open()
    await prune.migrate(store)
    async with store.transaction() as tx:
        for name in (*STOPS, "retrying", "waiting", *ENDS):
            kind = "rollback" if name == "restored" else "code"
            await stage.journal.create(tx, name, header(name, kind))
        await stage.journal.create(tx, "pending", header("built"))
    engine = GoldenEngine(stage, making=True)
    async with running(await stage.worker("worker", engine)):
        await stage.ended(*ENDS)
        await stage.until(lambda: all(key in engine.keys(name) for name, key in STOPS.items()))
        await stage.until(lambda: engine.keys("retrying").count("scan/scan/0") == 2)
        while not (await stage.find("waiting")).facts.open_gates:
            await asyncio.sleep(0.01)
    await stage.journal.request("being-aborted", "abort")
    await check(stage)
    await store.close()


async def check(stage: GoldenStage) -> None:
    for name, outcome in ENDS.items():
        assert (await stage.find(name)).outcome == outcome, name
    for name in OPEN:
        assert not (await stage.find(name)).ended, name


def main() -> int:
    target = HERE / version("penstock") / "journal.sql"
    if target.exists():
        sys.stderr.write(f"{target} is there already: a release is made once\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))
        with contextlib.closing(sqlite3.connect(Path(folder) / "penstock.db")) as made:
            text = "\n".join(made.iterdump())
    target.parent.mkdir(exist_ok=True)
    target.write_text(text + "\n", encoding="utf-8")
    target.with_name("sign-off.json").write_bytes(decided(QUESTION))
    sys.stdout.write(f"{target}: {len(text)} characters\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
