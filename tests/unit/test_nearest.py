"""Names that look like a slip: what may have been meant, and nothing where nothing is alike."""

from __future__ import annotations

import pytest

from penstock.core.nearest import did_you_mean, nearest

KNOWN = ["list", "lint", "ship", "Sam", "security-lead"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lnit", "lint"), ("sam", "Sam"), ("secruity-lead", "security-lead"), ("quux", ""), ("", "")],
)
def test_the_nearest(name: str, meant: str) -> None:
    assert nearest(name, KNOWN) == meant


def test_in_words() -> None:
    assert did_you_mean("shpi", KNOWN) == "; did you mean ship?"
    assert did_you_mean("x" * 10_000, KNOWN) == did_you_mean("ship", []) == ""
