"""The ledger: evidence in order, for ever. Append in the caller's transaction, read, prove.

Called by the engine (which appends outcome and evidence in one transaction), the server and
projections. It is the only writer of facts. The leaf hash covers the exact envelope bytes; every other
column is a pure function of them and is compared by `ledger.fsck`.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Sequence

from penstock.core import merkle
from penstock.core.authority import Authority
from penstock.core.evidence import (
    Entry,
    Envelope,
    Statement,
    open_envelope,
    pre_authentication_encoding,
    seal_statement,
)
from penstock.core.notes import Checkpoint, sign_note
from penstock.core.people import BY_PEOPLE, PolicyVersion, SloVersion
from penstock.core.predicates import Imported
from penstock.errors import Broken, Invalid, Refused
from penstock.ledger import slos
from penstock.ledger.again import document_of
from penstock.ledger.foreign import check_imported
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
    """
    CREATE TABLE cosignatures (size INTEGER NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL,
        line TEXT NOT NULL,
        PRIMARY KEY (size, name));
    CREATE TABLE followers (name TEXT PRIMARY KEY, next INTEGER NOT NULL)
    """,
)

PAGE = 1000
#: In one statement; SQLite before 3.32 bounds its parameters at 999.
ROWS = 250

#: So many folds are kept: of the newest tree heads, and of a few before them that others still read.
FOLDS = 8
#: So many envelopes are kept with what they say.
ENVELOPES = 2048

#: A node's level and index.
Place = tuple[int, ...]

#: A pure computation over stored nodes.
NodeUse = Callable[[merkle.Node], object]


def attest(signer: Signer, statement: Statement) -> Envelope:
    """Sign a statement: the DSSE envelope over our own canonical bytes."""

    def sign(message: bytes) -> tuple[str, bytes]:
        made = signer.sign(message)
        return made.keyid, made.value

    return seal_statement(statement, sign)


class Batch:
    """Entries that will be appended together: numbered and admitted, but in no table yet."""

    def __init__(self, first: int, authority: Authority, now: float) -> None:
        self.first = first
        self.authority = authority
        #: The time of all that is decided with it (seconds since 1970): one for one transaction.
        self.now = now
        self.entries: tuple[Entry, ...] = ()

    @property
    def size(self) -> int:
        """The ledger's, once it is appended."""
        return self.first + len(self.entries)

    def add(self, envelopes: Sequence[Envelope]) -> tuple[Entry, ...]:
        """Number and admit signed statements. `Refused` or `Invalid` as `Ledger.append` says."""
        return self._add(envelopes, admitted)

    def attest(self, signer: Signer, statements: Sequence[Statement]) -> tuple[Entry, ...]:
        """Sign statements, and add them. `Refused` or `Invalid` as `Ledger.append` says.

        A signature that was made here a moment ago, over the bytes in hand, is not verified again: only that
        the signer's key is the one that is known by its id, and may say this. Whoever reads them verifies.
        """

        def admit(authority: Authority, entry: Entry) -> Authority:
            known = authority.key(entry.envelope.keyid, entry.statement)
            if known.public_key != signer.public_key:
                return admitted(authority, entry)
            return _in_force(authority, entry)

        return self._add([attest(signer, statement) for statement in statements], admit)

    def _add(
        self, envelopes: Sequence[Envelope], admit: Callable[[Authority, Entry], Authority]
    ) -> tuple[Entry, ...]:
        added = tuple(Entry(self.size + number, *_kept(one)) for number, one in enumerate(envelopes))
        for entry in added:
            self.authority = admit(self.authority, entry)
        self.entries += added
        return added


