"""How often the container of a pod has ended, and how often of late.

Called by `driver` whenever it looks at pods. A pod tells how often it was started again and when it ended
last; the ends before that one are remembered here, and go with this process. What ended unseen is placed as
early as it can have been, so that nobody is said to be restless who may not be. Must not decide what too
often is: that is the core's.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from penstock.adapters._kubernetes import Object
from penstock.adapters.kubernetes.manifests import CONTAINER
from penstock.core.workload import RECENT_SECONDS


@dataclass(frozen=True)
class Known:
    """Of one pod, when it was looked at last: *count* of all its ends, and *times* of the last, none of them
    older than `RECENT_SECONDS`."""

    looked: datetime.datetime
    count: int
    times: tuple[datetime.datetime, ...]


class Ends:
    def __init__(self) -> None:
        self._known: dict[str, dict[str, Known]] = {}

    def look(self, release: str, pods: Collection[Object], now: datetime.datetime) -> Mapping[str, int]:
        """How often each of these, which are all of *release*, ended within `RECENT_SECONDS`; by uid."""
        before = self._known.get(release, {})
        found = {pod["metadata"]["uid"]: pod for pod in pods}
        self._known[release] = {uid: _told(pod, before.get(uid), now) for uid, pod in found.items()}
        return {uid: len(known.times) for uid, known in self._known[release].items()}

    def forget(self, release: str) -> None:
        self._known.pop(release, None)


def status_of(pod: Object) -> Object:
    """Of its container; {} if the node has not told yet."""
    statuses = pod.get("status", {}).get("containerStatuses", ())
    return next((status for status in statuses if status["name"] == CONTAINER), {})


def last_end(pod: Object) -> Object:
    """How its container last ended, as the node has it; {} if it never did."""
    status = status_of(pod)
    for state in (status.get("state", {}), status.get("lastState", {})):
        if found := state.get("terminated"):
            return dict(found)
    return {}


def count_ends(pod: Object) -> int:
    """How often its container has ended. One that waits to be started again is not counted as restarted
    yet."""
    status = status_of(pod)
    over = bool(last_end(pod)) and "running" not in status.get("state", {})
    return int(status.get("restartCount", 0)) + over


def _told(pod: Object, before: Known | None, now: datetime.datetime) -> Known:
    """A pod that was not known has ended after its birth. The cluster's clock may differ from ours: what is
    new since the last look happened after that, and before now."""
    count = count_ends(pod)
    times, earliest = [], _time(pod["metadata"].get("creationTimestamp")) or now
    new = count
    if before is not None:
        times, earliest, new = list(before.times), before.looked, count - before.count
    if new > 0:
        times += [earliest] * (new - 1)
        times.append(min(max(_time(last_end(pod).get("finishedAt")) or earliest, earliest), now))
    since = now - datetime.timedelta(seconds=RECENT_SECONDS)
    return Known(now, count, tuple(at for at in times if since < at <= now))


def _time(told: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(told.replace("Z", "+00:00")) if told else None
