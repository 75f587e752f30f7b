"""Makes the statement for what a person says. For each kind there is exactly one right subject. Pure.

Called by whoever signs such a statement, and by `core.authority`, which refuses any other subject: the ledger
finds the statement again by its subject.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.people import (
    Binding,
    Genesis,
    KeyGrant,
    KeyRevocation,
    LogKey,
    Override,
    Person,
    PolicyRetirement,
    PolicyVersion,
    Quarantine,
    Review,
    RoleGrant,
    RoleRevocation,
    Said,
    SloRetirement,
    SloVersion,
)


def statement_of(said: Said) -> Statement:
    """The statement to sign."""
    return Statement((subject_of(said),), said)


def spoken(said: Said, at: float) -> Said:
    """The same, said at another time (seconds since 1970)."""
    return said if isinstance(said, Genesis) else replace(said, by=replace(said.by, at=at))


def subject_of(said: Said) -> Subject:
    """What it is about: the text of a policy or SLO, a release, or what has a name and no content."""
    match said:
        case PolicyVersion(name=name, source=source) | SloVersion(name=name, source=source):
            return Subject(name, digest(source.encode()))
        case Override(release=release):
            return Subject("release", release)
        case Quarantine(service=service):
            return about_tests(service)
        case SloRetirement(service=service, name=name):
            return named(f"{service}/{name}")
        case Genesis(origin=name) | PolicyRetirement(name=name) | Review(revision=name):
            return named(name)
        case (
            KeyGrant(identity=name)
            | Person(identity=name)
            | RoleGrant(identity=name)
            | RoleRevocation(identity=name)
        ):
            return named(name)
        case KeyRevocation(keyid=name) | LogKey(public_key=name) | Binding(service=name):
            return named(name)


def about_tests(service: str) -> Subject:
    """A service's tests, whatever they are."""
    return named(f"tests/{service}")


def named(name: str) -> Subject:
    """Something that has a name but no content of its own."""
    return Subject(name, digest(name.encode()))
