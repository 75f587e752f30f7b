"""Decoding is strict: bytes that are not in their one form are refused, and nothing raises anything else."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.digest import canonical, digest
from penstock.core.evidence import (
    Statement,
    Subject,
    open_envelope,
    parse_statement,
    pre_authentication_encoding,
    seal,
)
from penstock.core.people import By, RoleGrant
from penstock.core.predicates import TestResult
from penstock.errors import Invalid

ABOUT = Subject("catalog", digest(b"catalog"))
RESULT = TestResult("PASSED", "unit", (), 3, 0, 1, (), "self-reported")
STATEMENT = Statement((ABOUT,), RESULT)
PAYLOAD = STATEMENT.payload()
ENVELOPE = seal(PAYLOAD, "ab" * 32, bytes(range(64)))


def test_a_statement_comes_back_as_it_was() -> None:
    assert parse_statement(PAYLOAD) == STATEMENT
    assert open_envelope(ENVELOPE.raw) == ENVELOPE
    assert ENVELOPE.statement() == STATEMENT


def test_a_statement_is_an_in_toto_statement() -> None:
    assert json.loads(PAYLOAD) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "catalog", "digest": {"sha256": digest(b"catalog")[7:]}}],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": "PASSED",
            "suite": "unit",
            "configuration": [],
            "passed": 3,
            "failed": 0,
            "skipped": 1,
            "failedTests": [],
            "origin": "self-reported",
        },
    }


def test_the_bytes_that_are_signed_are_those_of_the_dsse_specification() -> None:
    assert pre_authentication_encoding(b"hello") == b"DSSEv1 28 application/vnd.in-toto+json 5 hello"


@given(place=st.integers(0, len(ENVELOPE.raw) - 1), bit=st.integers(0, 7))
def test_a_changed_byte_is_refused_or_changes_what_is_signed_or_named(place: int, bit: int) -> None:
    raw = bytearray(ENVELOPE.raw)
    raw[place] ^= 1 << bit
    try:
        changed = open_envelope(bytes(raw))
    except Invalid:
        return
    parts = (changed.payload, changed.keyid, changed.signature)
    assert parts != (ENVELOPE.payload, ENVELOPE.keyid, ENVELOPE.signature)


@given(place=st.integers(0, len(PAYLOAD) - 1), bit=st.integers(0, 7))
def test_a_changed_payload_byte_is_refused_or_says_something_else(place: int, bit: int) -> None:
    raw = bytearray(PAYLOAD)
    raw[place] ^= 1 << bit
    with contextlib.suppress(Invalid):
        assert parse_statement(bytes(raw)) != STATEMENT


def envelope(**changes: object) -> bytes:
    data = {**json.loads(ENVELOPE.raw), **changes}
    return canonical({name: value for name, value in data.items() if value is not ...})


SIGNED = json.loads(ENVELOPE.raw)["signatures"][0]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"[" * 100_000,
        b"1" * 5000,
        ENVELOPE.raw + b"\n",
        b" " + ENVELOPE.raw,
        ENVELOPE.raw.replace(b'{"payload"', b'{"payload":"","payload"'),
        envelope(payload=...),
        envelope(payload=5),
        envelope(payload="é"),
        envelope(payload="!!!!"),
        envelope(payloadType="text/plain"),
        envelope(extra=1),
        envelope(signatures=[]),
        envelope(signatures=[SIGNED, SIGNED]),
        envelope(signatures=[{**SIGNED, "keyid": 5}]),
        envelope(signatures=[{**SIGNED, "keyid": {"a": 1}}]),
        b'{"payload":"\\ud800"}',
        envelope(signatures=[{"keyid": "a"}]),
        envelope(signatures=["text"]),
        envelope(signatures=None),
    ],
)
def test_what_is_no_envelope_is_invalid(raw: bytes) -> None:
    with pytest.raises(Invalid):
        open_envelope(raw)


def test_base64_with_stray_bits_is_refused() -> None:
    text = base64.b64encode(b"x").decode()
    assert text == "eA=="
    raw = envelope(payload="eB==")
    assert base64.b64decode("eB==") == b"x"
    with pytest.raises(Invalid, match="canonical form"):
        open_envelope(raw)


def statement(**changes: object) -> bytes:
    data = {**json.loads(PAYLOAD), **changes}
    return canonical({name: value for name, value in data.items() if value is not ...})


PREDICATE = json.loads(PAYLOAD)["predicate"]
WITH_SURROGATE = PAYLOAD.replace(b'"suite":"unit"', b'"suite":"\\ud800"')


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"NaN",
        PAYLOAD.replace(b'"passed":3', b'"passed":3.0'),
        PAYLOAD.replace(b'"passed":3', b'"passed":NaN'),
        PAYLOAD.replace(b'"passed":3', b'"passed":Infinity'),
        PAYLOAD.replace(b'"passed":3', b'"passed":true'),
        PAYLOAD.replace(b'"passed":3', b'"passed":"3"'),
        PAYLOAD.replace(b'"passed":3', b'"passed":null'),
        PAYLOAD.replace(b'"passed":3', b'"passed":9007199254740993'),
        PAYLOAD.replace(b'"passed":3', b'"passed":2,"passed":3'),
        WITH_SURROGATE,
        statement(_type="https://in-toto.io/Statement/v0.1"),
        statement(predicateType="urn:unknown"),
        statement(predicateType=5),
        statement(predicate=...),
        statement(predicate=None),
        statement(predicate={**PREDICATE, "result": "FINE"}),
        statement(predicate={**PREDICATE, "origin": "a friend"}),
        statement(predicate={**PREDICATE, "extra": 1}),
        statement(subject=[]),
        statement(subject=...),
        statement(subject=[{"name": "a", "digest": {}}]),
        statement(subject=[{"name": "a", "digest": {"sha256": "AB" * 32}}]),
        statement(subject=[{"name": "a", "digest": {"sha256": "ab" * 31}}]),
        statement(subject=[{"name": "a", "digest": {"sha256": "ab" * 32, "md5": "00"}}]),
        statement(extra=1),
    ],
)
def test_what_is_no_statement_is_invalid(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse_statement(raw)


def test_a_statement_that_cannot_be_written_is_refused_when_it_is_made() -> None:
    for broken in (
        Statement((Subject("a", "sha256:short"),), RESULT),
        Statement((ABOUT,), RoleGrant(By("x"), "\ud800", "x")),
    ):
        with pytest.raises(Invalid):
            broken.payload()


def test_the_payload_may_be_any_bytes_but_a_statement_only_ours() -> None:
    sealed = seal(b"not a statement", "ab" * 32, b"s")
    assert open_envelope(sealed.raw) == sealed
    with pytest.raises(Invalid):
        sealed.statement()
