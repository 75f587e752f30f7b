"""One step's Job from its beginning to its end, as the watches tell of it.

Called by `jobs`: waits for its containers, reads what the step writes while it writes it, and runs the
commands that carry files. Must not make or remove anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import IO, TypeVar

from penstock.adapters._kubernetes import Access, Client, Object
from penstock.adapters._kubernetes.execs import Command, Done, execute
from penstock.adapters._kubernetes.kinds import EVENTS, JOBS, PODS
from penstock.adapters._kubernetes.mirror import Mirror
from penstock.adapters._output import Output
from penstock.adapters.kubernetes.carrying import MOST_BACK, Bundle
from penstock.adapters.kubernetes.steps import FILES, KEEP, RUN, run_of
from penstock.adapters.kubernetes.troubles import STEP, of_pod
from penstock.core.workload import Step
from penstock.errors import Conflict, Invalid, PenstockError, Refused, Unavailable

T = TypeVar("T")

#: Where no pod comes, the events are asked why after so long.
LOOK_SECONDS = 3.0
#: As tar says that its archive is whole, but for what it could not read.
INCOMPLETE = (1, 2)
#: What a container wrote may come so much later than the news of its end; and between tries to read it.
LOG_SECONDS, PAUSE = 30.0, 0.5


class Life:
    """What waits raises what ends the wait: `Conflict` if somebody else ended the Job, `Invalid`, `Refused`
    and `Unavailable` as the cluster says why."""

    def __init__(self, client: Client, mirror: Mirror, access: Access, job: Object) -> None:
        self._client, self._mirror, self._access = client, mirror, access
        self._uid, self._name = job["metadata"]["uid"], job["metadata"]["name"]
        self._where = f"jobs.batch {job['metadata']['namespace']}/{self._name}"
        self._describe = f"kubectl describe job {self._name} -n {job['metadata']['namespace']}"

    def pod(self) -> Object | None:
        """The last that is known of it, also if it is gone."""
        found = self._mirror.all(PODS, STEP, self._name)
        owned = (p for p in found if any(o["uid"] == self._uid for o in p["metadata"]["ownerReferences"]))
        return next(owned, None)

    async def started(self, container: str, seconds: float) -> None:
        """Return once this container has begun; it may have ended since. `Unavailable` after *seconds*."""

        def look() -> bool | None:
            state = run_of(self.pod() or {}, container)
            begun = "running" in state or ("terminated" in state and container == RUN)
            if not begun:
                self._check()
            return begun or None

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if await self._mirror.until(look, min(LOOK_SECONDS, seconds)):
                return
            if self.pod() is None:
                await self._ask_why()
        trouble = of_pod(self.pod() or _NOTHING)
        said = f"it has not begun after {seconds:g} s"
        raise Unavailable(
            f"{said}: {trouble.what}" if trouble else said,
            where=self._where,
            next_move=trouble.next_move if trouble else self._describe,
        )

    async def listen(self, output: Output) -> None:
        """All that the step writes, until it has ended. A connection that breaks is made anew, and what was
        read before is not read twice."""
        pod = await self._until(self.pod)
        ended = asyncio.ensure_future(self._ended())
        reading = asyncio.ensure_future(self._read(pod["metadata"]["name"], output, ended))
        try:
            await asyncio.wait([ended, reading], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await reading  # it goes on until the end: this raises why not
            await ended
            await asyncio.wait([reading], timeout=LOG_SECONDS)
            if reading.done():
                reading.result()
            else:
                output.write(b"(the end of its output could not be read)\n")
        finally:
            for task in (ended, reading):
                task.cancel()
            await asyncio.wait([ended, reading])

    async def _read(self, pod: str, output: Output, ended: asyncio.Future[None]) -> None:
        taken = 0
        while True:
            skip = taken
            try:
                async for data in self._client.follow(pod, RUN):
                    fresh = data[skip:]
                    skip = max(0, skip - len(data))
                    output.write(fresh)
                    taken += len(fresh)
                await asyncio.wait([ended], timeout=PAUSE)
                if ended.done():
                    return
            except Unavailable:
                await asyncio.sleep(PAUSE)

    async def _ended(self) -> None:
        await self._until(lambda: run_of(self.pod() or {}, RUN).get("terminated"))

    async def fetch(self, step: Step, back: IO[bytes]) -> str:
        """What is in its writable folders now, as an archive; there is one at least. Words for the log, if
        not all of it can be read or some of it changes meanwhile: a step can do both."""
        wanted = [str(number) for number, mount in enumerate(step.mounts) if mount.writable]
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > MOST_BACK:
                raise Invalid(f"a step wrote more than {MOST_BACK} bytes", where=self._where)
            back.write(data)

        argv = ("tar", "-cf", "-", "-C", FILES, *wanted)
        done = await self.execute(KEEP, argv, take=take)
        if done.exit_code not in (0, *INCOMPLETE):
            raise self.trouble(f"its files could not be taken back: {done.said}", done)
        return f"(not all of its files could be taken back: {done.said})\n" if done.exit_code else ""

    async def execute(
        self,
        container: str,
        argv: tuple[str, ...],
        *,
        bundle: Bundle | None = None,
        take: Callable[[bytes], object] = lambda _: None,
    ) -> Done:
        pod = await self._until(self.pod)
        metadata, feed = pod["metadata"], bundle.chunks() if bundle else ()
        command = Command(metadata["namespace"], metadata["name"], container, argv, feed, take)
        running = asyncio.ensure_future(execute(self._access, command))
        # A Job that is ended says so at once.
        watching: asyncio.Task[None] = asyncio.ensure_future(self._until(lambda: None))
        try:
            await asyncio.wait([running, watching], return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not running.done():
                await watching
            return await running
        finally:
            for task in (running, watching):
                task.cancel()
            await asyncio.wait([running, watching])
            for task in (running, watching):
                if not task.cancelled():
                    task.exception()

    def trouble(self, what: str, done: Done) -> PenstockError:
        """Why a command of ours failed in the pod: without its program, no time will help."""
        if done.exit_code == 127 or "executable file not found" in done.said:
            move = "name an image with sh and tar: steps.image in the cluster's file"
            return Invalid(what, where=self._where, next_move=move)
        return Unavailable(what, where=self._where, next_move=self._describe)

    # --- waiting -------------------------------------------------------------------------------------

    async def _until(self, look: Callable[[], T | None]) -> T:
        """What *look* finds; what ends the Job meanwhile is raised."""

        def once() -> T | None:
            found = look()
            if found is None:
                self._check()
            return found

        while True:
            found = await self._mirror.until(once, LOOK_SECONDS)
            if found is not None:
                return found

    def _check(self) -> None:
        """Raise what no waiting mends."""
        job, pod = self._mirror.get(JOBS, self._name), self.pod()
        if job is None or job["metadata"]["uid"] != self._uid or "deletionTimestamp" in job["metadata"]:
            move = "nothing to do if another worker took the delivery over"
            raise Conflict("somebody else has ended it", where=self._where, next_move=move)
        trouble = of_pod(pod) if pod else None
        if trouble and trouble.final:
            raise Invalid(trouble.what, where=self._where, next_move=trouble.next_move)
        failed = [c for c in job.get("status", {}).get("conditions", ()) if c["type"] == "Failed"]
        lost = pod is not None and ("deletionTimestamp" in pod["metadata"] or _reason(pod))
        if not (failed or lost):
            return
        if trouble:
            raise Unavailable(trouble.what, where=self._where, next_move=trouble.next_move)
        said = (
            f"{failed[0].get('reason')}: {failed[0].get('message')}" if failed else "its pod was taken away"
        )
        raise Unavailable(f"the cluster ended it: {said}", where=self._where, next_move=self._describe)

    async def _ask_why(self) -> None:
        """Raise what the cluster refuses to make its pod for."""
        chosen = f"involvedObject.uid={self._uid},reason=FailedCreate"
        listed = await self._client.list(EVENTS, fields=chosen)
        for event in listed.items:
            said = str(event.get("message", ""))
            if "exceeded quota" in said:
                namespace = self._client.namespace
                move = f"kubectl describe quota -n {namespace}; remove what is not needed, or raise it"
                what = f"the quota of namespace {namespace} is used up: {said}"
                raise Unavailable(what, where=self._where, next_move=move)
            raise Refused(
                f"the cluster refuses its pod: {said}",
                where=self._where,
                next_move="an admission rule of the cluster says no: ask its owner",
            )


_NOTHING: Object = {"metadata": {"name": "", "namespace": ""}}


def _reason(pod: Object) -> str:
    """Why a pod that failed as a whole did."""
    status = pod.get("status", {})
    return str(status.get("reason", "")) if status.get("phase") == "Failed" else ""
