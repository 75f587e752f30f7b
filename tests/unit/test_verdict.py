"""The one rule of composition, over every combination of up to three verdicts."""

from __future__ import annotations

from itertools import product

import pytest

from penstock.core.verdict import Cause, Result, Verdict, combine, failing, passing, unknown

KINDS = {
    "pass": passing("fine"),
    "fail": failing("bad"),
    "missing": unknown(Cause.MISSING, "absent"),
    "stale": unknown(Cause.STALE, "old"),
    "error": unknown(Cause.ERROR, "broke"),
}
#: The first of these that is among the verdicts decides.
ORDER = ["fail", "error", "stale", "missing", "pass"]


@pytest.mark.parametrize(
    "names", [names for n in (1, 2, 3) for names in product(KINDS, repeat=n)], ids="-".join
)
def test_every_combination(names: tuple[str, ...]) -> None:
    whole = combine(KINDS[name] for name in names)
    expected = KINDS[next(name for name in ORDER if name in names)]
    assert (whole.result, whole.cause) == (expected.result, expected.cause)
    assert whole.passed == (set(names) == {"pass"})


def test_nothing_never_passes() -> None:
    assert combine([]) == Verdict(Result.UNKNOWN, Cause.MISSING, "nothing was checked")


def test_an_unknown_without_a_cause_does_not_pass_either() -> None:
    assert not combine([passing(), Verdict(Result.UNKNOWN)]).passed


def test_only_the_reasons_that_decided_are_told() -> None:
    assert combine([failing("a"), unknown(Cause.ERROR, "b"), failing("c"), passing("d")]).reason == "a; c"
    assert combine([unknown(Cause.MISSING, "a"), passing("b")]).reason == "a"
    assert combine([passing("a"), passing(), passing("b")]).reason == "a; b"
