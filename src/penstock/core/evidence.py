"""Evidence: an in-toto Statement v1 about digests, and the exact bytes that were signed (DSSE).

Called by everything that records a fact. Signed things are opaque bytes: they are parsed to be
checked, never re-encoded and stored again. Decoding is strict: bytes that do not come out the same
when encoded again are refused, so that a byte cannot be changed without anybody noticing.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.core.codec import Json, decode, encode
from penstock.core.digest import canonical_json, digest, hex_of
from penstock.core.predicates import PREDICATES, Predicate
from penstock.errors import Invalid

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Subject:
    """What a statement is about: a name for people, and a ``sha256:`` digest."""

    name: str
    digest: str


@dataclass(frozen=True)
class Statement:
    """A claim about one or more subjects."""

    subjects: tuple[Subject, ...]
    predicate: Predicate

    def payload(self) -> bytes:
        """The canonical JSON bytes that get signed."""
        return canonical_json(
            {
                "_type": STATEMENT_TYPE,
                "subject": [
                    {"name": subject.name, "digest": {"sha256": hex_of(subject.digest)}}
                    for subject in self.subjects
                ],
                "predicateType": self.predicate.TYPE,
                "predicate": encode(self.predicate),
            }
        )

    def about(self, wanted: str) -> bool:
        """Whether *wanted* (a digest) is among the subjects."""
        return any(subject.digest == wanted for subject in self.subjects)


@dataclass(frozen=True)
class Envelope:
    """A DSSE envelope with one signature. *raw* are the bytes that the ledger keeps and hashes."""

    raw: bytes
    payload: bytes
    keyid: str
    signature: bytes

    @property
    def digest(self) -> str:
        return digest(self.raw)

    def statement(self) -> Statement:
        """The statement inside. Raises `Invalid` if it is not one that Penstock knows."""
        return parse_statement(self.payload)


@dataclass(frozen=True)
class Entry:
    """Evidence at an *index* of the ledger."""

    index: int
    envelope: Envelope
    statement: Statement


def pre_authentication_encoding(payload: bytes) -> bytes:
    """DSSE's PAE: the bytes that a signature is over."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, keyid: str, signature: bytes) -> Envelope:
    """The envelope around a signed payload."""
    raw = canonical_json(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
        }
    )
    return Envelope(raw, payload, keyid, signature)


def open_envelope(raw: bytes) -> Envelope:
    """Parse envelope bytes strictly. Raises `Invalid` unless sealing again gives the same bytes."""
    data = _json(raw, "envelope")
    try:
        (signature,) = data["signatures"]
        keyid = decode(str, signature["keyid"])
        envelope = seal(_base64(data["payload"]), keyid, _base64(signature["sig"]))
    except (KeyError, TypeError, ValueError, Invalid) as error:
        raise Invalid("not a DSSE envelope with one signature", where="envelope") from error
    if envelope.raw != raw:
        raise Invalid("the envelope's bytes are not in their one canonical form", where="envelope")
    return envelope


def parse_statement(payload: bytes) -> Statement:
    """Parse statement bytes strictly; the inverse of `Statement.payload`."""
    data = _json(payload, "statement")
    if not isinstance(data, dict) or data.get("_type") != STATEMENT_TYPE:
        raise Invalid("not an in-toto Statement v1", where="statement")
    kind = PREDICATES.get(str(data.get("predicateType")))
    if kind is None:
        raise Invalid(f"unknown predicate type {data.get('predicateType')!r}", where="statement")
    predicate = decode(kind, data.get("predicate"), "predicate")
    statement = Statement(_subjects(data.get("subject")), predicate)
    if statement.payload() != payload:
        raise Invalid("the statement's bytes are not in their one canonical form", where="statement")
    return statement


def _subjects(value: Json) -> tuple[Subject, ...]:
    listed = decode(tuple[_WireSubject, ...], value, "subject")
    if not listed:
        raise Invalid("a statement about nothing", where="subject")
    return tuple(Subject(item.name, "sha256:" + item.digest.get("sha256", "")) for item in listed)


@dataclass(frozen=True)
class _WireSubject:
    name: str
    digest: Mapping[str, str]


def _json(raw: bytes, where: str) -> Json:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"not JSON: {error}", where=where) from error


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Invalid("not base64", where="envelope") from error
