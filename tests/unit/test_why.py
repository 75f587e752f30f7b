"""The fold from ledger entries to "why is this live?", where the same pair was delivered more than once."""

from __future__ import annotations

from penstock.core.digest import digest
from penstock.core.evidence import Entry, Envelope, Statement, Subject
from penstock.core.predicates import Look, Predicate, Promoted, Proposed, RolledBack
from penstock.core.release import Change, EnvironmentData, Release
from penstock.core.traffic import Counters
from penstock.ledger.live import Live
from penstock.projections.why import explain

DATA = EnvironmentData("shop", "production")
OLD, NEW = (Release("shop", "production", digest(name), DATA.digest) for name in (b"old", b"new"))


def ledger(*predicates: Predicate) -> tuple[Entry, ...]:
    subjects = (Subject("shop", digest(b"shop")),)
    envelope = Envelope(b"", b"", "", b"")
    return tuple(Entry(i, envelope, Statement(subjects, p)) for i, p in enumerate(predicates))


def proposed(delivery: str) -> Proposed:
    return Proposed(delivery, Change("code", "shop", "production", "/shop", "0" * 40, "Ada", delivery))


def look(words: str) -> Look:
    none = Counters("shop", 0.0, "epoch", 0, 0)
    return Look("PASS", words, 0, 1, 100, False, none, none, none, none)


def test_a_pair_that_came_back_is_explained_by_the_delivery_that_promoted_it() -> None:
    history = ledger(
        proposed("first"),
        look("as good"),
        Promoted("first", OLD, DATA),
        Promoted("second", NEW, DATA, OLD),
        look("of a later try of the old pair: slower"),
        RolledBack("third", OLD, NEW, "slower"),
        RolledBack("by hand", NEW, OLD, "wrong prices"),
    )
    why = explain(Live(OLD, DATA, "first", 2), history[:3], history)
    assert why.canary == "PASS: as good"
    assert why.restored_by == 6


def test_a_canary_that_was_taken_out_restored_nothing() -> None:
    history = ledger(
        proposed("first"), Promoted("first", OLD, DATA), RolledBack("second", NEW, OLD, "slower")
    )
    assert explain(Live(OLD, DATA, "first", 1), history[:2], history).restored_by is None


def test_a_promotion_after_a_rollback_needs_no_rollback_to_explain_it() -> None:
    history = ledger(
        Promoted("first", OLD, DATA),
        Promoted("second", NEW, DATA, OLD),
        RolledBack("by hand", NEW, OLD, "wrong prices"),
        proposed("third"),
        Promoted("third", NEW, DATA, OLD),
    )
    assert explain(Live(NEW, DATA, "third", 4), history[3:], history).restored_by is None
