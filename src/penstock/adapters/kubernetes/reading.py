"""What the cluster says of a release, as a `Placement`. Pure.

Called by `driver`. A copy is ready if its Service's endpoints say so: that is what traffic follows. Which
words a pod wrote, and what its events say, is read before and handed in.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from penstock.adapters._kubernetes import Object
from penstock.adapters.kubernetes import troubles
from penstock.adapters.kubernetes.bases import found_base
from penstock.adapters.kubernetes.ends import count_ends, last_end, status_of
from penstock.adapters.kubernetes.manifests import PORT, Settings
from penstock.adapters.kubernetes.record import Asked, read_workload
from penstock.adapters.kubernetes.roll import Copy, Roll
from penstock.core.traffic import Egress
from penstock.core.workload import Instance, Isolation, Phase, Placement, Workload

#: A copy that ran for so long before it ended starts counting its ends anew, in seconds.
STEADY = 60.0
#: So many restarts of what never served are enough: it will not come up.
MOST_RESTARTS = 2


@dataclass(frozen=True)
class Ended:
    """How a container last ended. *hung*: because it did not answer."""

    exit_code: int
    out_of_memory: bool = False
    hung: bool = False
    words: str = ""


@dataclass(frozen=True)
class Seen:
    """All that is known of one release. *ends* are by pod, those that have ended, and *recent* how often of
    late; *words* what those that never came up have written. *cut* says who would not end by itself when it
    was last told to."""

    deployment: Object
    copies: Sequence[Copy]
    slices: Collection[Object]
    ends: Mapping[str, Ended]
    recent: Mapping[str, int]
    words: Mapping[str, str]
    asked: Asked
    settings: Settings
    now: datetime.datetime
    cut: str = ""

    @property
    def served(self) -> bool:
        """Whether all its copies were ready once: what once served is not given up."""
        conditions = self.deployment.get("status", {}).get("conditions", ())
        return any(
            c["type"] == "Progressing" and c.get("reason") == "NewReplicaSetAvailable" for c in conditions
        )

    def is_late(self, copy: Copy) -> bool:
        """Whether it ought to have come up by now, and what it wrote may say why it has not."""
        limit = read_workload(self.deployment).start_seconds
        uid = copy.pod["metadata"]["uid"]
        return not self.served and uid not in self.ends and copy.age > limit


def placement(seen: Seen) -> Placement:
    workload = read_workload(seen.deployment)
    ready = _proven(seen.slices)
    told = [_instance(copy, workload, seen, ready) for copy in seen.copies]
    wanted = int(seen.deployment["spec"]["replicas"]) - len(told)
    taken = [copy.number for copy in seen.copies]
    for _ in range(wanted):  # the cluster has not made them yet
        taken.append(Roll.free(taken))
        trouble = troubles.of_deployment(seen.deployment)
        told.append((Instance(str(taken[-1]), "", Phase.STARTING), str(trouble or "")))
    told.sort(key=lambda pair: (pair[0].phase is not Phase.FAILED, not pair[1]))
    instances = sorted((instance for instance, _ in told), key=lambda instance: int(instance.id))
    namespace = seen.deployment["metadata"]["namespace"]
    reason = next((reason for _, reason in told if reason), seen.cut)
    return Placement(
        release=workload.release,
        instances=tuple(instances),
        egress=tuple(
            Egress(name, seen.settings.address(name, workload, namespace)) for name in workload.calls
        ),
        isolation=Isolation.CONTAINER,
        reason=reason,
        health_path=workload.health_path,
        advisory=_advisory(workload),
        drain_seconds=workload.drain_seconds,
        admission=workload.admission,
        breakers=workload.breakers,
        full=workload.replicas,
        asked=seen.asked.replicas,
        later=seen.asked.then,
        most=workload.most,
        scaling=workload.scaling,
        protocol=workload.protocol,
        base=found_base(seen.deployment),
        lacks=_lacks(seen, reason) or None,
    )


def _lacks(seen: Seen, reason: str) -> bool:
    """Whether *reason* is that the cluster wants something."""
    known = (*(troubles.of_pod(copy.pod) for copy in seen.copies), troubles.of_deployment(seen.deployment))
    return any(trouble.lacks and str(trouble) in reason for trouble in known if trouble)


def _advisory(workload: Workload) -> tuple[str, ...]:
    """What was declared and does nothing here: nobody has told how many requests a copy has at once."""
    asked = {"open_files": workload.limits.open_files, "scaling.in_flight": workload.scaling.in_flight}
    return tuple(name for name, value in asked.items() if value)


def _proven(slices: Collection[Object]) -> set[str]:
    """The uids of the pods that get traffic."""
    return {
        str(endpoint.get("targetRef", {}).get("uid", ""))
        for one in slices
        for endpoint in one.get("endpoints") or ()
        if endpoint.get("conditions", {}).get("ready")
    }


def _instance(copy: Copy, workload: Workload, seen: Seen, ready: set[str]) -> tuple[Instance, str]:
    """(the instance, why it is not ready or last ended)."""
    pod, uid = copy.pod, copy.pod["metadata"]["uid"]
    status, end = status_of(pod), seen.ends.get(copy.pod["metadata"]["uid"])
    restarts = int(status.get("restartCount", 0))
    trouble = troubles.of_pod(pod)
    phase, why = Phase.STARTING, str(trouble or "")
    if uid in ready and trouble is None:
        phase = Phase.READY
    elif not seen.served:
        phase, why = _given_up(copy, workload, trouble, restarts, seen.words.get(uid, ""))
    if end is not None and not why:
        why = _how(end, workload)
    address = pod.get("status", {}).get("podIP", "")
    host = f"[{address}]" if ":" in address else address
    instance = Instance(
        id=str(copy.number),
        address=f"{host}:{PORT}" if address else "",
        phase=phase,
        restarts=restarts,
        exit_code=end.exit_code if end else None,
        crashes=_crashes(pod, seen.now),
        recent=seen.recent.get(uid, 0),
    )
    return instance, why


def _given_up(
    copy: Copy, workload: Workload, trouble: troubles.Trouble | None, restarts: int, words: str
) -> tuple[Phase, str]:
    """Whether a copy of what never served is to be waited for; and what keeps it, if that is known."""
    why = str(trouble or "")
    if trouble is not None and trouble.final:
        return Phase.FAILED, why
    ended = "running" not in status_of(copy.pod).get("state", {})
    if restarts >= MOST_RESTARTS and ended and trouble is None:
        return Phase.FAILED, ""
    if copy.age <= workload.start_seconds:
        return Phase.STARTING, why
    late = f"not ready after {workload.start_seconds:g} s"
    if why or last_end(copy.pod):
        return Phase.FAILED, f"{late}: {why}" if why else ""
    hint = "" if words else f" (it must listen on {PORT} of $HOST)"
    return Phase.FAILED, f"{late}; its output:\n{words}{hint}"


def _how(end: Ended, workload: Workload) -> str:
    how = f"ended with exit code {end.exit_code}"
    if end.out_of_memory:
        limit = workload.limits.memory_mb
        how = f"out of memory: it used all that it may, its limit is {limit} MB, and it was ended"
    elif end.hung:
        asked = f"{workload.liveness.failures} times at {workload.liveness.path}"
        how = f"did not answer, asked {asked}, and was ended"
    return f"{how}; its output:\n{end.words}"


def _crashes(pod: Object, now: datetime.datetime) -> int:
    """Ends in a row. The cluster counts all of a pod's life; one that came after a steady time begins
    anew."""
    end, count = last_end(pod), count_ends(pod)
    if not end or _seconds(end.get("startedAt"), end.get("finishedAt")) > STEADY:
        return min(count, 1)
    running = status_of(pod).get("state", {}).get("running", {})
    return 0 if running and _seconds(running.get("startedAt"), now.isoformat()) > STEADY else count


def _seconds(since: str | None, until: str | None) -> float:
    if not since or not until:
        return 0.0
    began, ended = (datetime.datetime.fromisoformat(time.replace("Z", "+00:00")) for time in (since, until))
    return (ended - began).total_seconds()
