"""What all parts of acceptance share: how the dark release is reached, and the form of a result.

Called by `acceptance` and the parts beside it. Must not send a request without the preview headers: it would
reach the stable release.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from penstock.core.traffic import PREVIEW_HEADER, TOKEN_HEADER, TrafficState

RELEASE = "x-penstock-release"


@dataclass(frozen=True)
class Dark:
    """The dark *release*: *address* and *headers* lead to it."""

    release: str
    address: str
    headers: dict[str, str]


def dark(state: TrafficState, release: str) -> Dark:
    """The way to one release of the service, whatever the weights say. Where the data plane is reached by
    another address than users have, the headers name theirs."""
    host = {"Host": urlsplit(state.address).netloc} if state.reach else {}
    headers = {**host, PREVIEW_HEADER: release, TOKEN_HEADER: state.preview_token}
    return Dark(release, state.reach or state.address, headers)


@dataclass(frozen=True)
class Part:
    """What one part of acceptance adds to the counts of tests: *failing* names some of the *failed*."""

    passed: int = 0
    failed: int = 0
    failing: tuple[str, ...] = ()
    words: str = ""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least *share* of the values do not exceed; 0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]