class Ledger:
    """*signers* are the log's keys: the one in force, and those before and after it."""

    def __init__(self, store: Store, signers: Sequence[Signer], origin: str) -> None:
        self._store = store
        self._signers = {signer.public_key: signer for signer in signers}
        self.origin = origin
        #: Folds kept between calls: by the number of entries in it, the tree head over them and the fold.
        self._folds: dict[int, tuple[str, Authority]] = {}

    async def migrate(self) -> None:
        await self._store.migrate("ledger", SCHEMA)

    # --- append ------------------------------------------------------------------------------------

    async def append(self, tx: Transaction, envelopes: Sequence[Envelope]) -> tuple[Entry, ...]:
        """Append signed statements in the caller's transaction, and sign the new tree head.

        `Refused` if a signer may not say what it says, `Invalid` if a policy is not what its text says;
        then nothing of the transaction should be kept.
        """
        batch = await self.batch(tx)
        entries = batch.add(envelopes)
        await self.write(tx, batch)
        return entries

    async def batch(self, tx: Transaction) -> Batch:
        """Nothing yet, after what the ledger holds: for whoever must see some entries to make others."""
        size = await self.size(tx)
        return Batch(size, await self._authority(tx, size), await tx.now())

    async def write(self, tx: Transaction, batch: Batch) -> None:
        """Append what was added, and sign the new tree head; once, in the transaction that *batch* is of.

        Each table in as few statements as can be: every one is a round trip to the database.
        """
        entries, authority = batch.entries, batch.authority
        if not entries:
            return
        nodes = await self._nodes(tx, lambda node: merkle.root(entries[0].index, node))
        made = [node for entry in entries for node in _grown(nodes, entry)]
        await _insert(tx, "entries (idx, envelope)", [(e.index, e.envelope.raw) for e in entries])
        # Sorted: neighbours go into one page of the index, which is then written once.
        await _insert(tx, "tags (tag, idx)", sorted((tag, e.index) for e in entries for tag in tags(e)))
        await _insert(tx, "nodes (level, idx, hash)", made)
        size = entries[-1].index + 1
        head = Checkpoint(self.origin, size, merkle.root(size, lambda *place: nodes[place]))
        signer = self._signers.get(authority.log_key(size))
        if signer is None:
            raise Broken("this server does not have the log's key", next_move="put it back into keys/")
        note = sign_note(head, signer.public_key, lambda message: signer.sign(message).value)
        await tx.execute("INSERT INTO checkpoints (size, note) VALUES (?, ?)", (size, note))
        self._keep(size, note, authority)

    # --- read ----------------------------------------------------------------------------------------

    async def size(self, tx: Transaction) -> int:
        ((size,),) = await tx.execute("SELECT coalesce(max(idx) + 1, 0) FROM entries")
        return int(str(size))

    async def entry(self, tx: Transaction, index: int) -> Entry:
        rows = await tx.execute("SELECT idx, envelope FROM entries WHERE idx = ?", (index,))
        if not rows:
            raise Invalid(f"there is no entry {index}", next_move="penstock evidence list")
        return entry_of(rows[0])

    async def entries(self, tx: Transaction, start: int = 0, limit: int = PAGE) -> tuple[Entry, ...]:
        rows = await tx.execute(
            "SELECT idx, envelope FROM entries WHERE idx >= ? ORDER BY idx LIMIT ?", (start, limit)
        )
        return tuple(entry_of(row) for row in rows)

    async def tagged(
        self, tx: Transaction, *tags: str, since: int = 0, before: int | None = None, last: int | None = None
    ) -> tuple[Entry, ...]:
        """Entries with any of *tags* (see `ledger.tags`), oldest first; from *since* on, below *before*;
        and of those the *last* ones alone, if that is said."""
        below = await self.size(tx) if before is None else before
        found = f"SELECT idx FROM tags WHERE tag IN ({', '.join('?' * len(tags))}) AND idx >= ? AND idx < ?"
        args: tuple[str | int, ...] = (*tags, since, below)
        if last is not None:
            found, args = f"{found} GROUP BY idx ORDER BY idx DESC LIMIT ?", (*args, last)
        rows = await tx.execute(
            f"SELECT idx, envelope FROM entries WHERE idx IN ({found}) ORDER BY idx", args
        )
        return tuple(entry_of(row) for row in rows)

    async def tagged_since(self, tx: Transaction, tags: Sequence[str], size: int) -> bool:
        """Whether an entry with one of *tags* came after the first *size* entries."""
        rows = await tx.execute(
            f"SELECT 1 FROM tags WHERE tag IN ({', '.join('?' * len(tags))}) AND idx >= ? LIMIT 1",
            (*tags, size),
        )
        return bool(rows)

    async def authority(self, tx: Transaction) -> Authority:
        """Who may say what, at this transaction's size."""
        return await self._authority(tx, await self.size(tx))

    async def _authority(self, tx: Transaction, size: int) -> Authority:
        known, fold = await self._nearest(tx, size)
        if known < size:
            for entry in await self._said(tx, known):
                fold = fold.admit(entry)
            self._keep(size, await self._note(tx, size), fold)
        return fold

    async def _nearest(self, tx: Transaction, size: int) -> tuple[int, Authority]:
        """The newest fold kept of at most *size* entries. Its tree head tells a beginning of this ledger from
        one that was rolled back."""
        for known in sorted((kept for kept in self._folds if kept <= size), reverse=True):
            note, fold = self._folds[known]
            if note == await self._note(tx, known):
                return known, fold
        return 0, Authority()

    def _keep(self, size: int, note: str, fold: Authority) -> None:
        if note:
            self._folds[size] = (note, fold)
        while len(self._folds) > FOLDS:
            del self._folds[min(self._folds)]

    async def _note(self, tx: Transaction, size: int) -> str:
        """The tree head that was signed over the first *size* entries; empty if none was."""
        rows = await tx.execute("SELECT note FROM checkpoints WHERE size = ?", (size,))
        return str(rows[0][0]) if rows else ""

    def signs_with(self, public_key: str) -> bool:
        """Whether this process has a key of the log's (raw, hex)."""
        return any(raw.hex() == public_key for raw in self._signers)

    def sign_also_with(self, signer: Signer) -> None:
        """Have a further key of the log at hand: the one that a `LogKey` entry names from now on."""
        self._signers[signer.public_key] = signer

    async def _said(self, tx: Transaction, start: int) -> list[Entry]:
        """What people said from *start* on: a few entries among many."""
        marks = ", ".join("?" * len(BY_PEOPLE))
        rows = await tx.execute(
            "SELECT e.idx, e.envelope FROM tags t JOIN entries e ON e.idx = t.idx "
            f"WHERE t.tag IN ({marks}) AND t.idx >= ? ORDER BY t.idx",
            (*(f"type:{kind.TYPE}" for kind in BY_PEOPLE), start),
        )
        return [entry_of(row) for row in rows]

    # --- prove ---------------------------------------------------------------------------------------

    async def checkpoint(self, tx: Transaction) -> str:
        """The newest signed tree head, with the lines of the witnesses that cosigned it."""
        return (await self.head(tx))[1]

    async def head(self, tx: Transaction, *, cosigned: int = 0, covering: int = 0) -> tuple[int, str]:
        """(size, note) of the newest tree head that *cosigned* witnesses stand behind; `Invalid` if none.

        With *covering*, only of heads of at least that many entries.
        """
        if cosigned:
            found = await tx.execute(
                "SELECT size FROM cosignatures WHERE size >= ? GROUP BY size HAVING count(*) >= ? "
                "ORDER BY size DESC LIMIT 1",
                (covering, cosigned),
            )
        else:
            found = await tx.execute(
                "SELECT size FROM checkpoints WHERE size >= ? ORDER BY size DESC LIMIT 1", (covering,)
            )
        rows = [
            row
            for given in found
            for row in await tx.execute("SELECT size, note FROM checkpoints WHERE size = ?", given)
        ]
        if not rows:
            raise Invalid(
                f"no checkpoint with {cosigned} cosignatures" if cosigned else "the ledger is empty",
                next_move="penstock ledger witness list" if cosigned else "",
            )
        size, note = int(str(rows[0][0])), str(rows[0][1])
        lines = await tx.execute("SELECT line FROM cosignatures WHERE size = ? ORDER BY name", (size,))
        return size, note + "".join(str(line) for (line,) in lines)

    async def root(self, tx: Transaction, size: int) -> bytes:
        nodes = await self._nodes(tx, lambda node: merkle.root(size, node))
        return merkle.root(size, lambda level, index: nodes[level, index])

    async def inclusion(self, tx: Transaction, index: int, size: int) -> list[bytes]:
        nodes = await self._nodes(tx, lambda node: merkle.inclusion(index, size, node))
        return merkle.inclusion(index, size, lambda level, i: nodes[level, i])

    async def consistency(self, tx: Transaction, old: int, new: int) -> list[bytes]:
        nodes = await self._nodes(tx, lambda node: merkle.consistency(old, new, node))
        return merkle.consistency(old, new, lambda level, i: nodes[level, i])

    async def _nodes(self, tx: Transaction, compute: NodeUse) -> dict[Place, bytes]:
        """The stored nodes that a pure computation asks for: run it once to see which."""
        wanted: dict[Place, None] = {}

        def note(*place: int) -> bytes:
            wanted[place] = None
            return b""

        compute(note)
        if not wanted:
            return {}
        # Each by the index, in every database; a list of pairs makes some of them read the whole table.
        places = " OR ".join(["(level = ? AND idx = ?)"] * len(wanted))
        rows = await tx.execute(
            f"SELECT level, idx, hash FROM nodes WHERE {places}", tuple(itertools.chain(*wanted))
        )
        found = {row[:2]: row[2] for row in rows}
        return {place: _hash(place, found.get(place)) for place in wanted}


