"""The section ``traffic`` of ``penstock.yaml``: how users reach a service, and who sees a new release first.

A part of `config`, which reads it; actions make traffic plans of it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.core.admission import Admission, Breakers
from penstock.core.traffic import LONGEST, WHOLE, Field, Handling, Mirror, Rule, Weight
from penstock.errors import Invalid

SECTION = "penstock.yaml: traffic"
MOST_EARLY = 20


@dataclass(frozen=True)
class EarlyConfig:
    """Requests that have all of it: a *path* prefix, a *header* or a *cookie* whose value is *value*."""

    path: str = ""
    header: str = ""
    cookie: str = ""
    value: str = ""

    def rule(self, release: str) -> Rule:
        """They see *release*. Raises `Invalid` if no proxy could tell them apart."""
        if self.header and self.cookie:
            raise Invalid("a header or a cookie, not both", where=f"{SECTION}.early")
        if self.value and not (self.header or self.cookie):
            raise Invalid("a value without a header or a cookie", where=f"{SECTION}.early")
        named = Field(self.header or self.cookie, self.value)
        headers, cookies = (named,) if self.header else (), (named,) if self.cookie else ()
        found = Rule((Weight(release, WHOLE),), self.path, headers, cookies)
        found.check(f"{SECTION}.early")
        return found


@dataclass(frozen=True)
class RateConfig:
    """So many requests *per_second* at most (0: no limit), and *burst* at once (0: as many)."""

    per_second: int = 0
    burst: int = 0


@dataclass(frozen=True)
class TrafficConfig:
    """How requests are handled. With *sticky*, a user keeps his place during a canary, by a cookie.

    *mirror* per cent of user requests are copied to a new release, from when it is dark until the canary
    begins. Users with an *early* request see it as soon as the canary begins. *callers*, *public* and *rate*
    say who gets in, while this is live; *most_requests* and *most_connections* are for each release.
    """

    sticky: bool = False
    mirror: float = 0.0
    early: tuple[EarlyConfig, ...] = ()
    timeout_seconds: float = 15.0
    retries: int = 2
    callers: tuple[str, ...] | None = None
    public: bool = True
    rate: RateConfig = RateConfig()
    most_requests: int = 0
    most_connections: int = 0
    idle_seconds: float = 300.0

    @property
    def handling(self) -> Handling:
        return Handling(self.timeout_seconds, self.retries, self.idle_seconds)

    @property
    def admission(self) -> Admission:
        burst = self.rate.burst or self.rate.per_second
        return Admission(self.callers, self.public, self.rate.per_second, burst)

    @property
    def breakers(self) -> Breakers:
        return Breakers(self.most_requests, self.most_connections)

    def rules(self, release: str) -> tuple[Rule, ...]:
        """Those that lead early users to the new *release*."""
        return tuple(early.rule(release) for early in self.early)

    def mirror_to(self, release: str) -> Mirror | None:
        """The mirror that the new *release* is to be while it is dark."""
        return Mirror(release, round(self.mirror * WHOLE / 100)) if self.mirror else None

    def check(self) -> None:
        """Raise `Invalid`, naming the field."""
        if not (self.mirror == 0 or 0.1 <= self.mirror <= 100):
            found = f"from 0.1 to 100 per cent (or 0: none), found {self.mirror:g}"
            raise Invalid(found, where=f"{SECTION}.mirror")
        if not 0.001 <= self.timeout_seconds <= LONGEST:
            found = f"from 0.001 to {LONGEST} seconds, found {self.timeout_seconds:g}"
            raise Invalid(found, where=f"{SECTION}.timeout_seconds")
        if not 1 <= self.idle_seconds <= LONGEST:
            found = f"from 1 to {LONGEST} seconds, found {self.idle_seconds:g}"
            raise Invalid(found, where=f"{SECTION}.idle_seconds")
        if not 0 <= self.retries <= 10:
            raise Invalid(f"from 0 to 10, found {self.retries}", where=f"{SECTION}.retries")
        self.admission.check(SECTION)
        self.breakers.check(SECTION)
        if len(self.early) > MOST_EARLY:
            raise Invalid(f"at most {MOST_EARLY}", where=f"{SECTION}.early")
        for early in self.early:
            early.rule("new")
