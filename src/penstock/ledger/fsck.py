"""Re-checks every byte of the ledger: what ``penstock ledger verify`` runs.

Called by the server and by the CLI. It trusts nothing but the trust file: entries are decoded strictly,
signatures and authority are checked in order, every stored node, tag and checkpoint is computed again
and compared, every sign-off is decided again to the same bytes, and every action must have had them. It
changes nothing. What it cannot notice: entries cut off the end together with their checkpoints, unless
somebody outside kept a later checkpoint and gives it (*kept*); and that an older checkpoint, or a
cosignature, is gone, on which nothing rests.

Everything is read in one snapshot, page by page, and forgotten again, but for `ledger.tallies`. What a
sign-off rests on is found by the stored tags: that these are the right ones is checked in the same snapshot.
Others of this process get their turn every few milliseconds: leases must be renewed meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.core import merkle
from penstock.core.authority import Authority
from penstock.core.evidence import Entry, open_envelope
from penstock.core.notes import Checkpoint, VerifierKey, claimed_size, cosigned_at, open_note, split
from penstock.core.policy import PolicyDocument, Rules
from penstock.core.predicates import SignOff
from penstock.errors import Invalid, PenstockError
from penstock.ledger import again, looks
from penstock.ledger.log import admitted, entry_of
from penstock.ledger.signatures import signed_by
from penstock.ledger.tags import tags
from penstock.ledger.tallies import Seen, Tags, Tree
from penstock.ports import Language, Row, Store, Transaction

MAX_PROBLEMS = 50
#: So many spans of entries are looked at closely if their tags are wrong (see `ledger.tallies`).
MAX_SPANS = 5
#: Rows read at a time.
PAGE = 500
#: Checked entries that are kept at hand.
RECENT = 1000
#: For how long nobody else gets a turn.
TURN_SECONDS = 0.003


@dataclass(frozen=True)
class Trust:
    """What somebody outside keeps: the log's name and key (raw, hex), and the digest of entry 0.

    *witnesses* are verifier keys; *quorum* of them must stand behind a bundle's checkpoint.
    """

    origin: str
    log_key: str
    genesis: str
    witnesses: tuple[str, ...] = ()
    quorum: int = 0

    def cosigners(self) -> tuple[VerifierKey, ...]:
        """The witnesses' keys; `Invalid` if one is not a key."""
        return tuple(VerifierKey.cosigner(text) for text in self.witnesses)


@dataclass(frozen=True)
class Report:
    """*problems* say where and what; the ledger is verified if there are none and it is not empty."""

    entries: int
    sign_offs: int
    checkpoints: int
    root: str
    problems: tuple[str, ...]

    @property
    def verified(self) -> bool:
        return not self.problems and self.entries > 0


