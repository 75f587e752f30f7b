"""Sets how many copies a release has, and waits for those that end.

Called by `driver` and `tending`, with a Deployment that they have just read, and whose fence they have
checked: each write is of that version, or is refused. Where load sets the number (`autoscaling`), only its
bounds are set here, and the number itself where it cannot wait: to none, and up from too few.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from penstock.adapters._kubernetes import MANAGER, Client, Object
from penstock.adapters._kubernetes.kinds import DEPLOYMENTS, PODS
from penstock.adapters._kubernetes.mirror import Mirror
from penstock.adapters._kubernetes.owned import extract
from penstock.adapters.kubernetes import manifests, record
from penstock.adapters.kubernetes.autoscaling import Autoscaling
from penstock.adapters.kubernetes.ends import last_end
from penstock.adapters.kubernetes.record import ASKED, COMPLETE, FENCE, RELEASE, Asked
from penstock.adapters.kubernetes.roll import Copy, Roll
from penstock.core.fence import Fence
from penstock.errors import Conflict

#: So much longer than it may take is waited for a pod to be gone: its node has to say so.
NODE_SECONDS = 15.0
#: Which copies go first, as ReplicaSets understand it.
COST = "controller.kubernetes.io/pod-deletion-cost"
#: Ended by SIGKILL.
KILLED = 137


class Copies:
    def __init__(self, client: Client, mirror: Mirror, autoscaling: Autoscaling) -> None:
        self._client = client
        self._mirror = mirror
        self._autoscaling = autoscaling
        self._roll = Roll()
        self._cut: dict[str, str] = {}

    def of(self, live: Object) -> list[Copy]:
        """Those of this Deployment, by number."""
        release = live["metadata"]["name"]
        return self._roll.call(release, self._mirror.all(PODS, RELEASE, release))

    def cut(self, release: str) -> str:
        """Who would not end by itself when it was told to last; "" if everybody did."""
        return self._cut.get(release, "")

    def dismiss(self, pod: Object) -> None:
        """It was told to end, and the cluster will say so soon."""
        self._roll.dismiss(pod)

    def forget(self, release: str) -> None:
        self._roll.forget(release)
        self._cut.pop(release, None)

    # --- changing ------------------------------------------------------------------------------------

    async def set(
        self, live: Object, fence: Fence, asked: Asked, count: int
    ) -> tuple[Object, Sequence[Copy]]:
        """Have *count* copies, at least, while *asked* holds: (what the Deployment is then, who ends for it).

        `Drift` if somebody else has set what is to be changed.
        """
        if manifests.autoscaler(live) is not None:
            return await self._bound(live, fence, asked, count)
        surplus = self.of(live)[count:]
        for copy in surplus:
            await self._let_go_first(copy.pod)
        return await self._said(live, fence, asked, {"replicas": count}), surplus

    async def _bound(
        self, live: Object, fence: Fence, asked: Asked, count: int
    ) -> tuple[Object, Sequence[Copy]]:
        """To none before that is said, so that whoever is cut off in between is still asked to do it. To more
        after the bounds, or the autoscaler would take them away again. What else is too much it takes away
        itself, in its own time."""
        leaving = self.of(live) if count == 0 else []
        if count == 0:
            live = await self._resized(live, 0)
        live = await self._said(live, fence, asked, {})
        await self._autoscaling.follow(live)
        if live["spec"]["replicas"] < count:
            live = await self._resized(live, count)
        return live, leaving

    async def _said(self, live: Object, fence: Fence, asked: Asked, spec: Object) -> Object:
        """What is ours of it, with *asked* and *spec*. A number of copies that nobody has set since we did is
        applied as it is: left out, the API would go back to one."""
        wanted = extract(live, MANAGER)
        said = {FENCE: str(fence.number), ASKED: record.kept(asked), COMPLETE: "true"}
        wanted["metadata"].setdefault("annotations", {}).update(said)
        wanted.setdefault("spec", {}).update(paused=False, **spec)
        changed = await self._client.apply(DEPLOYMENTS, wanted)
        self._mirror.put(DEPLOYMENTS, changed)
        return changed

    async def _resized(self, live: Object, count: int) -> Object:
        if live["spec"]["replicas"] == count:
            return live
        changed = await self._client.resize(DEPLOYMENTS, live, count)
        self._mirror.put(DEPLOYMENTS, changed)
        return changed

    async def _let_go_first(self, pod: Object) -> None:
        """Of the pods of one set the cheapest go first; the cluster's own choice would be another."""
        metadata = {name: pod["metadata"][name] for name in ("name", "namespace", "uid")}
        with contextlib.suppress(Conflict):  # it is gone, and that is as well
            await self._client.apply(PODS, {"metadata": {**metadata, "annotations": {COST: "-1"}}})

    # --- waiting -------------------------------------------------------------------------------------

    async def ended(self, live: Object, copies: Sequence[Copy]) -> None:
        """Wait until these are gone, as long as they may take, and note who would not end by itself."""
        if not copies:
            return
        workload = record.read_workload(live)
        uids = {copy.pod["metadata"]["uid"] for copy in copies}

        def gone() -> bool | None:
            there = self._mirror.all(PODS, RELEASE, workload.release)
            return None if any(pod["metadata"]["uid"] in uids for pod in there) else True

        limit = manifests.LEAVE_SECONDS + workload.drain_seconds + NODE_SECONDS
        if not await self._mirror.until(gone, limit):
            self._cut[workload.release] = f"{workload.release}: not all have ended after {limit:g} s"
            return
        last = ((copy.number, self._mirror.last(copy.pod["metadata"]["uid"])) for copy in copies)
        stubborn = [str(number) for number, pod in last if pod and _killed(pod)]
        if stubborn:
            which, seconds = ", ".join(stubborn), workload.drain_seconds
            told = f"instance {which} was still at work {seconds:g} s after SIGTERM, and was killed"
            self._cut[workload.release] = f"{workload.release}: {told}"


def _killed(pod: Object) -> bool:
    end = last_end(pod)
    return end.get("exitCode") == KILLED and end.get("reason") != "OOMKilled"
