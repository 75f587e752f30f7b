"""Runs pods: schedules them, starts their container, asks its probes, starts it again, ends it.

Called by `cluster`, which tells it whenever something changed. It speaks to the API as a node does: what it
knows is in the pods' status. Only the first container of a pod is run.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import platform
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from penstock.testing.kubernetes import volumes
from penstock.testing.kubernetes.api import Api, now
from penstock.testing.kubernetes.containers import Behaviour, Container, Process, Run, StartError, Stub
from penstock.testing.kubernetes.expansion import expanded
from penstock.testing.kubernetes.kinds import EVENTS, PODS, Object
from penstock.testing.kubernetes.podstatus import (
    environment,
    memory_limit,
    running,
    terminated,
    waiting,
    with_conditions,
)
from penstock.testing.kubernetes.problems import Problem
from penstock.testing.kubernetes.pulling import PullError

__all__ = ["Behaviour", "Kubelet"]

#: Of this machine, as nodes say it.
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
#: As a node's: the first restart is at once.
BACKOFF = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)


class Kubelet:
    """Every node of the cluster. *speed* is how much faster than a node's its clock runs. *behaviours* are by
    image, as a pod names it; what is not among them cannot be pulled, unless there is a *pull*."""

    def __init__(self, api: Api, folder: Path, speed: float) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        #: Gets an image that is not among the behaviours into a folder; it then is.
        self.pull: Callable[[str, Path], Awaitable[Behaviour]] | None = None
        self.nodes = ["node-1", "node-2"]
        #: What nodes are, all of them: a pod that chooses others is taken by none.
        self.labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": ARCHITECTURE}
        self.lost: set[str] = set()
        #: Pods have addresses of 127/8 that begin so. No two clusters of a machine may share them.
        self.network = "127.10.0"
        self._api = api
        self.folder = folder
        self.speed = speed
        #: Makes pods that end.
        self.finite: Callable[[Kubelet, Object, str], Pod] | None = None
        self._pulling = asyncio.Lock()
        self._pods: dict[str, Pod] = {}
        self._count = 0

    def sync(self) -> None:
        """Start what is new, and end what is to go."""
        there = {pod["metadata"]["uid"]: pod for pod in self._api.all(PODS)}
        for uid, pod in there.items():
            if uid not in self._pods:
                self._count += 1
                address = f"{self.network}.{self._count % 250 + 1}"
                ends = pod["spec"]["restartPolicy"] == "Never" and self.finite is not None
                self._pods[uid] = (self.finite if ends and self.finite else Pod)(self, pod, address)
            if "deletionTimestamp" in pod["metadata"] and self._pods[uid].node not in self.lost:
                self._pods[uid].end()
        for uid in set(self._pods) - set(there):
            self._pods.pop(uid).end(at_once=True)

    def log(self, namespace: str, name: str, lines: int | None, previous: bool) -> str:
        pod = self.named(namespace, name)
        runs = pod.runs if pod else []
        wanted = runs[-2:-1] if previous else runs[-1:]
        if not wanted:
            raise Problem(400, f'container in pod "{name}" is waiting to start: ContainerCreating')
        said = wanted[0].lines()
        return "".join(f"{line}\n" for line in (said[-lines:] if lines else said))

    def lose(self, node: str, *, evict: bool = True) -> None:
        """The node is not heard of any more: its pods are taken for unready and, after a while, are told to
        end (*evict*), which they never say that they have."""
        self.lost.add(node)
        for pod in tuple(self._pods.values()):
            if pod.node == node:
                pod.lost(evict)

    def end_container(self, namespace: str, name: str, code: int) -> None:
        """Let a stub's container end."""
        pod = self.named(namespace, name)
        if pod is None or not isinstance(pod.runs[-1], Stub):
            raise LookupError(f"no stub runs in {namespace}/{name}")
        pod.runs[-1].end(code)

    async def stop(self) -> None:
        pods, self._pods = tuple(self._pods.values()), {}
        for pod in pods:
            pod.end(at_once=True)
        await asyncio.gather(*(pod.done for pod in pods), return_exceptions=True)

    def named(self, namespace: str, name: str) -> Pod | None:
        return next((p for p in self._pods.values() if (p.namespace, p.name) == (namespace, name)), None)

    # --- for its pods --------------------------------------------------------------------------------

    @property
    def api(self) -> Api:
        return self._api

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)

    def container(self, pod: Pod, spec: Object) -> Container:
        image, mounted = self.behaviours[spec["image"]], volumes.mounts(pod.object["spec"])
        if not mounted:
            behaviour, part = image, "app"
        elif [mount.path for mount in mounted] == ["/app"]:
            behaviour, part = self.behaviours[mounted[0].reference], mounted[0].part
        else:
            raise Problem(422, "this node mounts one image, at /app")
        if behaviour.root is None:
            return Stub(behaviour)
        if not volumes.only_images(pod.object["spec"]):
            raise Problem(422, "this node mounts images, and no other volumes")
        app = str(behaviour.root / part)

        def here(text: str) -> str:
            """With what the image has as ``/app`` where it is on this machine."""
            return re.sub(r"(?<![\w./-])/app(?=/|$|[:\s'\"])", lambda _: app, text)

        log = self.folder / f"{pod.name}-{len(pod.runs)}.log"
        own = {name: value for name, value in image.env.items() if name != "PATH"}
        given = environment(spec, pod.object, self._api)
        command = (expanded(word, given) for word in (*spec.get("command", ()), *spec.get("args", ())))
        words = tuple(map(here, command))
        env = {name: here(value) for name, value in {**own, **given}.items()}
        return Process(Run(words, env, Path(app), log, pod.address, image.path, memory_limit(spec)))

    async def pulled(self, image: str) -> str:
        """Have the image, or say why there is none. One at a time, as nodes do."""
        async with self._pulling:
            if image not in self.behaviours and self.pull is not None:
                try:
                    self.behaviours[image] = await self.pull(image, self.folder / "images")
                except PullError as error:
                    return str(error)
        behaviour = self.behaviours.get(image)
        return "not found" if behaviour is None or behaviour.trouble == "image-pull" else ""