class _Once:
    """A language that compiles each policy once: thousands of sign-offs are by a few policies."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self.at_once = language.at_once
        self._compiled: dict[tuple[str, str], Rules] = {}

    def compile(self, policy: PolicyDocument) -> Rules:
        known = (policy.policy, policy.source)
        if known not in self._compiled:
            self._compiled[known] = self._language.compile(policy)
        return self._compiled[known]


@dataclass
class _Check:
    """One run: what has been folded so far."""

    trust: Trust | None
    languages: Mapping[str, Language]
    authority: Authority = field(default_factory=Authority)
    tree: Tree = field(default_factory=Tree)
    leaves: Seen = field(default_factory=Seen)
    tagged: Tags = field(default_factory=Tags)
    #: The last entries that were checked, by index: what a sign-off rests on is mostly among them.
    recent: dict[int, Entry] = field(default_factory=dict)
    #: Who might say what when each sign-off was made.
    views: dict[int, Authority] = field(default_factory=dict)
    sign_offs: int = 0
    problems: list[str] = field(default_factory=list)
    turn: float = 0.0

    def wrong(self, where: str, what: object) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"{where}: {what}")

    async def others_turn(self) -> None:
        if time.monotonic() >= self.turn:
            await asyncio.sleep(0)
            self.turn = time.monotonic() + TURN_SECONDS


async def verify(
    store: Store, trust: Trust | None, languages: Mapping[str, Language], *, kept: str | None = None
) -> Report:
    """Check everything that the ledger's answers rest on, in one snapshot.

    *kept* is a checkpoint note that somebody outside kept: the ledger must still begin with its entries.
    `Invalid` if it is no checkpoint at all.
    """
    if kept is not None:
        _is_checkpoint(kept)
    check = _Check(trust, {name: _Once(language) for name, language in languages.items()})
    async with store.transaction(write=False) as tx:
        size = await _entries(check, tx)
        await _twice(check, size)
        await _nodes(check, tx)
        await _tags(check, tx, size)
        checkpoints = await _checkpoints(check, tx, size)
        await _cosignatures(check, tx)
    if kept is not None:
        _kept(check, kept, size)
    complete = size > 0 and not check.problems
    root = check.tree.root(size).hex() if complete else ""
    return Report(size, check.sign_offs, checkpoints, root, tuple(check.problems))


async def _pages(tx: Transaction, select: str, key: Sequence[str]) -> AsyncIterator[list[Row]]:
    """All rows in the order of *key*, whose columns come first in each, a page at a time."""
    columns, marks = ", ".join(key), ", ".join("?" * len(key))
    order = f"ORDER BY {columns} LIMIT {PAGE}"
    rows = await tx.execute(f"{select} {order}")
    while rows:
        yield rows
        if len(rows) < PAGE:
            break
        after = f"{select} WHERE ({columns}) > ({marks}) {order}"
        rows = await tx.execute(after, rows[-1][: len(key)])


# --- entries -----------------------------------------------------------------------------------------


async def _entries(check: _Check, tx: Transaction) -> int:
    """Steps 1 to 6, for each entry in order."""
    expected = 0
    async for rows in _pages(tx, "SELECT idx, envelope FROM entries", ["idx"]):
        for index, raw in rows:
            await check.others_turn()
            if isinstance(index, int) and index < 0:
                check.wrong(f"entry {index}", "an index below zero")
                continue
            if index != expected or not isinstance(raw, bytes):
                check.wrong(f"entry {expected}", "is missing, or is not bytes")
                return expected
            if not await _entry(check, tx, expected, raw):
                return expected
            expected += 1
    return expected


async def _entry(check: _Check, tx: Transaction, index: int, raw: bytes) -> bool:
    try:
        # 1. The bytes decode, and encode again to the same bytes.
        envelope = open_envelope(raw)
        entry = Entry(index, envelope, envelope.statement())
        # 2. The signature is by a key that was granted before; 3. whoever signed may say this.
        before, check.authority = check.authority, admitted(check.authority, entry)
        if index == 0 and check.trust and envelope.digest != check.trust.genesis:
            check.wrong("entry 0", "is not the genesis that the trust file names")
        # 4. A sign-off is what its inputs give.
        if isinstance(entry.statement.predicate, SignOff):
            check.sign_offs += 1
            check.views[index] = before
            pool = await _before(check, tx, index, again.needs(entry.statement.predicate, before))
            for problem in again.faults(entry, pool, check.authority, check.languages):
                check.wrong(f"entry {index}", problem)
        # 5. A canary's verdict is what its counts give.
        for problem in looks.faults(entry):
            check.wrong(f"entry {index}", problem)
        # 6. What was done had its sign-offs.
        for problem in await _unsigned(check, tx, entry):
            check.wrong(f"entry {index}", problem)
    except (PenstockError, ValueError) as error:
        check.wrong(f"entry {index}", error)
        return False
    check.recent[index] = entry
    check.recent.pop(index - RECENT, None)
    leaf = merkle.leaf_hash(raw)
    check.leaves.add(leaf)
    check.tree.add(index, leaf)
    for tag in tags(entry):
        check.tagged.add(tag, index, 1)
    return True


async def _unsigned(check: _Check, tx: Transaction, entry: Entry) -> list[str]:
    predicate = entry.statement.predicate
    if not isinstance(predicate, again.DONE):
        return []
    about = [f"about:{subject.digest}" for subject in entry.statement.subjects]
    pool = await _before(check, tx, entry.index, [f"delivery:{predicate.delivery}", *about])
    return again.unsigned(entry, pool, check.authority, check.views)


async def _before(check: _Check, tx: Transaction, index: int, wanted: Sequence[str]) -> list[Entry]:
    """The earlier entries with one of the tags. They have been checked; `_tags` checks that it is them."""
    found: dict[int, Entry] = {}
    for tag in wanted:
        for (place,) in await tx.execute("SELECT idx FROM tags WHERE tag = ? AND idx < ?", (tag, index)):
            if isinstance(place, int) and 0 <= place not in found:
                found[place] = check.recent.get(place) or await _older(tx, place)
    return list(found.values())


async def _older(tx: Transaction, index: int) -> Entry:
    rows = await tx.execute("SELECT idx, envelope FROM entries WHERE idx = ?", (index,))
    return entry_of(rows[0])


async def _twice(check: _Check, size: int) -> None:
    """Everything that is said carries its time, or happens only once: no entry comes again."""
    for beginnings in check.leaves.twice():
        await check.others_turn()
        if not beginnings:
            continue
        seen: set[bytes] = set()
        for index in range(size):
            leaf = check.tree.node(0, index)
            if leaf[:9] not in beginnings:
                continue
            if leaf in seen:
                check.wrong(f"entry {index}", "is an earlier entry over again")
            seen.add(leaf)


# --- what is computed from them ----------------------------------------------------------------------


async def _nodes(check: _Check, tx: Transaction) -> None:
    """Every stored node is the one computed from the leaves, and none is missing."""
    places = check.tree.places()
    expected = next(places, None)
    async for rows in _pages(tx, "SELECT level, idx, hash FROM nodes", ["level", "idx"]):
        await check.others_turn()
        for level, index, value in rows:
            if not isinstance(level, int) or not isinstance(index, int):
                check.wrong(f"node {level!r}/{index!r}", "is not a place in the tree")
                continue
            while expected is not None and expected < (level, index):
                check.wrong(f"node {expected[0]}/{expected[1]}", "is missing")
                expected = next(places, None)
            if expected != (level, index) or check.tree.node(level, index) != value:
                check.wrong(f"node {level}/{index}", "is not what the entries give")
            if expected == (level, index):
                expected = next(places, None)
    for level, index in itertools.islice(
        itertools.chain([expected] if expected else [], places), MAX_PROBLEMS
    ):
        check.wrong(f"node {level}/{index}", "is missing")


async def _tags(check: _Check, tx: Transaction, size: int) -> None:
    """Every stored tag is one of its entry's, and none is missing."""
    async for rows in _pages(tx, "SELECT tag, idx FROM tags", ["tag", "idx"]):
        await check.others_turn()
        for tag, index in rows:
            if not isinstance(tag, str) or not isinstance(index, int) or not 0 <= index < size:
                check.wrong(f"tag {tag} of entry {index}", "is not of an entry")
            else:
                check.tagged.add(tag, index, -1)
    spans = check.tagged.differing()[:MAX_SPANS]
    if spans:
        await _differing_tags(check, tx, {index for span in spans for index in span if index < size})


