"""Sets the copies of Deployments by how much they use: the controller of autoscalers.

Called by `cluster` after each change. `autoscaling` says how many; this looks, waits until fewer were enough
for long enough, and writes. Nothing is measured: a test says how much there is to do (`Autoscalers.work`).
"""

from __future__ import annotations

import time

from penstock.testing.kubernetes import autoscaling
from penstock.testing.kubernetes.api import Api
from penstock.testing.kubernetes.controllers import MANAGER, Controllers, condition
from penstock.testing.kubernetes.kinds import AUTOSCALERS, DEPLOYMENTS, Object


class Autoscalers:
    """*speed* as the kubelet's: fewer copies are waited with so much shorter."""

    def __init__(self, api: Api, controllers: Controllers, speed: float) -> None:
        self._api = api
        self._controllers = controllers
        self._speed = speed
        #: What the copies of each Deployment have to do together, in what one does with all that it asks for.
        #: Of what is not named nothing can be told, as where nobody measures.
        self.work: dict[str, float] = {}
        #: How many copies would have done, and when, by the autoscaler's uid.
        self._enough: dict[str, list[tuple[float, int]]] = {}

    def reconcile(self) -> None:
        for scaler in self._api.all(AUTOSCALERS):
            if "deletionTimestamp" not in scaler["metadata"]:
                self._look(scaler)

    def _look(self, scaler: Object) -> None:
        namespace, wanted = scaler["metadata"]["namespace"], scaler["spec"]["scaleTargetRef"]
        target = self._api.storage.get(DEPLOYMENTS.full, namespace, wanted["name"])
        if target is None or wanted["kind"] != DEPLOYMENTS.kind:
            return self._tell(scaler, 0, 0, condition("AbleToScale", False, "FailedGetScale"))
        current = target["spec"]["replicas"]
        count, state = self._count(scaler, target)
        if count != current:
            change = {"spec": {"replicas": count}}
            self._api.patch(DEPLOYMENTS, namespace, wanted["name"], change, manager=MANAGER)
        return self._tell(scaler, current, count, state)

    def _count(self, scaler: Object, target: Object) -> tuple[int, Object]:
        """(how many copies there are to be, whether it can tell)."""
        spec, current = scaler["spec"], int(target["spec"]["replicas"])
        if current == 0:
            return 0, condition("ScalingActive", False, "ScalingDisabled")
        fine = condition("ScalingActive", True, "ValidMetricFound")
        if (count := autoscaling.bounded(spec, current)) != current:
            return count, fine
        work = self.work.get(target["metadata"]["name"])
        ready = target.get("status", {}).get("readyReplicas", 0)
        if work is None or not ready or not _is_asked_for(spec, target):
            return current, condition("ScalingActive", False, f"FailedGet{spec['metrics'][0]['type']}Metric")
        enough = autoscaling.enough(spec, current, ready, 100 * min(1.0, work / ready))
        return autoscaling.bounded(spec, self._steady(scaler, current, enough)), fine

    def _steady(self, scaler: Object, current: int, enough: int) -> int:
        """Fewer only if they would have been enough all the time."""
        now, uid = time.monotonic(), scaler["metadata"]["uid"]
        since = now - autoscaling.window(scaler["spec"]) / self._speed
        known = [(at, count) for at, count in self._enough.get(uid, [(now, current)]) if at >= since]
        self._enough[uid] = [*known, (now, enough)]
        most = max(count for _, count in self._enough[uid])
        return enough if enough > current else min(current, most)

    def _tell(self, scaler: Object, current: int, count: int, state: Object) -> None:
        status = {"currentReplicas": current, "desiredReplicas": count, "conditions": [state]}
        self._controllers.tell(AUTOSCALERS, scaler, status)


def _is_asked_for(spec: Object, target: Object) -> bool:
    """Whether what counts asks for what is measured: percent of nothing is nothing."""
    source = autoscaling.measure(spec)
    containers = target["spec"]["template"]["spec"]["containers"]
    counted = [one for one in containers if one["name"] == source.get("container", one["name"])]
    return bool(counted) and all(
        source["name"] in one.get("resources", {}).get("requests", {}) for one in counted
    )
