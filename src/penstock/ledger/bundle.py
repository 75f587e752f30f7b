"""Evidence bundles: one delivery's proof in one file, and checking it with nothing but a trust file.

`export` is called by the server; `check` by ``penstock verify``, offline: no database, no network.
A bundle holds entries with their inclusion proofs in the tree of one signed checkpoint.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.config import parse_policy
from penstock.core import merkle
from penstock.core.codec import decode
from penstock.core.digest import canonical, digest, hex_of
from penstock.core.evidence import Entry, Statement, open_envelope, pre_authentication_encoding
from penstock.core.notes import Checkpoint, open_note
from penstock.core.policy import sign_off
from penstock.core.predicates import Genesis, KeyGrant, PolicyVersion, SignOff
from penstock.errors import Invalid, PenstockError
from penstock.ledger.fsck import Trust, question_of
from penstock.ledger.log import Ledger, signed_by
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
            for index in _cited(entry.statement.predicate):
                entries[index] = await ledger.entry(tx, index)
    for kind in (Genesis, KeyGrant, PolicyVersion):
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
        keys = _check_signatures(entries, trust)
        steps.append(StepResult(f"every entry is signed by one of {len(keys)} granted keys", True))
        steps += [
            _check_sign_off(entry, entries, languages) for entry in _sign_offs(entries, bundle.delivery)
        ]
        if not _sign_offs(entries, bundle.delivery):
            steps.append(StepResult("the delivery has sign-offs", False, "there is none in the bundle"))
    except (PenstockError, ValueError, KeyError) as error:
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


def _check_signatures(entries: list[Entry], trust: Trust) -> dict[str, bytes]:
    """Every entry is signed by a key that an earlier entry of the bundle granted."""
    keys: dict[str, bytes] = {}
    for entry in entries:
        predicate, keyid = entry.statement.predicate, entry.envelope.keyid
        if isinstance(predicate, Genesis):
            if entry.index != 0 or entry.envelope.digest != trust.genesis:
                raise Invalid("is not the genesis that the trust file names", where=f"entry {entry.index}")
            keys[keyid] = bytes.fromhex(predicate.operator_key)
        message = pre_authentication_encoding(entry.envelope.payload)
        if keyid not in keys or not signed_by(keys[keyid], message, entry.envelope.signature):
            raise Invalid("is not signed by a granted key", where=f"entry {entry.index}")
        if isinstance(predicate, KeyGrant):
            raw = bytes.fromhex(predicate.public_key)
            keys[hex_of(digest(raw))] = raw
    return keys


def _sign_offs(entries: list[Entry], delivery: str) -> list[Entry]:
    found = []
    for entry in entries:
        predicate = entry.statement.predicate
        if isinstance(predicate, SignOff) and predicate.penstock.delivery == delivery:
            found.append(entry)
    return found


def _check_sign_off(entry: Entry, entries: list[Entry], languages: Mapping[str, Language]) -> StepResult:
    signed = entry.statement.predicate
    assert isinstance(signed, SignOff)
    decision = signed.penstock
    what = f"sign-off of {decision.policy} for {decision.action} (entry {entry.index}): {decision.verdict}"
    known = {item.index: item for item in entries}
    policy = known[int(signed.policy.uri.rpartition(":")[2])].statement.predicate
    if not isinstance(policy, PolicyVersion):
        return StepResult(what, False, "the entry that it names as its policy is none")
    document = parse_policy(policy.source.encode(), decision.policy)
    inputs = [known[index] for index in _cited(signed)[1:]]
    rules = languages[document.language].compile(document)
    again = sign_off(question_of(signed), document, signed.policy.uri, rules, inputs)
    same = Statement(entry.statement.subjects, again).payload() == entry.envelope.payload
    return StepResult(what, same, "" if same else "it does not recompute from its inputs")


def _cited(signed: SignOff) -> list[int]:
    """The entries that a sign-off names: its policy first, then its inputs."""
    uris = [signed.policy.uri, *(item.uri for item in signed.input_attestations)]
    return [int(uri.rpartition(":")[2]) for uri in uris]


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
