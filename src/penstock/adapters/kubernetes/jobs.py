"""Sandbox: each step a Job of a Kubernetes cluster.

Found as ``penstock.sandbox: kubernetes``; used where the cluster's file has ``steps``. Files go to the pod
and come back through the API, so that other people's code is near no credential of ours. A stage has one Job
at a time, whoever works on it: who takes it over ends what is there before it begins, unless a higher fence
has been there. Must not say that a Job has ended before the cluster does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import tempfile
import time
from pathlib import Path
from typing import IO

from penstock.adapters._commands import inherited
from penstock.adapters._kubernetes import Access, Client, Object
from penstock.adapters._kubernetes.failures import Moved
from penstock.adapters._kubernetes.kinds import JOBS, PODS
from penstock.adapters._kubernetes.mirror import Mirror
from penstock.adapters._output import Output, known_secrets
from penstock.adapters.kubernetes import steps
from penstock.adapters.kubernetes.carrying import Bundle, pack, unpack
from penstock.adapters.kubernetes.life import Life
from penstock.adapters.kubernetes.record import MANAGED
from penstock.adapters.kubernetes.steps import BRING, FILES, READY, RUN, Settings, run_of
from penstock.adapters.kubernetes.troubles import STEP
from penstock.cluster import Cluster
from penstock.core.workload import Isolation, Step, StepResult
from penstock.errors import Conflict, Invalid, PenstockError, Unavailable
from penstock.ports import Hand

log_of_ours = logging.getLogger(__name__)

#: A place that somebody else takes in between is asked for again, so often.
TRIES = 3
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MACHINE = platform.machine()


class KubernetesJobs:
    """*namespace* is where Jobs are ("": that of *access*)."""

    isolation = Isolation.CONTAINER

    def __init__(self, settings: Settings, access: Access, namespace: str = "") -> None:
        self._settings = settings
        self._access = access
        self._client = Client(access)
        self._client.namespace = namespace or self._client.namespace
        self._mirror = Mirror(self._client, (JOBS, PODS), STEP)

    @classmethod
    def of(cls, cluster: Cluster) -> KubernetesJobs:
        """As the cluster's file says; `Invalid` if it has no ``steps``."""
        given = cluster.steps
        if given is None:
            raise Invalid("the cluster's file has no steps", where="steps", next_move="steps: {image: …}")
        # An artifact says that it is for the worker's kind of machine: it is made on one.
        arch = ARCHITECTURES.get(MACHINE, MACHINE)
        settings = Settings(given.image, given.memory_mb, given.cpus, cluster.pull_secrets, arch)
        return cls(settings, Access.of(cluster), given.namespace)

    async def check(self) -> None:
        """Raise what would keep every step from running: an API that is away, a right that is missing."""
        await self._mirror.ready()

    async def close(self) -> None:
        """Stop watching. A step that runs is ended by whoever waits for it."""
        await self._mirror.close()
        await self._client.close()

    # --- Sandbox -------------------------------------------------------------------------------------

    def enclose(self, step: Step, *, outlives_us: bool = False, hand: Hand | None = None) -> tuple[str, ...]:
        raise Invalid(
            "this step runs in the cluster: there is no command line for it on this machine",
            next_move="penstock logs shows what it wrote; penstock run PATH runs a project's checks here",
        )

    async def run(self, step: Step, log: Path) -> StepResult:
        settings = inherited()
        secrets, told = known_secrets(step.secrets, settings)
        with contextlib.closing(Output(secrets)) as output, _room(log) as file:
            output.open(log)
            output.write("".join(told).encode())
            bundle = await asyncio.to_thread(pack, step, steps.script(step, settings), file)
            await self._mirror.ready()
            job = await self._began(step, log)
            try:
                life = Life(self._client, self._mirror, self._access, job)
                return await self._performed(life, step, log, bundle, output)
            finally:
                await self._let_go(job)

    async def _performed(
        self, life: Life, step: Step, log: Path, bundle: Bundle, output: Output
    ) -> StepResult:
        await life.started(BRING, self._settings.start_seconds)
        script = f"tar -xf - -C {FILES} && : > {FILES}/{READY}"
        brought = await life.execute(BRING, ("/bin/sh", "-c", script), bundle=bundle)
        if brought.exit_code:
            raise life.trouble(f"its files could not be unpacked there: {brought.said}", brought)
        await life.started(RUN, self._settings.start_seconds)
        began, timed_out = time.monotonic(), False
        try:
            async with asyncio.timeout(step.seconds):
                await life.listen(output)
        except TimeoutError:
            timed_out = "terminated" not in run_of(life.pod() or {}, RUN)
        seconds = time.monotonic() - began
        end = run_of(life.pod() or {}, RUN).get("terminated") or {}
        if any(mount.writable for mount in step.mounts):
            with _room(log) as back:
                output.write((await life.fetch(step, back)).encode())
                await asyncio.to_thread(unpack, step, back, bundle.sent)
        output.close()
        words = output.last_words
        if timed_out:
            words += f"\n(ended after {step.seconds:.0f} s)"
        elif end.get("reason") == "OOMKilled":
            words += f"\n(out of memory: a step may use {self._settings.memory_mb} MB: steps.memory_mb)"
        return StepResult(-9 if timed_out else int(end.get("exitCode", -1)), words, seconds, timed_out)

    # --- Jobs ----------------------------------------------------------------------------------------

    async def _began(self, step: Step, log: Path) -> Object:
        """The Job of this step. One of this stage that is there already ends first."""
        namespace, name = self._client.namespace, steps.name_of(log)
        wanted = steps.job(name, f"{log.parent.name}/{log.stem}", step, self._settings, namespace)
        for _ in range(TRIES):
            with contextlib.suppress(Moved):
                return await self._made(wanted)
            older = await self._client.get(JOBS, name)
            if older is not None:
                _check(older, steps.fence_of(wanted))
                await self._end(older)
        where, move = f"jobs.batch {namespace}/{name}", "see who else makes Jobs of this name there"
        raise Conflict("somebody else begins it again and again", where=where, next_move=move)

    async def _made(self, wanted: Object) -> Object:
        """The new Job. Whoever cancels while nobody knows whether there is one leaves none."""
        making = asyncio.ensure_future(self._client.create(JOBS, wanted))
        try:
            made = await asyncio.shield(making)
        except asyncio.CancelledError:
            with contextlib.suppress(PenstockError):
                await self._let_go(await making)
            raise
        self._mirror.put(JOBS, made)
        return made

    async def _let_go(self, job: Object) -> None:
        """Nothing of it goes on; its outcome does not depend on who takes it away."""
        try:
            await self._end(job)
        except PenstockError as error:
            log_of_ours.warning("a Job is left to end by its deadline: %s", error)

    async def _end(self, job: Object) -> None:
        """End a Job, and wait until the cluster says that nothing of it is left. `Unavailable` if it does
        not."""
        metadata = job["metadata"]
        self._mirror.put(JOBS, job)
        try:
            await self._client.delete(JOBS, metadata["name"], uid=metadata["uid"], policy="Foreground")
        except Conflict:  # another one has its name: it is gone
            return

        def gone() -> bool | None:
            live = self._mirror.get(JOBS, metadata["name"])
            same = live is not None and live["metadata"]["uid"] == metadata["uid"]
            return None if same else True

        if not await self._mirror.until(gone, self._settings.end_seconds):
            where = f"jobs.batch {metadata['namespace']}/{metadata['name']}"
            move = f"kubectl describe job {metadata['name']} -n {metadata['namespace']}"
            raise Unavailable(
                f"it has not ended after {self._settings.end_seconds:g} s", where=where, next_move=move
            )


def _room(log: Path) -> IO[bytes]:
    """A file without a name, on the disk of the logs."""
    log.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=log.parent)


def _check(older: Object, fence: int) -> None:
    metadata = older["metadata"]
    where = f"jobs.batch {metadata['namespace']}/{metadata['name']}"
    if metadata.get("labels", {}).get(MANAGED) != "penstock":
        move = "remove or rename it, or name another namespace: steps.namespace in the cluster's file"
        raise Conflict("there is a Job of this name that is not ours", where=where, next_move=move)
    if fence < steps.fence_of(older):
        move = "nothing to do: another worker has taken the delivery over"
        what = f"fence {fence} is stale: {steps.fence_of(older)} has been seen"
        raise Conflict(what, where=where, next_move=move)
