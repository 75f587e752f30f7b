"""Weights of any whole, as others write them, in thousandths. Pure. Called by what reads routes."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.core.traffic import WHOLE, Weight


def in_thousandths(given: Sequence[tuple[str, int]]) -> tuple[Weight, ...]:
    """Each release's share; the largest takes what rounding leaves. Weights of zero are nobody's."""
    kept = [(release, weight) for release, weight in given if weight > 0]
    total = sum(weight for _, weight in kept)
    shares = {release: weight * WHOLE // total for release, weight in kept}
    if shares:
        shares[max(shares, key=lambda release: shares[release])] += WHOLE - sum(shares.values())
    return tuple(Weight(release, share) for release, share in shares.items() if share)
