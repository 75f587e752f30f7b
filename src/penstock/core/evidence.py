"""Evidence: an in-toto Statement v1 about digests, and the exact bytes that were signed (DSSE).

Called by everything that records a fact. Signed things are opaque bytes: they are parsed to be
checked, never re-encoded and stored again. Decoding is strict: bytes that do not come out the same
when encoded again are refused, so that a byte cannot be changed without anybody noticing.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.core.codec import Json, decode
from penstock.core.digest import PREFIX, canonical, digest, hex_of
from penstock.core.predicates import PREDICATES, Predicate
from penstock.core.roundtrip import survives
from penstock.errors import Invalid

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
#: A statement and a subject of it in their canonical form.
STATEMENT = b'{"_type":"%s","predicate":%%s,"predicateType":%%s,"subject":[%%s]}' % STATEMENT_TYPE.encode()
SUBJECT = b'{"digest":{"sha256":"%s"},"name":%s}'
#: An envelope in its canonical form: payload, key id (with its quotes), signature.
FORM = (
    b'{"payload":"%%s","payloadType":"%s","signatures":[{"keyid":%%s,"sig":"%%s"}]}' % PAYLOAD_TYPE.encode()
)
#: How many pieces an envelope gives that is split at its quotes.
PIECES = (FORM % (b"", b'""', b"")).count(b'"') + 1


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
        about = [SUBJECT % (hex_of(s.digest).encode(), canonical(s.name)) for s in self.subjects]
        kind = canonical(self.predicate.TYPE)
        return STATEMENT % (canonical(self.predicate), kind, b",".join(about))

    def exact(self) -> bool:
        """Whether reading the payload would give this statement again, now and for ever."""
        kind, subjects = type(self.predicate), self.subjects
        about = type(subjects) is tuple and len(subjects) > 0 and all(map(survives, subjects))
        return about and PREDICATES.get(kind.TYPE) is kind and survives(self.predicate)

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
    #: Set by `seal_statement`: nobody who makes an envelope of bytes can claim what is in it.
    _known: Statement | None = field(default=None, init=False, repr=False, compare=False)

    @functools.cached_property
    def digest(self) -> str:
        return digest(self.raw)

    def statement(self) -> Statement:
        """The statement inside. Raises `Invalid` if it is not one that Penstock knows."""
        return self._known or parse_statement(self.payload)


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
    raw = FORM % (_base64_of(payload), canonical(keyid), _base64_of(signature))
    return Envelope(raw, payload, sys.intern(keyid), signature)  # a few keys sign everything


def seal_statement(statement: Statement, sign: Callable[[bytes], tuple[str, bytes]]) -> Envelope:
    """The envelope around a statement; *sign* gives key id and signature of the bytes that it is given.

    A statement that is `Statement.exact` is not read again from bytes that were just written from it.
    """
    payload = statement.payload()
    envelope = seal(payload, *sign(pre_authentication_encoding(payload)))
    if statement.exact():
        object.__setattr__(envelope, "_known", statement)
    return envelope


def open_envelope(raw: bytes) -> Envelope:
    """Parse envelope bytes strictly. Raises `Invalid` unless sealing again gives the same bytes."""
    return _opened(raw) or _open_anything(raw)


def _opened(raw: bytes) -> Envelope | None:
    """The envelope, if its bytes are ours as they stand: sealing it again proves it. None: look closer."""
    pieces = raw.split(b'"')
    if len(pieces) != PIECES:
        return None
    try:
        payload, keyid, signature = pieces[3], pieces[13], pieces[17]
        envelope = seal(binascii.a2b_base64(payload), keyid.decode(), binascii.a2b_base64(signature))
    except (ValueError, Invalid):
        return None
    return envelope if envelope.raw == raw else None


def _open_anything(raw: bytes) -> Envelope:
    """Any JSON for such an envelope, and words for whatever is wrong."""
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
    listed = decode(SUBJECTS, value, "subject")
    if not listed:
        raise Invalid("a statement about nothing", where="subject")
    return tuple(Subject(item.name, PREFIX + item.digest.sha256) for item in listed)


@dataclass(frozen=True)
class _WireDigest:
    sha256: str


@dataclass(frozen=True)
class _WireSubject:
    name: str
    digest: _WireDigest


SUBJECTS = tuple[_WireSubject, ...]


def _json(raw: bytes, where: str) -> Json:
    try:
        return json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise Invalid(f"not JSON: {error}", where=where) from error


def _base64_of(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw, newline=False)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Invalid("not base64", where="envelope") from error
