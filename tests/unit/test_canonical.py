"""Canonical JSON: the fast way and RFC 8785's reference give the same bytes, whatever the value.

And statements: every byte of their forms is what the reference gives.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.digest import canonical
from penstock.core.jcs import Uncommon, text_of
from penstock.errors import Invalid

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1e16, 1e16),
    st.floats(-1e-3, 1e-3),
    st.decimals(-(10**6), 10**6, places=3).map(float),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def reference(value: Any) -> bytes | None:
    """What the reference gives; None if it has no canonical form."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        return None


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(VALUES)
def test_it_is_what_the_reference_gives(value: Any) -> None:
    expected = reference(value)
    if expected is None:
        with pytest.raises(Invalid):
            canonical(value)
    else:
        assert canonical(value) == expected
        with contextlib.suppress(Uncommon):
            assert text_of(value).encode() == expected


@pytest.mark.parametrize(
    "value",
    [
        5.0, -0.0, 1e-5, 1e-4, 1.5, 1e15, 1e16 + 0.5, 1e21, 123456789012345.6, 0.1 + 0.2, 5e-324,
        1.7976931348623157e308, 2**53 - 1, -(2**53) + 1,
        "\x00\x1f\x7f\u0080\u2028\ud7ff\ue000\U0001f600\"\\/", {"\ue000": 1, "\U0001f600": 2},
        {"b": 1, "a": {"é": [1.5, None, True]}}, [], {}, "",
    ],
)  # fmt: skip
def test_the_edges(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)
    assert json.loads(canonical(value)) == value


@pytest.mark.parametrize("value", [2**53, -(2**53), float("nan"), float("inf"), "\ud800", {"\udfff": 1}])
def test_what_has_no_canonical_form_is_invalid(value: Any) -> None:
    with pytest.raises(Invalid):
        canonical(value)
