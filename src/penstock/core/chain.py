"""Chains: dark releases of several services that are tested together, each while nobody uses it.

The engine names a chain (`engine.chains`), the router sends calls along it, and acceptance checks that they
arrived. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.core.codec import json_name
from penstock.core.release import Release


@dataclass(frozen=True)
class Link:
    """The dark *release* is called by the one that is tested, or further down.

    Calls come to it past the *stable* services, in this order: there the application itself must forward
    the chain. With none, the calls of dark releases lead to it, and nothing need be forwarded.
    """

    release: Release
    stable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Met:
    """A dark release that another one was tested together with.

    Of the *led* requests of the tests that reached the one that was tested, so many *requests* came of: 0 if
    the tests never called this one, or lost it past one of the services *lost_after*, which had to forward
    the chain.
    """

    release: str
    digest: str
    led: int
    requests: int
    lost_after: tuple[str, ...] = field(default=(), metadata=json_name("lostAfter"))
