"""Runs pods that end (``restartPolicy: Never``): their containers one after the other, and then side by side.

Called by `kubelet` for the pods of Jobs. Each container is a real process of this machine, enclosed by what a
test hands over (`Enclose`), with the pod's empty volumes where its mounts say; its image is whatever that
shows. `execs` runs further commands in one. User, capabilities and the read-only root are not imitated.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from penstock.testing.kubernetes.api import now
from penstock.testing.kubernetes.containers import Process, Run, StartError
from penstock.testing.kubernetes.kinds import NETWORK_POLICIES, Object
from penstock.testing.kubernetes.kubelet import Kubelet, Pod, either
from penstock.testing.kubernetes.podstatus import (
    environment,
    memory_limit,
    running,
    terminated,
    waiting,
)
from penstock.testing.kubernetes.problems import Problem

LOG_PIECE = 256 * 1024
LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Inside:
    """One command and what it sees: *mounts* are (folder or file of this machine, path inside, writable)."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    mounts: tuple[tuple[str, str, bool], ...]
    network: bool


#: The command of this machine that runs one so that it sees nothing else that is ours.
Enclose = Callable[[Inside], tuple[str, ...]]


class Finite(Pod):
    """*enclose* None: containers cannot be made."""

    def __init__(self, kubelet: Kubelet, value: Object, address: str, enclose: Enclose | None) -> None:
        super().__init__(kubelet, value, address)
        spec = value["spec"]
        self._enclose = enclose
        self._inits: list[Object] = spec.get("initContainers", [])
        self._mains: list[Object] = spec["containers"]
        self._folder = kubelet.folder / "pods" / value["metadata"]["uid"]
        self._states: dict[str, Object] = {}
        self._running: dict[str, Process] = {}

    async def _life(self) -> None:
        try:
            if await self._scheduled() and await self._pulled():
                self._states.clear()
                codes = [0]
                for spec in self._inits:
                    codes = [await self._run(spec)]
                    if codes != [0]:
                        break
                else:
                    self._phase = "Running"
                    codes = await asyncio.gather(*(self._run(spec) for spec in self._mains))
                self._phase = "Failed" if any(codes) else "Succeeded"
                self._tell(None)
            await self._ending.wait()
        finally:
            for process in self._running.values():
                process.kill()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._gone()

    async def _run(self, spec: Object) -> int:
        """One container from its beginning to its end; its exit code."""
        name, began = spec["name"], now()
        if self._ending.is_set():
            return 137
        try:
            inside = self._inside(spec, (*spec.get("command", ()), *spec.get("args", ())))
        except Problem as problem:
            self._states[name] = waiting("CreateContainerConfigError", problem.message)
            self._tell(None)
            await self._ending.wait()
            return 137
        log = self._folder / f"{name}.log"
        process = Process(
            Run(self._enclosed(inside), {}, self._folder, log, self.address, "", memory_limit(spec))
        )
        try:
            await process.start()
        except StartError as error:
            self._states[name] = terminated(128, began, "StartError", str(error))
            self._tell(None)
            return 128
        self._running[name] = process
        self._states[name] = running(began)
        self._tell(None)
        ended = asyncio.ensure_future(process.wait())
        try:
            await either(ended, self._ending)
            if not ended.done():
                await self._asked_to_end(process, ended)
            code = await ended
        finally:
            process.kill()
        self._states[name] = terminated(code, began, "OOMKilled" if process.out_of_memory else "")
        self._tell(None)
        return code

    # --- what a container sees ------------------------------------------------------------------------

    def command(self, container: str, argv: tuple[str, ...]) -> tuple[str, ...]:
        """How another command is run beside what runs in *container*. `Problem` if nothing does."""
        spec = next((s for s in (*self._inits, *self._mains) if s["name"] == container), None)
        if spec is None:
            raise Problem(400, f"container {container} is not valid for pod {self.name}")
        if "running" not in self._states.get(container, {}):
            raise Problem(500, f'container not running ("{container}")')
        return self._enclosed(self._inside(spec, argv))

    def _inside(self, spec: Object, argv: tuple[str, ...]) -> Inside:
        volumes = {volume["name"] for volume in self.object["spec"].get("volumes", ())}
        mounts = []
        for mount in spec.get("volumeMounts", ()):
            volume = self._folder / "volumes" / mount["name"]
            if mount["name"] not in volumes:
                raise Problem(422, f"no volume is called {mount['name']}")
            volume.mkdir(parents=True, exist_ok=True)
            volume.chmod(0o777)
            source = volume / mount.get("subPath", "")
            source.exists() or source.mkdir(parents=True)
            mounts.append((str(source), mount["mountPath"], not mount.get("readOnly", False)))
        env = environment(spec, self.object, self._kubelet.api)
        return Inside(argv, env, tuple(mounts), not self._is_cut_off())

    def _enclosed(self, inside: Inside) -> tuple[str, ...]:
        if self._enclose is None:
            raise Problem(501, "this node has nothing to enclose containers with")
        return self._enclose(inside)

    def _is_cut_off(self) -> bool:
        """Whether a policy lets nothing out of this pod."""
        labels = self.object["metadata"].get("labels", {})
        for policy in self._kubelet.api.all(NETWORK_POLICIES, self.namespace):
            spec = policy["spec"]
            chosen = spec.get("podSelector", {}).get("matchLabels", {})
            if (
                chosen.items() <= labels.items()
                and "Egress" in spec.get("policyTypes", ())
                and not spec.get("egress")
            ):
                return True
        return False

    # --- what it tells -------------------------------------------------------------------------------

    def follow(self, container: str) -> AsyncIterator[bytes]:
        """All that a container writes, until it has ended. `Problem` if it has not begun."""
        if container not in self._states or "waiting" in self._states[container]:
            said = f'container "{container}" in pod "{self.name}" is waiting to start: PodInitializing'
            raise Problem(400, said)
        return self._written(container)

    async def _written(self, container: str) -> AsyncIterator[bytes]:
        with (self._folder / f"{container}.log").open("rb") as file:
            while True:
                last = "terminated" in self._states[container]
                while data := file.read(LOG_PIECE):
                    yield data
                if last:
                    return
                await asyncio.sleep(LOOK_SECONDS)

    def _containers(self, state: Object | None, reason: str, ready: bool) -> Object:
        """*state* is that of the container that would be next."""
        first = (self._inits or self._mains)[0]["name"]
        if state is not None and reason != "NodeLost":
            self._states[first] = state
        parts = (("initContainerStatuses", self._inits), ("containerStatuses", self._mains))
        return {part: [self._one(spec) for spec in specs] for part, specs in parts if self.node and specs}

    def _one(self, spec: Object) -> Object:
        state = self._states.get(spec["name"], waiting("PodInitializing"))
        return {
            "name": spec["name"],
            "image": spec["image"],
            "imageID": spec["image"],
            "ready": "running" in state,
            "started": "running" in state,
            "restartCount": 0,
            "state": state,
            "lastState": {},
        }

    def lost(self, evict: bool) -> None:
        for process in self._running.values():
            process.kill()
        super().lost(evict)


def use_finite(kubelet: Kubelet, enclose: Enclose) -> None:
    """From now on pods that end can be run."""
    kubelet.finite = lambda node, value, address: Finite(node, value, address, enclose)
