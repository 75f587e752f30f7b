"""Statements of every kind: written as RFC 8785's reference writes them, and believed unread only if reading
them gives the same."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

import pytest
import rfc8785
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock.core.codec import Fixed, encode
from penstock.core.digest import digest, hex_of
from penstock.core.evidence import (
    PAYLOAD_TYPE,
    STATEMENT_TYPE,
    Envelope,
    Statement,
    Subject,
    open_envelope,
    parse_statement,
    seal,
    seal_statement,
)
from penstock.core.people import By, Review
from penstock.core.predicates import (
    PREDICATES,
    Deployed,
    Look,
    Predicate,
    Promoted,
    Provenance,
    SignOff,
    TestResult,
)
from penstock.core.roundtrip import survives
from penstock.errors import Invalid

ABOUT = Subject("catalog", digest(b"catalog"))
GOOD = TestResult("PASSED", "unit", (), 3, 0, 1, ("a",))
#: They hold mappings, which can be changed by whoever made them, unless they are `Fixed`.
CHANGEABLE = (Deployed, Look, Promoted, Provenance, SignOff)
#: What a careless caller may put into a field, whatever its type says.
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just([]), st.just(()), st.just({})
)


@functools.cache
def fitting(hint: Any, *, careless: bool) -> st.SearchStrategy[Any]:
    """Values of a type hint; from somebody *careless* sometimes of quite another type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        fields = {f.name: fitting(hints[f.name], careless=careless) for f in dataclasses.fields(hint)}
        return st.builds(typing.cast("Any", hint), **fields)
    if origin in (types.UnionType, typing.Union):
        found = st.one_of(*(fitting(argument, careless=careless) for argument in arguments))
    elif origin is typing.Literal:
        found = st.sampled_from(arguments)
    elif origin is tuple:
        found = st.lists(fitting(arguments[0], careless=careless), max_size=2).map(tuple)
    elif origin is Mapping:
        found = st.dictionaries(st.text(), fitting(arguments[1], careless=careless), max_size=2)
        found = found if careless else found.map(Fixed)
    else:
        found = st.from_type(hint)
    if hint is types.NoneType or not careless:
        return found
    return st.integers(0, 60).flatmap(lambda n: found if n else ANYTHING)


@pytest.mark.parametrize("kind", PREDICATES.values(), ids=lambda kind: kind.__name__)
def test_every_kind_is_written_as_the_reference_writes_it(kind: type[Predicate]) -> None:
    believed = []
    either = {careless: fitting(kind, careless=careless) for careless in (False, True)}

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.booleans().flatmap(either.__getitem__), st.text())
    def try_one(predicate: Predicate, name: str) -> None:
        statement = Statement((Subject(name, ABOUT.digest),), predicate)
        try:
            payload = statement.payload()
        except Invalid:
            assume(False)
        assert payload == reference(statement)
        believed.append(statement.exact())
        if believed[-1]:
            assert parse_statement(payload) == statement

    try_one()
    assert any(believed)


@pytest.mark.parametrize("kind", CHANGEABLE, ids=lambda kind: kind.__name__)
def test_what_can_be_changed_is_read_again(kind: type[Predicate]) -> None:
    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(fitting(kind, careless=False))
    def try_one(predicate: Predicate) -> None:
        assert not survives(loosened(predicate)) or not has_mapping(predicate)

    try_one()


def loosened(value: Any) -> Any:
    """The same with dictionaries for what is fixed."""
    if isinstance(value, Fixed):
        return dict(value)
    if isinstance(value, tuple):
        return tuple(map(loosened, value))
    if not dataclasses.is_dataclass(value):
        return value
    fields = {f.name: loosened(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return dataclasses.replace(typing.cast("Any", value), **fields)


def has_mapping(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(map(has_mapping, value))
    if dataclasses.is_dataclass(value):
        return any(has_mapping(getattr(value, f.name)) for f in dataclasses.fields(value))
    return isinstance(value, Fixed)


def reference(statement: Statement) -> bytes:
    return rfc8785.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": s.name, "digest": {"sha256": hex_of(s.digest)}} for s in statement.subjects],
            "predicateType": statement.predicate.TYPE,
            "predicate": encode(statement.predicate),
        }
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"passed": True}, {"passed": 3.0}, {"passed": "3"}, {"passed": None}, {"passed": 2**53},
        {"result": "FINE"}, {"result": None}, {"failed_tests": ["a"]}, {"failed_tests": ("a", 1)},
        {"failed_tests": "a"}, {"at": 5}, {"at": float("nan")}, {"source": 1}, {"configuration": {}},
    ],
)  # fmt: skip
def test_what_is_of_another_type_is_read_before_it_is_believed(changes: dict[str, Any]) -> None:
    assert survives(GOOD)
    assert not survives(dataclasses.replace(GOOD, **changes))


def test_what_could_be_changed_later_is_read() -> None:
    @dataclasses.dataclass
    class Open:
        name: str

    @dataclasses.dataclass(frozen=True)
    class Other:
        name: str | None = "x"

    class Mine(str):
        pass

    assert not survives(Open("a"))
    assert not survives(Other(None))
    assert not survives(Review(By(Mine("op")), "r", "approve", ""))
    assert not survives(Provenance(None, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "statement",
    [
        Statement((), GOOD),
        Statement((Subject(5, ABOUT.digest),), GOOD),  # type: ignore[arg-type]
        Statement((ABOUT,), dataclasses.replace(GOOD, passed=3.5)),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_statement_is_refused_although_it_was_just_made(statement: Statement) -> None:
    with pytest.raises(Invalid):
        seal_statement(statement, lambda _: ("ab" * 32, b"s")).statement()


def test_only_what_was_sealed_here_is_believed() -> None:
    sealed = seal_statement(Statement((ABOUT,), GOOD), lambda _: ("ab" * 32, b"s"))
    assert sealed.statement() == Statement((ABOUT,), GOOD)
    with pytest.raises(ValueError, match="_known"):
        dataclasses.replace(sealed, _known=Statement((), GOOD))
    with pytest.raises(Invalid):
        dataclasses.replace(sealed, payload=b"{}").statement()
    with pytest.raises(Invalid):
        Envelope(sealed.raw, b"{}", sealed.keyid, sealed.signature).statement()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=80), st.text(max_size=70), st.binary(max_size=80))
def test_an_envelope_is_written_as_the_reference_writes_it(payload: bytes, keyid: str, made: bytes) -> None:
    try:
        sealed = seal(payload, keyid, made)
    except Invalid:
        assume(False)
    data = json.loads(sealed.raw)
    assert rfc8785.dumps(data) == sealed.raw
    assert data["payloadType"] == PAYLOAD_TYPE
    assert open_envelope(sealed.raw) == sealed