def _grown(nodes: dict[Place, bytes], entry: Entry) -> list[tuple[int, int, bytes]]:
    """The nodes that an entry completes. They join *nodes*: the next entry's neighbours are among them."""
    leaf = merkle.leaf_hash(entry.envelope.raw)
    made = merkle.completed_by(entry.index, leaf, lambda *place: nodes[place])
    nodes.update({(level, index): value for level, index, value in made})
    return made


async def _insert(tx: Transaction, into: str, rows: Sequence[Row]) -> None:
    """Many rows in few statements, each of the same text as far as can be: databases keep those prepared."""
    for some in (rows[start : start + ROWS] for start in range(0, len(rows), ROWS)):
        one = f"({', '.join('?' * len(some[0]))})"
        await tx.execute(
            f"INSERT INTO {into} VALUES {', '.join([one] * len(some))}", tuple(itertools.chain(*some))
        )


def _hash(place: Place, value: object) -> bytes:
    if not isinstance(value, bytes):
        raise Broken(f"the tree lacks node {place[0]}/{place[1]}", next_move="penstock ledger verify")
    return value


def admitted(authority: Authority, entry: Entry) -> Authority:
    """What holds after this entry, if its signature is good, its signer may say it, and it makes sense.

    The one door: for appending, for ``ledger verify`` and for bundles. `Refused` or `Invalid` otherwise.
    """
    where = f"entry {entry.index}"
    key = authority.key(entry.envelope.keyid, entry.statement)
    message = pre_authentication_encoding(entry.envelope.payload)
    if not signed_by(key.public_key, message, entry.envelope.signature):
        raise Refused(f"not signed by {key.identity}", where=where)
    return _in_force(authority, entry)


