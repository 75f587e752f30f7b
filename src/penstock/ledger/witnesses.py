"""Asks witnesses to cosign new checkpoints, in the background, and keeps what they sign.

Called by the control plane. Nothing waits for a witness: appending, gates and deliveries go on whether they
answer or not. What a witness answers is kept only if its own key signed it, under our checkpoint. Where a
witness is, the table of its cosignatures says; a witness that knows better is believed about the size alone,
and then given the proof from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from penstock.core.notes import SignatureLine, VerifierKey, WitnessedSize, cosigned_at, split
from penstock.errors import Conflict, PenstockError, Refused
from penstock.ledger.log import Ledger
from penstock.ledger.signatures import signed_by
from penstock.ports import Store, Transaction, Witness

log = logging.getLogger(__name__)

#: A witness that answers is asked at most this often: one cosignature covers every checkpoint before it.
PAUSE_SECONDS = 1.0
LONGEST_SECONDS = 300.0
WAKE_SECONDS = 30.0
#: A change of the settings is noticed this late.
SETTINGS_SECONDS = 5.0


@dataclass(frozen=True)
class Known:
    """A witness: the key that its signatures are checked with, its URL, and the way there."""

    key: VerifierKey
    url: str
    witness: Witness = field(compare=False)


async def signed_size(tx: Transaction, name: str) -> int:
    """The largest size that the witness with this name cosigned for us; 0 if none."""
    ((size,),) = await tx.execute("SELECT coalesce(max(size), 0) FROM cosignatures WHERE name = ?", (name,))
    return int(str(size))


async def ask(store: Store, ledger: Ledger, known: Known) -> int:
    """Have the newest checkpoint cosigned, unless it is. Returns the size that the witness now stands behind.

    `Conflict` if the witness saw more entries than there are: then some were cut off.
    """
    async with store.transaction(write=False) as tx:
        old = await signed_size(tx, known.key.name)
        size = await ledger.size(tx)
    if old == size:
        return size
    try:
        return await _ask_from(store, ledger, known, old)
    except WitnessedSize as error:
        async with store.transaction(write=False) as tx:
            size = await ledger.size(tx)
        if error.size > size:
            raise Conflict(
                f"{known.key.name} saw {error.size} entries; there are {size}: entries were cut off",
                where="ledger",
                next_move="penstock ledger verify; restore the last backup",
            ) from error
        return await _ask_from(store, ledger, known, error.size)


async def _ask_from(store: Store, ledger: Ledger, known: Known, old: int) -> int:
    async with store.transaction(write=False) as tx:
        size, note = await ledger.head(tx)
        proof = await ledger.consistency(tx, old, size)
    answer = await known.witness.cosign(old, proof, note)
    line = _genuine(known.key, note, answer)
    async with store.transaction() as tx:
        await tx.execute(
            "INSERT INTO cosignatures (size, name, key, line) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (size, name) DO NOTHING",
            (size, known.key.name, str(known.key), str(line)),
        )
    return size


def _genuine(key: VerifierKey, note: str, answer: str) -> SignatureLine:
    """The line of an answer that is by *key*, checked. Lines by others are left alone."""
    body, _ = split(note)
    _, lines = split(f"{body}\n{answer}")
    for line in lines:
        if line.by(key):
            cosigned_at(body, line, key, signed_by)
            return line
    raise Refused("the witness signed with another key than the one that was given for it", where=key.name)


class Witnesses:
    """The background task. *configured* is asked again whenever something was committed."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        configured: Callable[[], Sequence[Known]],
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._configured = configured
        self._pause = pause
        self._tasks: dict[Known, asyncio.Task[None]] = {}
        #: What is wrong with a witness now, by name.
        self.problems: dict[str, str] = {}

    async def run(self) -> None:
        """Keep one task for each configured witness, until cancelled."""
        try:
            while True:
                await self._arrange()
                await self._store.wake(SETTINGS_SECONDS)
        finally:
            await self._end(list(self._tasks))

    async def _arrange(self) -> None:
        try:
            wanted = list(self._configured())
        except PenstockError as error:
            log.warning("witnesses: %s", error)
            return
        await self._end([known for known in self._tasks if known not in wanted])
        for known in wanted:
            if known not in self._tasks:
                self._tasks[known] = asyncio.create_task(self._tend(known))

    async def _end(self, unwanted: list[Known]) -> None:
        tasks = [self._tasks.pop(known) for known in unwanted]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for known in unwanted:
            self.problems.pop(known.key.name, None)

    async def _tend(self, known: Known) -> None:
        """Ask whenever there is something new; more and more patiently while that fails."""
        failures, signed = 0, -1
        while True:
            try:
                before, signed = signed, await ask(self._store, self._ledger, known)
            except Exception as error:
                failures += 1
                self._failed(known, error)
                await asyncio.sleep(min(self._pause * 2.0 ** min(failures, 20), LONGEST_SECONDS))
                continue
            failures = 0
            self.problems.pop(known.key.name, None)
            if signed == before:
                await self._store.wake(WAKE_SECONDS)
            else:
                await asyncio.sleep(self._pause)

    def _failed(self, known: Known, error: Exception) -> None:
        # Whatever it is: a background task that dies quietly would look like one with nothing to do.
        self.problems[known.key.name] = str(error).partition("\n")[0] or type(error).__name__
        log.warning("witness %s: %s", known.key.name, error, exc_info=not isinstance(error, PenstockError))
