"""Trouble on demand: what the server answers instead of what it was asked. Pure.

Given to `FakeCluster.fail`; looked at by `server` for each request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class Fault:
    """The next *times* requests of this *verb* on this resource (``deployments``, ``pods/log``; "" is any)
    end so: *how* ``refuse`` answers *status* at once; ``hang`` answers nothing; ``cut`` closes the
    connection; ``cut-after`` does what was asked first, so that nobody knows. Where ``watch`` is the verb,
    ``break`` ends one that is open with *status*, and ``mute`` has it stay open and say no more."""

    verb: str = ""
    resource: str = ""
    status: int = 503
    times: int = 1
    how: Literal["refuse", "hang", "cut", "cut-after", "break", "mute"] = "refuse"
    message: str = "on demand"
    retry_after: int = 0

    def meets(self, verb: str, resource: str) -> bool:
        """Whether it is this request's turn; each time counts."""
        if self.times < 1 or self.verb not in ("", verb) or self.resource not in ("", resource):
            return False
        self.times -= 1
        return True
