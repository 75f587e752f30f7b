"""Evidence bundles: one delivery's proof in one file, and checking it with nothing but a trust file.

`export` is called by the server; `check` by ``penstock verify``, offline: no database, no network.
A bundle holds entries with their inclusion proofs in the tree of one signed checkpoint. It proves what
it shows, not that nothing was left out: only ``ledger verify``, which reads every entry, can say that.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from penstock.core import merkle
from penstock.core.authority import Authority
from penstock.core.codec import decode
from penstock.core.digest import canonical
from penstock.core.evidence import Entry, open_envelope
from penstock.core.experiment import Experiment
from penstock.core.notes import Checkpoint, claimed_size, cosigners, open_note
from penstock.core.people import MANDATES
from penstock.core.predicates import Decision, Deployed, Look, Promoted, SignOff
from penstock.errors import Invalid, PenstockError
from penstock.ledger import again, looks
from penstock.ledger.fsck import Trust
from penstock.ledger.log import Ledger, admitted
from penstock.ledger.signatures import signed_by
from penstock.ledger.tags import tags
from penstock.ports import Language, Transaction

MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Proven:
    """An entry's exact bytes and its audit path, both in base64."""

    index: int
    envelope: str
    proof: tuple[str, ...]


@dataclass(frozen=True)
class Bundle:
    schema: str
    delivery: str
    checkpoint: str
    entries: tuple[Proven, ...]


@dataclass(frozen=True)
class StepResult:
    """One numbered step of a verification."""

    what: str
    ok: bool
    reason: str = ""


SCHEMA = "penstock.bundle/v1"


async def export(ledger: Ledger, tx: Transaction, delivery: str) -> bytes:
    """The delivery's entries, all that its sign-offs rest on, and every grant, with proofs."""
    entries = {entry.index: entry for entry in await ledger.tagged(tx, f"delivery:{delivery}")}
    if not entries:
        raise Invalid(f"the ledger has no evidence of delivery {delivery!r}", next_move="penstock status")
    for entry in list(entries.values()):
        entries |= {held.index: held for held in await _rested_on(ledger, tx, entry)}
    for kind in MANDATES:
        entries |= {entry.index: entry for entry in await ledger.tagged(tx, f"type:{kind.TYPE}")}
    size, checkpoint = await _vouched(ledger, tx, covering=max(entries) + 1)
    proven = [
        Proven(
            index,
            _text(entries[index].envelope.raw),
            tuple(map(_text, await ledger.inclusion(tx, index, size))),
        )
        for index in sorted(entries)
    ]
    return canonical(Bundle(SCHEMA, delivery, checkpoint, tuple(proven)))


async def _rested_on(ledger: Ledger, tx: Transaction, entry: Entry) -> list[Entry]:
    """What shows that this entry was right: all that a sign-off cites, the promotions of what is deployed."""
    match entry.statement.predicate:
        case SignOff() as signed:
            return [await ledger.entry(tx, index) for index in again.cited(signed)]
        case Deployed(release=release):
            about = await ledger.tagged(tx, f"about:{release.digest}")
            return [held for held in about if isinstance(held.statement.predicate, Promoted)]
        case _:
            return []


async def _vouched(ledger: Ledger, tx: Transaction, covering: int) -> tuple[int, str]:
    """The tree head of at least that many entries that most witnesses stand behind; the newest such."""
    most = await tx.execute(
        "SELECT count(*) FROM (SELECT size FROM cosignatures WHERE size >= ? ORDER BY size DESC LIMIT 1000) "
        "AS recent GROUP BY size ORDER BY 1 DESC LIMIT 1",
        (covering,),
    )
    return await ledger.head(tx, covering=covering, cosigned=int(str(most[0][0])) if most else 0)


def check(data: bytes, trust: Trust, languages: Mapping[str, Language]) -> list[StepResult]:
    """Verify a bundle, step by step; later steps are left out once one cannot be relied on."""
    steps: list[StepResult] = []
    try:
        bundle = _read(data)
        steps.append(StepResult("the bundle is well formed", True))
        entries = [_opened(proven) for proven in bundle.entries]
        authorities = _check_authority(entries, trust)
        keys = len(authorities[-1].keys)
        steps.append(StepResult(f"all entries are signed by {keys} granted keys, within their roles", True))
        claimed = claimed_size(bundle.checkpoint)
        key = authorities[-1].log_key(claimed)
        head = open_note(bundle.checkpoint, trust.origin, key, signed_by)
        steps.append(StepResult(f"the checkpoint of {head.size} entries is signed by the log's key", True))
        if trust.quorum:
            steps.append(_check_witnesses(bundle.checkpoint, trust))
        for proven in bundle.entries:
            _prove(proven, head)
        steps.append(StepResult(f"{len(entries)} entries are in that checkpoint's tree", True))
        steps.extend(_check_delivery(bundle, entries, authorities, languages))
    except (PenstockError, ValueError) as error:
        witnesses = ("witnesses",) if trust.quorum else ()
        names = ("well formed", "signatures", "checkpoint", *witnesses, "entries in the tree", "sign-offs")
        steps.append(StepResult(names[min(len(steps), len(names) - 1)], False, str(error)))
    return steps