async def _differing_tags(check: _Check, tx: Transaction, doubtful: set[int]) -> None:
    """Say which tags of these entries are wrong: only now is it worth reading them again."""
    differ: Counter[tuple[str, int]] = Counter()
    async for rows in _pages(tx, "SELECT tag, idx FROM tags", ["tag", "idx"]):
        await check.others_turn()
        differ.update(
            (str(tag), index) for tag, index in rows if isinstance(index, int) and index in doubtful
        )
    for index in sorted(doubtful):
        await check.others_turn()
        rows = await tx.execute("SELECT idx, envelope FROM entries WHERE idx = ?", (index,))
        differ.subtract((tag, index) for tag in tags(entry_of(rows[0])))
    wrong = sorted(place for place, times in differ.items() if times)
    for tag, index in wrong or [("?", min(doubtful))]:
        check.wrong(f"tag {tag} of entry {index}", "stored and computed tags differ")


async def _checkpoints(check: _Check, tx: Transaction, size: int) -> int:
    """Each is signed by the log's key and has the root of that many entries; the last covers all."""
    if check.trust and check.authority.log_key(1).hex() != check.trust.log_key:
        check.wrong("entry 0", "does not name the log's key that the trust file names")
    last = count = 0
    async for rows in _pages(tx, "SELECT size, note FROM checkpoints", ["size"]):
        for stored, note in rows:
            await check.others_turn()
            last, count = _checkpoint(check, stored, note, size) or last, count + 1
    if last != size:
        check.wrong("checkpoints", f"the last is of {last} entries; there are {size}")
    return count


