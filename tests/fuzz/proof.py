"""A small ledger in memory, really signed: what bundles, notes and envelopes are mutated from.

Used by `targets`. The keys are fixed, so that everything is the same in every run.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from penstock.core import merkle
from penstock.core.digest import canonical, digest, hex_of
from penstock.core.evidence import Envelope, Statement, Subject, open_envelope, seal
from penstock.core.notes import Checkpoint, sign_note
from penstock.core.people import By, Genesis, KeyGrant
from penstock.core.predicates import Ended, Predicate, Proposed
from penstock.core.release import Change
from penstock.core.saying import statement_of
from penstock.ledger.bundle import SCHEMA, Bundle, Proven
from penstock.ledger.fsck import Trust
from penstock.ledger.log import attest
from penstock.ports import Signature

DELIVERY = "d-1"


@dataclass(frozen=True)
class Key:
    """A signer from 32 bytes."""

    private: Ed25519PrivateKey

    @property
    def public_key(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def keyid(self) -> str:
        return hex_of(digest(self.public_key))

    def sign(self, payload: bytes) -> Signature:
        return Signature(self.keyid, self.private.sign(payload))


def key(number: int) -> Key:
    return Key(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


LOG, OPERATOR, WORKER = key(1), key(2), key(3)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _about(predicate: Predicate) -> Statement:
    return Statement((Subject("shop", digest(b"shop")),), predicate)


def envelopes() -> tuple[Envelope, ...]:
    """A genesis, a worker's grant, and a delivery of one change that ended."""
    genesis = Genesis(
        "penstock", LOG.public_key.hex(), "op", OPERATOR.public_key.hex(), ("administrator", "test-lead")
    )
    grant = KeyGrant(By("op"), "worker", WORKER.public_key.hex(), "worker")
    change = Change("code", "shop", "production", "/repo", "ab" * 20, "ada", "Sell more")
    return (
        attest(OPERATOR, statement_of(genesis)),
        attest(OPERATOR, statement_of(grant)),
        attest(WORKER, _about(Proposed(DELIVERY, change))),
        attest(WORKER, _about(Ended("d-0", "success", "promoted", ""))),
        attest(WORKER, _about(Ended(DELIVERY, "success", "promoted", ""))),
    )


ENVELOPES = envelopes()
LEFT_OUT = 3


def _nodes() -> dict[tuple[int, int], bytes]:
    made: dict[tuple[int, int], bytes] = {}
    for index, envelope in enumerate(ENVELOPES):
        leaf = merkle.leaf_hash(envelope.raw)
        for level, place, value in merkle.completed_by(index, leaf, lambda *node: made[node]):
            made[level, place] = value
    return made


NODES = _nodes()
HEAD = Checkpoint("penstock", len(ENVELOPES), merkle.root(len(ENVELOPES), lambda *node: NODES[node]))
NOTE = sign_note(HEAD, LOG.public_key, lambda message: LOG.sign(message).value)
TRUST = Trust("penstock", LOG.public_key.hex(), ENVELOPES[0].digest)


def bundle() -> Bundle:
    """All entries but one, with their proofs."""
    proven = [
        Proven(
            index,
            _text(envelope.raw),
            tuple(map(_text, merkle.inclusion(index, len(ENVELOPES), lambda *node: NODES[node]))),
        )
        for index, envelope in enumerate(ENVELOPES)
        if index != LEFT_OUT
    ]
    return Bundle(SCHEMA, DELIVERY, NOTE, tuple(proven))


BUNDLE = canonical(bundle())


def opened(data: bytes) -> bytes:
    """A bundle with its envelopes taken apart: JSON in which a change does not break the encoding."""
    parts = json.loads(data)
    for entry in parts["entries"]:
        envelope = open_envelope(base64.b64decode(entry.pop("envelope")))
        entry["payload"] = envelope.payload.decode()
        entry["keyid"] = envelope.keyid
        entry["signature"] = envelope.signature.hex()
    return json.dumps(parts).encode()


def closed(data: bytes) -> bytes:
    """The inverse of `opened`. ValueError, KeyError or TypeError if that cannot be."""
    parts = json.loads(data)
    for entry in parts["entries"]:
        signature = bytes.fromhex(entry.pop("signature"))
        entry["envelope"] = _text(seal(entry.pop("payload").encode(), entry.pop("keyid"), signature).raw)
    return canonical(parts)
