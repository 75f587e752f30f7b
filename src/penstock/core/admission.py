"""Limits that a release sets for its callers: who may call it, how often, and how many at once.

A part of `traffic`: each backend carries its own. Pure; must not name a proxy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from penstock.errors import Invalid

#: What the name of a service looks like, so that rules cannot be read in two ways.
SERVICE = re.compile(r"[a-z][a-z0-9-]{0,39}")
MOST_CALLERS = 100
#: The most that may be asked of a proxy.
MOST = 1_000_000


@dataclass(frozen=True)
class Admission:
    """Whom the proxy lets in, as the live release of a service says.

    *callers* are the services that may call it: None, any that names it among its calls; empty, none.
    Users get in if it is *public*. Of all of them together, *per_second* requests get in and, after a quiet
    moment, *burst* at once; both are 0 where there is no limit.
    """

    callers: tuple[str, ...] | None = None
    public: bool = True
    per_second: int = 0
    burst: int = 0

    def check(self, where: str) -> None:
        """Raise `Invalid`, naming the field."""
        for name in self.callers or ():
            if not SERVICE.fullmatch(name):
                raise Invalid(f"{name!r} is not a service name", where=f"{where}.callers")
        if len(self.callers or ()) > MOST_CALLERS or len(set(self.callers or ())) < len(self.callers or ()):
            raise Invalid(f"at most {MOST_CALLERS}, each once", where=f"{where}.callers")
        if not 0 <= self.per_second <= MOST:
            raise Invalid(f"from 1 to {MOST} (or 0: no limit)", where=f"{where}.rate.per_second")
        most = MOST if self.per_second else 0
        if not self.per_second <= self.burst <= most:
            what = f"from per_second, which must be given, to {MOST}, found {self.burst}"
            raise Invalid(what, where=f"{where}.rate.burst")

    def allows(self, caller: str) -> bool:
        """Whether the service *caller* may call."""
        return self.callers is None or caller in self.callers


@dataclass(frozen=True)
class Breakers:
    """What one release may have open at once, whatever the others have; 0 is the proxy's own limit.

    A request above *requests* in flight is answered 503 at once. One above *connections* waits for one of
    them to be free.
    """

    requests: int = 0
    connections: int = 0

    def check(self, where: str) -> None:
        """Raise `Invalid`, naming the field."""
        for name in ("requests", "connections"):
            if not 0 <= getattr(self, name) <= MOST:
                raise Invalid(f"from 1 to {MOST} (or 0: the default)", where=f"{where}.most_{name}")


#: What a rule of `Admission` is called where its refusals are counted.
RuleName = Literal["callers", "public", "rate"]


@dataclass(frozen=True)
class Refused:
    """How many requests the proxy has refused by one *rule* of `Admission`, since it started."""

    rule: RuleName
    count: int


ANYBODY = Admission()
NO_BREAKERS = Breakers()