def _checkpoint(check: _Check, stored: object, note: object, size: int) -> int:
    """The size of the checkpoint; 0 if it is none."""
    try:
        head = _open(str(note), int(str(stored)), check)
        if head.size != stored or head.size > size:
            check.wrong(f"checkpoint {stored}", f"is of {head.size} entries; there are {size}")
        elif head.root != check.tree.root(head.size):
            check.wrong(f"checkpoint {stored}", "is not of these entries")
        return head.size
    except (PenstockError, KeyError, ValueError) as error:
        check.wrong(f"checkpoint {stored!r}", error)
        return 0


async def _cosignatures(check: _Check, tx: Transaction) -> None:
    """Each is of a checkpoint that is there, and by the key that is kept beside it."""
    select = (
        "SELECT s.size, s.name, s.key, s.line, c.note FROM cosignatures s "
        "LEFT JOIN checkpoints c ON c.size = s.size"
    )
    async for rows in _pages(tx, select, ["s.size", "s.name"]):
        for row in rows:
            await check.others_turn()
            _cosignature(check, *row)


def _cosignature(check: _Check, size: object, name: object, key: object, line: object, note: object) -> None:
    where = f"cosignature {size} by {name}"
    try:
        if note is None:
            check.wrong(where, "there is no checkpoint of that size")
            return
        body, (*_, made) = split(f"{note}{line}")
        signer = VerifierKey.cosigner(str(key))
        if str(made) != line or str(signer) != key or not made.by(signer) or made.name != name:
            check.wrong(where, "is not a signature line by that name and key")
        cosigned_at(body, made, signer, signed_by)
    except PenstockError as error:
        check.wrong(where, error)


def _is_checkpoint(kept: str) -> None:
    """`Invalid` for another file: that is no sign of tampering."""
    try:
        claimed_size(kept)
    except PenstockError as error:
        move = "give the file that penstock ledger checkpoint wrote, as it was"
        raise Invalid(f"this is no checkpoint: {error.what}", where="kept", next_move=move) from error


def _kept(check: _Check, kept: str, size: int) -> None:
    """The ledger begins with the entries of a checkpoint that was kept outside."""
    where = "kept checkpoint"
    try:
        head = _open(kept, claimed_size(kept), check)
        if head.size > size:
            check.wrong(where, f"is of {head.size} entries; there are {size}: entries were cut off")
        elif head.root != check.tree.root(head.size):
            check.wrong(where, f"the first {head.size} entries are not the ones that it was made of")
    except PenstockError as error:
        check.wrong(where, error)


def _open(note: str, size: int, check: _Check) -> Checkpoint:
    origin = check.trust.origin if check.trust else note.partition("\n")[0]
    return open_note(note, origin, check.authority.log_key(size), signed_by)
