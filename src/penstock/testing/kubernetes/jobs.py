"""What a cluster does with a Job: one pod, once, until it ends, its time is over, or nobody wants it.

Called by `cluster` after each change. Of what Jobs can be, only this is done: one pod that is never tried
again (`defaults` refuses the rest). Must not run anything: pods are the kubelet's.
"""

from __future__ import annotations

import time

from penstock.testing.kubernetes.api import Api, now
from penstock.testing.kubernetes.controllers import Controllers, child, condition
from penstock.testing.kubernetes.kinds import EVENTS, JOBS, PODS, Object
from penstock.testing.kubernetes.problems import Problem


class Jobs:
    """*speed* as the kubelet's; a deadline passes as on any clock, because the pod's own time does."""

    def __init__(self, api: Api, controllers: Controllers, speed: float) -> None:
        self._api = api
        self._shared = controllers
        self._speed = speed
        #: When each was first seen, and when it was first seen to have ended, by uid.
        self._since: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        #: Those that had their one pod, and those whose pod was refused already.
        self._begun: set[str] = set()
        self._refused: set[str] = set()

    def reconcile(self) -> None:
        for job in self._api.all(JOBS):
            if "deletionTimestamp" not in job["metadata"]:
                self._job(job)

    def _job(self, job: Object) -> None:
        uid, status = job["metadata"]["uid"], job.get("status", {})
        since = self._since.setdefault(uid, time.monotonic())
        if status.get("conditions"):
            self._clean(job)
            return
        pods = self._shared.owned(PODS, job)
        if not pods and uid not in self._begun:
            self._begin(job)
            return
        seconds = job["spec"].get("activeDeadlineSeconds")
        if seconds and time.monotonic() - since > seconds:
            for pod in pods:
                self._api.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
            self._finish(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
            return
        phases = {
            pod.get("status", {}).get("phase") for pod in pods if "deletionTimestamp" not in pod["metadata"]
        }
        if "Succeeded" in phases:
            self._finish(job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
        elif not phases or "Failed" in phases:
            said = "Job has reached the specified backoff limit"
            self._finish(job, "Failed", "BackoffLimitExceeded", said)

    def _begin(self, job: Object) -> None:
        metadata, template = job["metadata"], job["spec"]["template"]
        own = {
            "batch.kubernetes.io/job-name": metadata["name"],
            "batch.kubernetes.io/controller-uid": metadata["uid"],
        }
        labels = {**template["metadata"].get("labels", {}), **own}
        made = {**template["metadata"], **child(job, JOBS), "labels": labels}
        made["generateName"] = f"{metadata['name']}-"
        try:
            self._shared.create(PODS, {"metadata": made, "spec": template["spec"]})
        except Problem as problem:
            self._refuse(job, problem.message)
            return
        self._begun.add(metadata["uid"])
        self._shared.tell(JOBS, job, {"active": 1, "startTime": now()})

    def _refuse(self, job: Object, message: str) -> None:
        """Told once: the real one tells again and again, ever later."""
        metadata = job["metadata"]
        if metadata["uid"] in self._refused:
            return
        self._refused.add(metadata["uid"])
        about = {"kind": "Job", "name": metadata["name"], "namespace": metadata["namespace"]}
        event = {
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {**about, "uid": metadata["uid"]},
            "reason": "FailedCreate",
            "message": f"Error creating: {message}",
            "type": "Warning",
            "lastTimestamp": now(),
            "count": 1,
        }
        self._shared.create(EVENTS, event)

    def _finish(self, job: Object, kind: str, reason: str, message: str) -> None:
        ended = {**condition(kind, True, reason), "message": message}
        count = {"succeeded": 1} if kind == "Complete" else {"failed": 1}
        self._shared.tell(JOBS, job, {**count, "conditions": [ended], "completionTime": now()})

    def _clean(self, job: Object) -> None:
        metadata, seconds = job["metadata"], job["spec"].get("ttlSecondsAfterFinished")
        ended = self._ended.setdefault(metadata["uid"], time.monotonic())
        if seconds is not None and (time.monotonic() - ended) * self._speed > seconds:
            self._api.delete(JOBS, metadata["namespace"], metadata["name"])