class Pod:
    """One pod on its node, from its birth to its end."""

    def __init__(self, kubelet: Kubelet, value: Object, address: str) -> None:
        self.object = value
        self.namespace, self.name = value["metadata"]["namespace"], value["metadata"]["name"]
        self.address = address
        self.node = ""
        self.runs: list[Container] = []
        self._phase = "Pending"
        self._kubelet = kubelet
        self._spec: Object = value["spec"]["containers"][0]
        self._grace = float(value["spec"].get("terminationGracePeriodSeconds", 30))
        self._ending = asyncio.Event()
        self._killing = asyncio.Event()
        self._last: Object = {}
        self.done = asyncio.ensure_future(self._life())

    def end(self, *, at_once: bool = False) -> None:
        self._ending.set()
        if at_once:
            self._killing.set()

    def lost(self, evict: bool) -> None:
        self.done.cancel()
        if self.runs:
            self.runs[-1].signal(signal.SIGKILL)
        self._tell(running(now()), reason="NodeLost")
        if evict:
            with contextlib.suppress(Problem):
                self._kubelet.api.delete(PODS, self.namespace, self.name)

    # --- its life ------------------------------------------------------------------------------------

    async def _life(self) -> None:
        try:
            if await self._scheduled() and await self._pulled():
                while not self._ending.is_set():
                    await self._run_once()
        finally:
            self._gone()

    async def _scheduled(self) -> bool:
        behaviour = self._kubelet.behaviours.get(self._spec["image"], Behaviour())
        chosen = self.object["spec"].get("nodeSelector", {})
        why = behaviour.message if behaviour.trouble == "unschedulable" else ""
        if not chosen.items() <= self._kubelet.labels.items():
            count = len(self._kubelet.nodes)
            why = f"0/{count} nodes are available: {count} node(s) didn't match Pod's node affinity/selector."
        if why:
            self._tell(None, unschedulable=why)
            await self._ending.wait()
            return False
        nodes = [node for node in self._kubelet.nodes if node not in self._kubelet.lost]
        self.node = self.object["spec"].get("nodeName") or nodes[sum(self.name.encode()) % len(nodes)]
        change = {"spec": {"nodeName": self.node}}
        with contextlib.suppress(Problem):
            api = self._kubelet.api
            api.patch(PODS, self.namespace, self.name, change, manager="kube-scheduler")
        self._tell(waiting("ContainerCreating"))
        return True

    async def _pulled(self) -> bool:
        """What is mounted comes first; what keeps it is told as if it were the container's own image."""
        mounted = [mount.reference for mount in volumes.mounts(self.object["spec"])]
        for image in (*mounted, self._spec["image"]):
            if not await self._pulled_one(image):
                return False
        return True

    async def _pulled_one(self, image: str) -> bool:
        for pause in itertools.chain(BACKOFF[1:], itertools.repeat(BACKOFF[-1])):
            if not (why := await self._kubelet.pulled(image)):
                return True
            said = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {why}'
            self._event("Failed", f'Failed to pull image "{image}": {said}')
            self._tell(waiting("ErrImagePull", said))
            await self._kubelet.sleep(1.0)
            self._tell(waiting("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {said}'))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause / self._kubelet.speed)
                return False
        raise AssertionError("it is tried for ever")

    async def _run_once(self) -> None:
        """From a start of the container to its end, and the wait after that."""
        try:
            run = self._kubelet.container(self, self._spec)
        except Problem as problem:  # what its environment names is not there
            self._tell(waiting("CreateContainerConfigError", problem.message))
            await self._ending.wait()
            return
        self.runs.append(run)
        self._phase = "Running"
        began = now()
        try:
            await run.start()
        except StartError as error:
            self._last = terminated(128, began, "StartError", str(error))
            await self._back_off()
            return
        self._tell(running(began))
        minding = asyncio.ensure_future(self._mind(run, began))
        ended = asyncio.ensure_future(run.wait())
        try:
            await either(ended, self._ending)
            if not ended.done():
                await self._asked_to_end(run, ended)
        finally:
            minding.cancel()
            if not ended.done():
                run.signal(signal.SIGKILL)
        code = await ended
        self._last = terminated(code, began, "OOMKilled" if run.out_of_memory else "")
        if self._ending.is_set():
            self._tell(self._last, ready=False, phase="Succeeded" if code == 0 else "Failed")
            return
        await self._back_off()

    async def _back_off(self) -> None:
        """Wait until it may be started again."""
        pause = BACKOFF[min(len(self.runs), len(BACKOFF)) - 1]
        if pause:
            said = f"back-off {pause:g}s restarting failed container={self._spec['name']} pod={self.name}"
            self._tell(waiting("CrashLoopBackOff", said))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause / self._kubelet.speed)
        else:
            self._tell(self._last)

    async def _asked_to_end(self, run: Container, ended: asyncio.Future[int]) -> None:
        leave = float(self._spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))
        await either(ended, self._killing, leave / self._kubelet.speed)
        run.signal(signal.SIGTERM)
        await either(ended, self._killing, max(0.0, self._grace - leave))
        run.signal(signal.SIGKILL)

    # --- its probes ----------------------------------------------------------------------------------

    async def _mind(self, run: Container, began: str) -> None:
        ports = {
            port["name"]: port["containerPort"] for port in self._spec.get("ports", []) if "name" in port
        }
        ready, failed, silent = False, 0, 0
        readiness, liveness = self._spec.get("readinessProbe"), self._spec.get("livenessProbe")
        while True:
            answers = readiness is None or await run.answers(readiness, ports)
            silent = 0 if answers else silent + 1
            # As a node: one answer makes it ready, and not one that is missing takes that away.
            now_ready = answers or (ready and silent < int((readiness or {}).get("failureThreshold", 3)))
            if now_ready != ready:
                ready = now_ready
                self._tell(running(began), ready=ready)
            if ready and liveness is not None:
                failed = 0 if await run.answers(liveness, ports) else failed + 1
                if failed >= int(liveness.get("failureThreshold", 3)):
                    name = self._spec["name"]
                    self._event("Killing", f"Container {name} failed liveness probe, will be restarted")
                    run.signal(signal.SIGKILL)
                    return
            await self._kubelet.sleep(float((readiness or liveness or {}).get("periodSeconds", 10)))

    # --- what it tells -------------------------------------------------------------------------------

    def _tell(
        self,
        state: Object | None,
        *,
        ready: bool = False,
        phase: str = "",
        reason: str = "",
        unschedulable: str = "",
    ) -> None:
        status: Object = {"phase": phase or self._phase, **self._containers(state, reason, ready)}
        if self.node:
            status |= {"podIP": self.address, "podIPs": [{"ip": self.address}], "hostIP": "127.0.0.1"}
        if reason:
            status["reason"] = reason
        self._write(with_conditions(status, self._read(), ready=ready, unschedulable=unschedulable))

    def _containers(self, state: Object | None, reason: str, ready: bool) -> Object:
        """The part of the status that is about containers. *reason* is the pod's."""
        return {} if state is None else {"containerStatuses": [self._container_status(state, ready)]}

    def _container_status(self, state: Object, ready: bool) -> Object:
        return {
            "name": self._spec["name"],
            "image": self._spec["image"],
            "imageID": self._spec["image"],
            "ready": ready,
            "started": "running" in state,
            # As a node has it: what ended and waits is not restarted yet.
            "restartCount": max(0, len(self.runs) - 1),
            "state": state,
            "lastState": self._last if "terminated" not in state else {},
        }

    def _read(self) -> Object:
        return self._kubelet.api.storage.get(PODS.full, self.namespace, self.name) or {}

    def _write(self, status: Object) -> None:
        live = self._read()
        if live.get("metadata", {}).get("uid") == self.object["metadata"]["uid"]:
            api = self._kubelet.api
            api.update(PODS, {**live, "status": status}, manager="kubelet", subresource="status")

    def _gone(self) -> None:
        live = self._read()
        if live.get("metadata", {}).get("uid") == self.object["metadata"]["uid"] and self._ending.is_set():
            with contextlib.suppress(Problem):
                self._kubelet.api.delete(PODS, self.namespace, self.name, grace=0)

    def _event(self, reason: str, message: str) -> None:
        about = {"kind": "Pod", "name": self.name, "namespace": self.namespace}
        event: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{self.name}.", "namespace": self.namespace},
            "involvedObject": {**about, "uid": self.object["metadata"]["uid"]},
            "reason": reason,
            "message": message,
            "type": "Warning" if reason == "Failed" else "Normal",
            "lastTimestamp": now(),
            "count": 1,
        }
        self._kubelet.api.create(EVENTS, event, manager="kubelet")


async def either(ended: asyncio.Future[int], event: asyncio.Event, seconds: float | None = None) -> None:
    """Return once it has *ended* or *event* is set, or after *seconds*."""
    happening = asyncio.ensure_future(event.wait())
    waited: set[asyncio.Future[Any]] = {ended, happening}
    await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    happening.cancel()
