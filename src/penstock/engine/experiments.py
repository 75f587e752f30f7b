"""Starting experiments: all that can be wrong with one is found before anything is queued.

Called by the server. An experiment is a delivery like another: it waits for its service, is journalled and
gated, and ends with users where they were.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.core.digest import digest
from penstock.core.experiment import Plan
from penstock.core.release import Change
from penstock.engine.begin import dealt
from penstock.engine.journal import Header
from penstock.engine.queue import Proposal, Queue
from penstock.errors import Invalid
from penstock.ledger.again import needed
from penstock.ledger.live import live
from penstock.ledger.log import Ledger
from penstock.ports import Artifacts, Store


@dataclass(frozen=True)
class Experiments:
    store: Store
    ledger: Ledger
    artifacts: Artifacts
    queue: Queue

    async def start(self, asked: Plan, environment: str, person: str) -> str:
        """Queue it, as *person*; returns its delivery. `Invalid` for values that what is live does not take,
        or if no policy would ever let it begin."""
        title = f"experiment {asked.name}: {', '.join(asked.names)}"
        revision = digest(asked.source.encode())
        change = Change("experiment", asked.service, environment, "", revision, person, title)
        async with self.store.transaction(write=False) as tx:
            now_live = await live(self.ledger, tx, asked.service, environment)
            guarded = bool(needed(await self.ledger.authority(tx), "experiment", change))
        artifact, _ = await dealt(asked, environment, now_live, self.artifacts)
        if not guarded:
            raise Invalid(
                f"no policy guards experiment in {environment}, and nothing never passes",
                next_move="publish one that does: add experiment to the guards of your test-lead policy",
            )
        image = await self.artifacts.describe(artifact.digest)
        return await self.queue.add(Proposal(Header(change, image.config, experiment=asked)))
