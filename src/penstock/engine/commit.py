"""What one transaction keeps of a delivery: records with their evidence, and its end.

Called by `drive`, which says what happened, in a transaction of its own. No record and no entry is in a table
before `write`: each table is written once, and one tree head is signed for all of it. Must not decide what
comes next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from penstock.core.decide import Finish
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.pipeline import Intent, Record
from penstock.core.predicates import Ended
from penstock.engine.journal import Delivery, Journal
from penstock.engine.performer import Engine
from penstock.ledger.log import Batch, Ledger
from penstock.ports import Outcome, Signer, Store, Transaction

#: Actions whose evidence says when they began: their sign-offs must have held then.
BEGINNINGS = ("deploy", "shift", "assign", "promote", "restore")


@dataclass(frozen=True)
class Means:
    """What a worker works with. *signer* is its own key, and names it in leases."""

    store: Store
    journal: Journal
    ledger: Ledger
    engine: Engine
    signer: Signer


@dataclass
class Commit:
    """*delivery* is it with all that was recorded here so far (*made*)."""

    means: Means
    tx: Transaction
    batch: Batch
    delivery: Delivery
    made: tuple[Record, ...] = ()

    @property
    def now(self) -> float:
        """The transaction's time."""
        return self.batch.now

    def record(self, intent: Intent, began: float, outcome: Outcome) -> None:
        """How an intent ended, for whoever holds the lease (`Journal.hold`)."""
        at = began if intent.verb in BEGINNINGS else self.now
        statements = [_stamped(statement, at) for statement in outcome.statements]
        indices = tuple(entry.index for entry in self.batch.attest(self.means.signer, statements))
        record = Record(intent, outcome.state, began, self.now, outcome.reason, indices, outcome.detail)
        self.delivery = replace(self.delivery, records=(*self.delivery.records, record))
        self.made = (*self.made, record)

    async def finish(self, end: Finish) -> None:
        """The delivery has ended. `Conflict` if the lease was lost."""
        means, name = self.means, self.delivery.id
        await means.journal.finish(self.tx, self.delivery, means.signer.keyid, end)
        ended = Ended(name, end.state.value, end.outcome, end.reason)
        statement = Statement((Subject(name, digest(name.encode())),), ended)
        self.batch.attest(means.signer, [statement])
        self.delivery = replace(
            self.delivery, state=end.state, outcome=end.outcome, reason=end.reason, ended=self.now
        )

    async def write(self) -> None:
        """All of it, once nothing more is to be recorded."""
        await self.means.journal.record(self.tx, self.delivery, self.made)
        part = self.delivery.header.changeset
        if part is not None:  # the others of a change set may wait for what this one has done
            others = [name for name in part.members if name != self.delivery.id]
            await self.means.journal.nudge(self.tx, others)
        await self.means.ledger.write(self.tx, self.batch)


def _stamped(statement: Statement, at: float) -> Statement:
    """The statement with its time, where its kind has one."""
    if getattr(statement.predicate, "at", 0.0) is not None:
        return statement
    return replace(statement, predicate=replace(statement.predicate, at=at))  # type: ignore[arg-type]
