"""What a Deployment records of its release, in labels and annotations: whose it is, what was placed, and what
was asked of it last.

Called by whatever reads or writes one in this package. The cluster keeps it, so every worker knows the same.
What cannot be read is `Broken`. Pure.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from penstock.adapters._kubernetes import Object
from penstock.core.codec import decode, encode
from penstock.core.fence import Fence
from penstock.core.workload import Afterwards, Workload
from penstock.errors import Broken, Invalid

PREFIX = "penstock.org"
MANAGED = "app.kubernetes.io/managed-by"
RELEASE, SERVICE, ENVIRONMENT = f"{PREFIX}/release", f"{PREFIX}/service", f"{PREFIX}/environment"
#: Annotations of the Deployment: what was asked last, by whose fence, and what was placed.
FENCE, ASKED, WORKLOAD = f"{PREFIX}/fence", f"{PREFIX}/asked", f"{PREFIX}/workload"
#: And on which image with an interpreter.
BASE = f"{PREFIX}/base"
#: That all it needs is there.
COMPLETE = f"{PREFIX}/complete"

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """*replicas* copies, and *then* others, counted from *since* (seconds since 1970)."""

    replicas: int
    then: Afterwards = ()
    since: float = 0.0

    def at(self, now: float) -> Asked:
        """What holds by now."""
        due = [later.replicas for later in self.then if self.since + later.seconds <= now]
        left = tuple(later for later in self.then if self.since + later.seconds > now)
        return replace(self, replicas=min((self.replicas, *due)), then=left)

    def said(self, replicas: int, then: Afterwards, now: float) -> Asked:
        """What holds once this is asked for; the same once more changes nothing."""
        same = (self.replicas, self.then) == (replicas, then)
        return self if same else Asked(replicas, then, now)


def kept(asked: Asked) -> str:
    return json.dumps(encode(asked))


def read_asked(owner: Object) -> Asked:
    return _annotation(owner, ASKED, _asked)


def read_fence(owner: Object) -> Fence:
    """The highest that was here."""
    labels = owner["metadata"]["labels"]
    number = _annotation(owner, FENCE, lambda text: int(text or 0))
    return Fence(f"{labels.get(SERVICE)}/{labels.get(ENVIRONMENT)}", number, "last")


def read_workload(owner: Object) -> Workload:
    """What was placed, without its variables and secrets: those are not kept where many may read."""
    return _annotation(owner, WORKLOAD, _workload)


def _annotation(owner: Object, name: str, read: Callable[[str], T]) -> T:
    where = f"deployments.apps {owner['metadata']['namespace']}/{owner['metadata']['name']}"
    try:
        return read(str(owner["metadata"].get("annotations", {}).get(name, "")))
    except (ValueError, Invalid) as error:
        raise Broken(
            f"its annotation {name} cannot be read: {error}",
            where=where,
            next_move="put back what it held, or remove the Deployment once no user is led there",
        ) from error


# The same texts are read each time that a release is looked at.
@functools.lru_cache(4096)
def _asked(text: str) -> Asked:
    return decode(Asked, json.loads(text), ASKED)


@functools.lru_cache(4096)
def _workload(text: str) -> Workload:
    return decode(Workload, json.loads(text), WORKLOAD)
