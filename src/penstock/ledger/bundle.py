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
from penstock.core.authority import BY_PEOPLE, Authority
from penstock.core.codec import decode
from penstock.core.digest import canonical
from penstock.core.evidence import Entry, open_envelope, pre_authentication_encoding
from penstock.core.notes import Checkpoint, open_note
from penstock.core.predicates import Deployed, Genesis, Promoted, SignOff
from penstock.errors import Invalid, PenstockError
from penstock.ledger import again
from penstock.ledger.fsck import Trust
from penstock.ledger.log import Ledger
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
        if isinstance(entry.statement.predicate, SignOff):
            for index in again.cited(entry.statement.predicate):
                entries[index] = await ledger.entry(tx, index)
        if isinstance(entry.statement.predicate, Deployed):
            for held in await ledger.tagged(tx, f"about:{entry.statement.predicate.release.digest}"):
                if isinstance(held.statement.predicate, Promoted):
                    entries[held.index] = held
    for kind in BY_PEOPLE:
        for entry in await ledger.tagged(tx, f"type:{kind.TYPE}"):
            entries[entry.index] = entry
    size = await ledger.size(tx)
    proven = [
        Proven(
            index,
            _text(entries[index].envelope.raw),
            tuple(map(_text, await ledger.inclusion(tx, index, size))),
        )
        for index in sorted(entries)
    ]
    return canonical(Bundle(SCHEMA, delivery, await ledger.checkpoint(tx), tuple(proven)))


def check(data: bytes, trust: Trust, languages: Mapping[str, Language]) -> list[StepResult]:
    """Verify a bundle, step by step; later steps are left out once one cannot be relied on."""
    steps: list[StepResult] = []
    try:
        bundle = _read(data)
        steps.append(StepResult("the bundle is well formed", True))
        head = open_note(bundle.checkpoint, trust.origin, bytes.fromhex(trust.log_key), signed_by)
        steps.append(StepResult(f"the checkpoint of {head.size} entries is signed by the log's key", True))
        entries = [_prove(proven, head) for proven in bundle.entries]
        steps.append(StepResult(f"{len(entries)} entries are in that checkpoint's tree", True))
        authority = _check_authority(entries, trust)
        steps.append(
            StepResult(f"all are signed by {len(authority.keys)} granted keys, within their roles", True)
        )
        steps.extend(_check_delivery(bundle, entries, languages))
    except (PenstockError, ValueError) as error:
        names = ("well formed", "checkpoint", "entries in the tree", "signatures", "sign-offs")
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


def _prove(proven: Proven, head: Checkpoint) -> Entry:
    raw = _bytes(proven.envelope)
    root = merkle.root_from_inclusion(
        proven.index, head.size, merkle.leaf_hash(raw), [_bytes(step) for step in proven.proof]
    )
    if root != head.root:
        raise Invalid("is not in the checkpoint's tree", where=f"entry {proven.index}")
    envelope = open_envelope(raw)
    return Entry(proven.index, envelope, envelope.statement())


def _check_authority(entries: list[Entry], trust: Trust) -> Authority:
    """Every entry is signed by a key that an earlier entry granted, and its holder may say that."""
    authority = Authority()
    for entry in entries:
        where = f"entry {entry.index}"
        if isinstance(entry.statement.predicate, Genesis) and entry.envelope.digest != trust.genesis:
            raise Invalid("is not the genesis that the trust file names", where=where)
        key = authority.key(entry.envelope.keyid, entry.statement)
        message = pre_authentication_encoding(entry.envelope.payload)
        if not signed_by(key.public_key, message, entry.envelope.signature):
            raise Invalid(f"is not signed by {key.identity}", where=where)
        authority.follow(entry)
    return authority


def _check_delivery(
    bundle: Bundle, entries: list[Entry], languages: Mapping[str, Language]
) -> Iterator[StepResult]:
    """Every sign-off recomputes, and whatever the delivery did to the world had its sign-offs."""
    rules = [entry for entry in entries if isinstance(entry.statement.predicate, again.RULES)]
    mine = [entry for entry in entries if f"delivery:{bundle.delivery}" in tags(entry)]
    if again.proposed(mine, bundle.delivery) is None:
        yield StepResult("the delivery began", False, f"nothing here began {bundle.delivery}")
        return
    for entry in mine:
        if isinstance(entry.statement.predicate, SignOff):
            decision = entry.statement.predicate.penstock
            what = f"sign-off of {decision.policy} for {decision.action} (entry {entry.index})"
            reason = "; ".join(again.faults(entry, entries, rules, languages))
            yield StepResult(f"{what}: {decision.verdict}", not reason, reason)
        elif action := again.ACTION.get(type(entry.statement.predicate)):
            reason = "; ".join(again.unsigned(entry, entries, rules))
            yield StepResult(f"{action} (entry {entry.index}) had its sign-offs", not reason, reason)


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
