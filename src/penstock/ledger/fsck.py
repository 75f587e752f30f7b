"""Re-checks every byte of the ledger: what ``penstock ledger verify`` runs.

Called by the server and by the CLI. It trusts nothing but the trust file: entries are decoded strictly,
signatures and authority are checked in order, every stored node, tag and checkpoint is computed again
and compared, every sign-off is decided again to the same bytes, and every action must have had them. It
changes nothing. What it cannot notice: entries cut off the end together with their checkpoints, unless
somebody outside kept a later checkpoint and gives it (*kept*); and that an older checkpoint, or a
cosignature, is gone, on which nothing rests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.core import merkle
from penstock.core.authority import Authority
from penstock.core.evidence import Entry, open_envelope
from penstock.core.notes import Checkpoint, VerifierKey, claimed_size, cosigned_at, open_note, split
from penstock.core.predicates import SignOff
from penstock.core.selection import tags_of
from penstock.errors import PenstockError
from penstock.ledger import again
from penstock.ledger.log import PAGE, admitted
from penstock.ledger.signatures import signed_by
from penstock.ledger.tags import tags
from penstock.ports import Language, Store, Transaction

MAX_PROBLEMS = 50


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


@dataclass
class _Check:
    """One run: what has been folded so far."""

    trust: Trust | None
    languages: Mapping[str, Language]
    authority: Authority = field(default_factory=Authority)
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)
    leaves: set[bytes] = field(default_factory=set)
    tagged: set[tuple[str, int]] = field(default_factory=set)
    by_tag: dict[str, list[Entry]] = field(default_factory=dict)
    #: Who might say what when each sign-off was made.
    views: dict[int, Authority] = field(default_factory=dict)
    sign_offs: int = 0
    problems: list[str] = field(default_factory=list)

    def wrong(self, where: str, what: object) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"{where}: {what}")


async def verify(
    store: Store, trust: Trust | None, languages: Mapping[str, Language], *, kept: str | None = None
) -> Report:
    """Check everything that the ledger's answers rest on, in one snapshot.

    *kept* is a checkpoint note that somebody outside kept: the ledger must still begin with its entries.
    """
    check = _Check(trust, languages)
    async with store.transaction(write=False) as tx:
        size = await _entries(check, tx)
        await _nodes(check, tx)
        await _tags(check, tx)
        checkpoints = await _checkpoints(check, tx, size)
        await _cosignatures(check, tx)
    if kept is not None:
        _kept(check, kept, size)
    complete = size > 0 and not check.problems
    root = merkle.root(size, lambda *place: check.nodes[place]).hex() if complete else ""
    return Report(size, check.sign_offs, checkpoints, root, tuple(check.problems))


async def _entries(check: _Check, tx: Transaction) -> int:
    """Steps 1 to 5, for each entry in order."""
    expected = 0
    while True:
        rows = await tx.execute(
            "SELECT idx, envelope FROM entries WHERE idx >= ? ORDER BY idx LIMIT ?", (expected, PAGE)
        )
        for index, raw in rows:
            if index != expected or not isinstance(raw, bytes):
                check.wrong(f"entry {expected}", "is missing, or is not bytes")
                return expected
            if not _entry(check, expected, raw):
                return expected
            expected += 1
            await asyncio.sleep(0)  # about a millisecond each: leases must be renewed meanwhile
        if len(rows) < PAGE:
            break
    for row in await tx.execute("SELECT idx FROM entries WHERE idx < 0"):
        check.wrong(f"entry {row[0]}", "an index below zero")
    return expected


def _entry(check: _Check, index: int, raw: bytes) -> bool:
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
            for problem in _sign_off(check, entry, entry.statement.predicate):
                check.wrong(f"entry {index}", problem)
        # 5. What was done had its sign-offs.
        for problem in _unsigned(check, entry):
            check.wrong(f"entry {index}", problem)
    except (PenstockError, ValueError) as error:
        check.wrong(f"entry {index}", error)
        return False
    leaf = merkle.leaf_hash(raw)
    if leaf in check.leaves:  # everything that is said carries its time, or what happens only once
        check.wrong(f"entry {index}", "is an earlier entry over again")
    check.leaves.add(leaf)
    for place in merkle.completed_by(index, leaf, lambda *at: check.nodes[at]):
        check.nodes[place[0], place[1]] = place[2]
    for tag in tags(entry):
        check.tagged.add((tag, index))
        check.by_tag.setdefault(tag, []).append(entry)
    return True


def _sign_off(check: _Check, entry: Entry, signed: SignOff) -> list[str]:
    tagged = tags_of(again.question_of(signed))
    pool = [held for tag in tagged for held in check.by_tag.get(tag, ())]
    return again.faults(entry, pool, check.authority, check.languages)


def _unsigned(check: _Check, entry: Entry) -> list[str]:
    predicate = entry.statement.predicate
    if not isinstance(predicate, again.DONE):
        return []
    tagged = [f"delivery:{predicate.delivery}", *(f"about:{s.digest}" for s in entry.statement.subjects)]
    pool = [held for tag in tagged for held in check.by_tag.get(tag, ())]
    return again.unsigned(entry, pool, check.authority, check.views)


async def _nodes(check: _Check, tx: Transaction) -> None:
    """Every stored node is the one computed from the leaves, and none is missing."""
    seen = set()
    for level, index, value in await tx.execute("SELECT level, idx, hash FROM nodes"):
        if not isinstance(level, int) or not isinstance(index, int):
            check.wrong(f"node {level!r}/{index!r}", "is not a place in the tree")
            continue
        seen.add((level, index))
        if check.nodes.get((level, index)) != value:
            check.wrong(f"node {level}/{index}", "is not what the entries give")
    for level, index in sorted(set(check.nodes) - seen)[:MAX_PROBLEMS]:
        check.wrong(f"node {level}/{index}", "is missing")


async def _tags(check: _Check, tx: Transaction) -> None:
    stored = {(tag, index) for tag, index in await tx.execute("SELECT tag, idx FROM tags")}
    for tag, index in sorted(stored ^ check.tagged, key=str)[:MAX_PROBLEMS]:
        check.wrong(f"tag {tag} of entry {index}", "stored and computed tags differ")


async def _checkpoints(check: _Check, tx: Transaction, size: int) -> int:
    """Each is signed by the log's key and has the root of that many entries; the last covers all."""
    if check.trust and check.authority.log_key(1).hex() != check.trust.log_key:
        check.wrong("entry 0", "does not name the log's key that the trust file names")
    rows = await tx.execute("SELECT size, note FROM checkpoints ORDER BY size")
    last = 0
    for stored, note in rows:
        try:
            head = _open(str(note), int(str(stored)), check)
            if head.size != stored or head.size > size:
                check.wrong(f"checkpoint {stored}", f"is of {head.size} entries; there are {size}")
            elif head.root != merkle.root(head.size, lambda *place: check.nodes[place]):
                check.wrong(f"checkpoint {stored}", "is not of these entries")
            last = head.size
        except (PenstockError, KeyError, ValueError) as error:
            check.wrong(f"checkpoint {stored!r}", error)
    if last != size:
        check.wrong("checkpoints", f"the last is of {last} entries; there are {size}")
    return len(rows)