def _in_force(authority: Authority, entry: Entry) -> Authority:
    """What holds after an entry whose signature is good."""
    after = authority.admit(entry)
    predicate = entry.statement.predicate
    if isinstance(predicate, PolicyVersion):
        document_of(predicate)
    if isinstance(predicate, SloVersion):
        slos.document_of(predicate)
    if isinstance(predicate, Imported):
        check_imported(authority, predicate, entry.statement)
    return after


def entry_of(row: Row) -> Entry:
    """An entry from its index and its envelope's bytes, parsed strictly."""
    index, raw = row
    if not isinstance(index, int) or not isinstance(raw, bytes):
        raise Broken("an entry of the wrong type", where=f"entry {index}", next_move="penstock ledger verify")
    return Entry(index, *(_newest.get(raw) or _kept(open_envelope(raw))))


#: The same entries are read again and again, and strict parsing costs more than fetching them.
_newest: collections.OrderedDict[bytes, tuple[Envelope, Statement]] = collections.OrderedDict()


def _kept(envelope: Envelope) -> tuple[Envelope, Statement]:
    """The envelope and what it says; kept, so that what was just appended need not be parsed."""
    pair = _newest[envelope.raw] = envelope, envelope.statement()
    if len(_newest) > ENVELOPES:
        _newest.popitem(last=False)
    return pair
