"""Statements signed elsewhere. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.core.evidence import Subject
from penstock.core.predicates import Predicate
from penstock.errors import Invalid


@dataclass(frozen=True)
class Foreign:
    predicate_type: str
    subjects: tuple[Subject, ...]
    predicate: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]


def foreign(raw: bytes) -> Foreign:
    raise Invalid("not yet")


def translate(envelope: str) -> tuple[Predicate, ...]:
    """What a statement signed elsewhere says in our words; nothing if its type is not known."""
    return ()