async def _cosignatures(check: _Check, tx: Transaction) -> None:
    """Each is of a checkpoint that is there, and by the key that is kept beside it."""
    rows = await tx.execute(
        "SELECT s.size, s.name, s.key, s.line, c.note FROM cosignatures s "
        "LEFT JOIN checkpoints c ON c.size = s.size ORDER BY s.size, s.name"
    )
    for size, name, key, line, note in rows:
        where = f"cosignature {size} by {name}"
        try:
            if note is None:
                check.wrong(where, "there is no checkpoint of that size")
                continue
            body, (*_, made) = split(f"{note}{line}")
            signer = VerifierKey.cosigner(str(key))
            if str(made) != line or str(signer) != key or not made.by(signer) or made.name != name:
                check.wrong(where, "is not a signature line by that name and key")
            cosigned_at(body, made, signer, signed_by)
        except PenstockError as error:
            check.wrong(where, error)


def _kept(check: _Check, kept: str, size: int) -> None:
    """The ledger begins with the entries of a checkpoint that was kept outside."""
    where = "kept checkpoint"
    try:
        head = _open(kept, claimed_size(kept), check)
        if head.size > size:
            check.wrong(where, f"is of {head.size} entries; there are {size}: entries were cut off")
        elif head.root != merkle.root(head.size, lambda *place: check.nodes[place]):
            check.wrong(where, f"the first {head.size} entries are not the ones that it was made of")
    except PenstockError as error:
        check.wrong(where, error)


def _open(note: str, size: int, check: _Check) -> Checkpoint:
    origin = check.trust.origin if check.trust else note.partition("\n")[0]
    return open_note(note, origin, check.authority.log_key(size), signed_by)