def _read(data: bytes) -> Bundle:
    if len(data) > MAX_BYTES:
        raise Invalid(f"larger than {MAX_BYTES} bytes")
    try:
        bundle = decode(Bundle, json.loads(data), "bundle")
    except (ValueError, RecursionError) as error:
        raise Invalid(f"not JSON: {error}", where="bundle") from error
    if bundle.schema != SCHEMA or canonical(bundle) != data:
        raise Invalid(f"not a bundle in its one canonical form ({SCHEMA})", where="bundle")
    return bundle


def _check_witnesses(note: str, trust: Trust) -> StepResult:
    """Enough of the trusted witnesses cosigned; a false signature in a witness's name is `Invalid`."""
    found = cosigners(note, trust.cosigners(), signed_by)
    what = f"{len(found)} of {len(trust.witnesses)} witnesses cosigned the checkpoint"
    enough = len(found) >= trust.quorum
    return StepResult(what, enough, "" if enough else f"the trust file asks for {trust.quorum}")


def _opened(proven: Proven) -> Entry:
    envelope = open_envelope(_bytes(proven.envelope))
    return Entry(proven.index, envelope, envelope.statement())


def _prove(proven: Proven, head: Checkpoint) -> None:
    leaf = merkle.leaf_hash(_bytes(proven.envelope))
    path = [_bytes(step) for step in proven.proof]
    if merkle.root_from_inclusion(proven.index, head.size, leaf, path) != head.root:
        raise Invalid("is not in the checkpoint's tree", where=f"entry {proven.index}")


def _check_authority(entries: list[Entry], trust: Trust) -> list[Authority]:
    """Every entry is signed by a key that an earlier entry granted, and its holder may say that.

    Gives what held before each entry, and after the last. All of it grows from the genesis that the trust
    file names.
    """
    if not entries or entries[0].envelope.digest != trust.genesis:
        raise Invalid("is not the genesis that the trust file names", where="entry 0")
    found, last = [Authority()], -1
    for entry in entries:
        if entry.index <= last:
            raise Invalid(f"entry {entry.index} is out of order")
        found.append(admitted(found[-1], entry))
        last = entry.index
    if found[-1].log_key(1).hex() != trust.log_key:
        raise Invalid("does not name the log's key that the trust file names", where="entry 0")
    return found


def _check_delivery(
    bundle: Bundle,
    entries: list[Entry],
    authorities: list[Authority],
    languages: Mapping[str, Language],
) -> Iterator[StepResult]:
    """Every sign-off recomputes, and whatever the delivery did to the world had its sign-offs."""
    views = {entry.index: before for entry, before in zip(entries, authorities, strict=False)}
    mine = [entry for entry in entries if f"delivery:{bundle.delivery}" in tags(entry)]
    if again.proposed(mine, bundle.delivery) is None:
        yield StepResult("the delivery began", False, f"nothing here began {bundle.delivery}")
        return
    for entry in entries:
        predicate = entry.statement.predicate
        if isinstance(predicate, Look) and predicate.spans is not None:
            reason = "; ".join(looks.faults(entry))
            what = f"canary look (entry {entry.index}) is judged again: {predicate.verdict}"
            yield StepResult(what, not reason, reason)
        if isinstance(predicate, Experiment):
            reason = "; ".join(looks.faults(entry))
            what = f"look at {predicate.experiment} (entry {entry.index}) is judged again"
            yield StepResult(f"{what}: {predicate.verdict}", not reason, reason)
    for entry in mine:
        if isinstance(entry.statement.predicate, SignOff):
            decision = entry.statement.predicate.penstock
            what = f"sign-off of {decision.policy} for {decision.action} (entry {entry.index})"
            reason = "; ".join(again.faults(entry, entries, views[entry.index], languages))
            yield StepResult(f"{what}: {_told(decision)}", not reason, reason)
        elif action := again.ACTION.get(type(entry.statement.predicate)):
            reason = "; ".join(again.unsigned(entry, entries, views[entry.index], views))
            yield StepResult(f"{action} (entry {entry.index}) had its sign-offs", not reason, reason)


def _told(decision: Decision) -> str:
    """The verdict; and who overrode it, because that is never silent."""
    if decision.override is None:
        return decision.verdict
    return f"{decision.verdict}, overridden by {decision.override.identity} ({decision.override.reason})"


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Invalid("not base64", where="bundle") from error
    if _text(raw) != text:
        raise Invalid("base64 with stray bits", where="bundle")
    return raw
