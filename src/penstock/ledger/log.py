"""The ledger: evidence in order, for ever. Append in the caller's transaction, read, prove.

Called by the engine (which appends outcome and evidence in one transaction), the server and
projections. It is the only writer of facts. The leaf hash covers the exact envelope bytes; every other
column is a pure function of them and is compared by `ledger.fsck`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence

from penstock.core import merkle
from penstock.core.authority import BY_PEOPLE, Authority
from penstock.core.evidence import (
    Entry,
    Envelope,
    Statement,
    open_envelope,
    pre_authentication_encoding,
    seal,
)
from penstock.core.notes import Checkpoint, sign_note
from penstock.core.predicates import PolicyVersion
from penstock.errors import Broken, Invalid, Refused
from penstock.ledger.again import document_of
from penstock.ledger.signatures import signed_by
from penstock.ledger.tags import tags
from penstock.ports import Row, Signer, Store, Transaction

SCHEMA = (
    """
    CREATE TABLE entries (idx INTEGER PRIMARY KEY, envelope BLOB NOT NULL);
    CREATE TABLE nodes (level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,
        PRIMARY KEY (level, idx));
    CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL);
    CREATE TABLE tags (tag TEXT NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY (tag, idx))
    """,
)

PAGE = 1000

#: A pure computation over stored nodes.
NodeUse = Callable[[merkle.Node], object]


def attest(signer: Signer, statement: Statement) -> Envelope:
    """Sign a statement: the DSSE envelope over our own canonical bytes."""
    payload = statement.payload()
    signature = signer.sign(pre_authentication_encoding(payload))
    return seal(payload, signature.keyid, signature.value)


class Ledger:
    def __init__(self, store: Store, signer: Signer, origin: str) -> None:
        self._store = store
        self._signer = signer
        self.origin = origin
        #: A fold kept between calls, never changed, and the root of the entries in it.
        self._fold = Authority()
        self._fold_root = merkle.EMPTY_ROOT

    async def migrate(self) -> None:
        await self._store.migrate("ledger", SCHEMA)

    # --- append ------------------------------------------------------------------------------------

    async def append(self, tx: Transaction, envelopes: Sequence[Envelope]) -> tuple[Entry, ...]:
        """Append signed statements in the caller's transaction, and sign the new tree head.

        `Refused` if a signer may not say what it says, `Invalid` if a policy is not what its text says;
        then nothing of the transaction should be kept.
        """
        if not envelopes:
            return ()
        first = await self.size(tx)
        entries = tuple(
            Entry(first + number, envelope, envelope.statement()) for number, envelope in enumerate(envelopes)
        )
        authority = copy.deepcopy(await self.authority(tx))
        for entry in entries:
            _check_signature(authority, entry)
            authority.admit(entry)
            if isinstance(entry.statement.predicate, PolicyVersion):
                document_of(entry.statement.predicate)
        for entry in entries:
            await self._write(tx, entry)
        await self._sign_head(tx, first + len(entries))
        return entries

    async def _write(self, tx: Transaction, entry: Entry) -> None:
        await tx.execute(
            "INSERT INTO entries (idx, envelope) VALUES (?, ?)", (entry.index, entry.envelope.raw)
        )
        for tag in tags(entry):
            await tx.execute("INSERT INTO tags (tag, idx) VALUES (?, ?)", (tag, entry.index))
        needed = await self._left_neighbours(tx, entry.index)
        made = merkle.completed_by(
            entry.index, merkle.leaf_hash(entry.envelope.raw), lambda level, index: needed[level, index]
        )
        for level, index, value in made:
            await tx.execute("INSERT INTO nodes (level, idx, hash) VALUES (?, ?, ?)", (level, index, value))

    async def _left_neighbours(self, tx: Transaction, index: int) -> dict[tuple[int, int], bytes]:
        """The stored nodes that appending leaf *index* joins with."""
        found = {}
        level, position = 0, index
        while position % 2 == 1:
            found[level, position - 1] = await self._node(tx, level, position - 1)
            level, position = level + 1, position // 2
        return found

    async def _sign_head(self, tx: Transaction, size: int) -> None:
        head = Checkpoint(self.origin, size, await self.root(tx, size))
        note = sign_note(head, self._signer.public_key, lambda message: self._signer.sign(message).value)
        await tx.execute("INSERT INTO checkpoints (size, note) VALUES (?, ?)", (size, note))

    # --- read ----------------------------------------------------------------------------------------

    async def size(self, tx: Transaction) -> int:
        ((size,),) = await tx.execute("SELECT coalesce(max(idx) + 1, 0) FROM entries")
        return int(str(size))

    async def entry(self, tx: Transaction, index: int) -> Entry:
        rows = await tx.execute("SELECT idx, envelope FROM entries WHERE idx = ?", (index,))
        if not rows:
            raise Invalid(f"there is no entry {index}", next_move="penstock evidence list")
        return _entry(rows[0])

    async def entries(self, tx: Transaction, start: int = 0, limit: int = PAGE) -> tuple[Entry, ...]:
        rows = await tx.execute(
            "SELECT idx, envelope FROM entries WHERE idx >= ? ORDER BY idx LIMIT ?", (start, limit)
        )
        return tuple(_entry(row) for row in rows)

    async def tagged(self, tx: Transaction, tag: str, before: int | None = None) -> tuple[Entry, ...]:
        """Entries with a tag (see `ledger.tags`), oldest first; with *before*, only those below it."""
        limit = await self.size(tx) if before is None else before
        rows = await tx.execute(
            "SELECT e.idx, e.envelope FROM tags t JOIN entries e ON e.idx = t.idx "
            "WHERE t.tag = ? AND t.idx < ? ORDER BY t.idx",
            (tag, limit),
        )
        return tuple(_entry(row) for row in rows)

    async def authority(self, tx: Transaction) -> Authority:
        """Who may say what, at this transaction's size. The result is shared: copy it to change it."""
        size = await self.size(tx)
        fold = self._fold
        # The root tells a beginning of this ledger from one that was rolled back.
        if fold.size > size or await self.root(tx, fold.size) != self._fold_root:
            fold = Authority()
        if fold.size == size:
            return fold
        fold = copy.deepcopy(fold)
        for entry in await self._grants(tx, fold.size):
            fold.follow(entry)
        fold.size = size
        self._fold, self._fold_root = fold, await self.root(tx, size)
        return fold

    async def _grants(self, tx: Transaction, start: int) -> list[Entry]:
        """The entries from *start* on that change who may say what: a few among many."""
        marks = ", ".join("?" * len(BY_PEOPLE))
        rows = await tx.execute(
            "SELECT e.idx, e.envelope FROM tags t JOIN entries e ON e.idx = t.idx "
            f"WHERE t.tag IN ({marks}) AND t.idx >= ? ORDER BY t.idx",
            (*(f"type:{kind.TYPE}" for kind in BY_PEOPLE), start),
        )
        return [_entry(row) for row in rows]

    # --- prove ---------------------------------------------------------------------------------------

    async def checkpoint(self, tx: Transaction) -> str:
        """The newest signed tree head."""
        rows = await tx.execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1")
        if not rows:
            raise Invalid("the ledger is empty")
        return str(rows[0][0])

    async def root(self, tx: Transaction, size: int) -> bytes:
        nodes = await self._nodes(tx, lambda node: merkle.root(size, node))
        return merkle.root(size, lambda level, index: nodes[level, index])

    async def inclusion(self, tx: Transaction, index: int, size: int) -> list[bytes]:
        nodes = await self._nodes(tx, lambda node: merkle.inclusion(index, size, node))
        return merkle.inclusion(index, size, lambda level, i: nodes[level, i])

    async def consistency(self, tx: Transaction, old: int, new: int) -> list[bytes]:
        nodes = await self._nodes(tx, lambda node: merkle.consistency(old, new, node))
        return merkle.consistency(old, new, lambda level, i: nodes[level, i])

    async def _nodes(self, tx: Transaction, compute: NodeUse) -> dict[tuple[int, int], bytes]:
        """The stored nodes that a pure computation asks for: run it once to see which."""
        wanted: list[tuple[int, int]] = []

        def note(level: int, index: int) -> bytes:
            wanted.append((level, index))
            return b""

        compute(note)
        return {place: await self._node(tx, *place) for place in wanted}

    async def _node(self, tx: Transaction, level: int, index: int) -> bytes:
        rows = await tx.execute("SELECT hash FROM nodes WHERE level = ? AND idx = ?", (level, index))
        if not rows or not isinstance(rows[0][0], bytes):
            raise Broken(f"the tree lacks node {level}/{index}", next_move="penstock ledger verify")
        return rows[0][0]


def _check_signature(authority: Authority, entry: Entry) -> None:
    key = authority.key(entry.envelope.keyid, entry.statement)
    message = pre_authentication_encoding(entry.envelope.payload)
    if not signed_by(key.public_key, message, entry.envelope.signature):
        raise Refused(f"not signed by {key.identity}", where=f"entry {entry.index}")


def _entry(row: Row) -> Entry:
    index, raw = row
    if not isinstance(index, int) or not isinstance(raw, bytes):
        raise Broken("an entry of the wrong type", where=f"entry {index}", next_move="penstock ledger verify")
    return Entry(index, *_parsed(raw))


@functools.lru_cache(maxsize=2048)
def _parsed(raw: bytes) -> tuple[Envelope, Statement]:
    # The same entries are read again and again, and strict parsing costs more than fetching them.
    envelope = open_envelope(raw)
    return envelope, envelope.statement()
