"""Counts, as people say them."""

from __future__ import annotations

import pytest

from penstock.core.wording import plural


@pytest.mark.parametrize(
    ("count", "one", "words"),
    [
        (1, "test", "1 test"),
        (0, "test", "0 tests"),
        (2, "generated request", "2 generated requests"),
        (1, "entry", "1 entry"),
        (2, "entry", "2 entries"),
        (3, "fresh copy", "3 fresh copies"),
    ],
)
def test_a_count_in_words(count: int, one: str, words: str) -> None:
    assert plural(count, one) == words
