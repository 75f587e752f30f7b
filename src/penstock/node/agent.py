"""The node agent: keeps workloads and proxy alive on one machine, also while nobody controls them.

Started by bootstrap in a process of its own, with the local drivers handed to it. It answers calls on a
unix socket that only its own user can open, one JSON line each. Every mutating call passes the fences
first. It must not decide anything about deliveries: it keeps what it was last told.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

from penstock.core import nodecalls as calls
from penstock.core.canary import Count
from penstock.core.canaryconfig import Metric
from penstock.core.codec import decode, encode
from penstock.core.fence import Fence
from penstock.errors import Broken, Conflict, Invalid, PenstockError, Refused
from penstock.node.fences import Fences, read_record, write_record
from penstock.node.scaler import Resizable, Scaler
from penstock.ports import Metrics, Router, Tended

log = logging.getLogger(__name__)

LINE_BYTES = 4 * 1024 * 1024
TEND_SECONDS = 0.2
REPEAT_SECONDS = 10.0
#: How often the number of copies is looked at.
LOOK_SECONDS = 1.0


class LocalPlatform(Resizable, Tended, Protocol):
    """What runs workloads on this machine, and hears what they say of themselves."""

    async def count(self, metric: Metric, release: str) -> Count | None:
        """What a release's copies say (``exposed``) or have written (``logs``); as `Meter` has it."""


class LocalRouter(Router, Tended, Protocol):
    """What moves traffic on this machine."""


class Agent:
    """*folder* holds its lock, socket and fences. The drivers keep their own state elsewhere."""

    def __init__(
        self, folder: Path, *, platform: LocalPlatform, router: LocalRouter, metrics: Metrics
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._platform = platform
        self._router = router
        self._metrics = metrics
        self._scaler = Scaler(platform, router)
        self._fences = Fences(folder / "fences.json")
        self._scopes = read_record(folder / "scopes.json", dict[str, str])
        self._locks: dict[str, asyncio.Lock] = {}
        self._complained: dict[str, float] = {}
        self._talks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        #: Held while copies are counted; nobody counts them once everything was told to stop.
        self._scaling = asyncio.Lock()
        self._at_rest = False

    async def serve(self) -> None:
        """Answer calls and tend the drivers until SIGTERM. Workloads and proxy stay up."""
        with self._only_one():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stopping.set)
            server = await asyncio.start_unix_server(self._accept, sock=self._listen(), limit=LINE_BYTES)
            tending = [asyncio.create_task(self._tend(driver)) for driver in (self._platform, self._router)]
            tending.append(asyncio.create_task(self._scale_all()))
            try:
                await self._stopping.wait()
            finally:
                server.close()
                # While we still hold the lock: the next agent must not meet an effect of ours.
                ending = [*tending, *self._talks]
                for task in ending:
                    task.cancel()
                await asyncio.gather(*ending, return_exceptions=True)

    # --- the socket ----------------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        path = self._folder / "agent.sock"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        return listener

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio's would log that it was cancelled, at each end of the agent.
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not _is_ours(writer):
                writer.write(_line(_failed(Refused("only the user who runs the node agent may ask it"))))
                return
            while True:
                try:
                    line = await reader.readuntil(b"\n")
                except asyncio.LimitOverrunError:
                    writer.write(_line(_failed(Invalid(f"a call is at most {LINE_BYTES} bytes"))))
                    return
                writer.write(_bounded(_line(await self._answer(line))))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            return {"ok": encode(await self._perform(_parsed(line)))}
        except PenstockError as error:
            return _failed(error)
        except Exception as error:
            log.exception("a call failed")
            return _failed(Broken(f"{type(error).__name__}: {error}", where="node agent"))

    async def _perform(self, call: calls.Call) -> calls.Answer:
        match call:
            case calls.Observe(release=release):
                return calls.Answer(placement=await self._platform.observe(release))
            case calls.Logs(release=release, lines=lines):
                return calls.Answer(lines=await self._platform.logs(release, lines))
            case calls.ReadTraffic(service=service, environment=environment):
                return calls.Answer(traffic=await self._router.read(service, environment))
            case calls.ReadCounters(service=service, environment=environment):
                return calls.Answer(counters=await self._metrics.counters(service, environment))
            case calls.ReadVisits(service=service, environment=environment, since=since):
                return calls.Answer(visits=await self._metrics.visits(service, environment, since))
            case calls.ReadUsers(service=service, environment=environment, salt=salt, goal=goal):
                return calls.Answer(users=await self._metrics.users(service, environment, salt, goal))
            case calls.ReadRefused(service=service, environment=environment):
                return calls.Answer(refused=await self._metrics.refused(service, environment))
            case calls.ReadLed(service=service, environment=environment):
                return calls.Answer(led=await self._metrics.led(service, environment))
            case calls.ReadCount(metric=metric, release=release):
                return calls.Answer(count=await self._platform.count(metric, release))
            case calls.StopEverything():
                return await self._stop_everything()
            case _:
                return await self._change(call)

    async def _stop_everything(self) -> calls.Answer:
        self._at_rest = True
        async with self._scaling:  # a look that goes on now might start the proxy again
            try:
                await self._platform.stop()
            finally:  # told to stop as well, whatever became of the first
                await self._router.stop()
        return calls.Answer()

    # --- changes, behind the fences --------------------------------------------------------------------

    async def _change(
        self, call: calls.Place | calls.Scale | calls.Remove | calls.ApplyTraffic
    ) -> calls.Answer:
        self._at_rest = False
        match call:
            case calls.Place(workload=workload, fence=fence):
                _check_fits(fence, f"{workload.service}/{workload.environment}")
                return await self._fenced(fence, workload.release, lambda: self._place(call))
            case calls.Scale(release=release, fence=fence):
                return await self._fenced(fence, release, lambda: self._scale(call))
            case calls.Remove(release=release, fence=fence):
                return await self._fenced(fence, release, lambda: self._remove(release, fence))
            case calls.ApplyTraffic(plan=plan, fence=fence):
                _check_fits(fence, f"{plan.service}/{plan.environment}")
                return await self._fenced(fence, None, lambda: self._apply(call))

    async def _fenced(
        self, fence: Fence, release: str | None, effect: Callable[[], Awaitable[calls.Answer]]
    ) -> calls.Answer:
        # Checks and effect under one lock: a stale call that waited must find itself stale.
        async with self._locks.setdefault(fence.scope, asyncio.Lock()):
            if release is not None:
                self._check_owner(release, fence)
            self._fences.pass_through(fence)
            return await effect()

    def _check_owner(self, release: str, fence: Fence) -> None:
        scope = self._scopes.get(release, fence.scope)
        if scope != fence.scope:
            raise Conflict(f"{release} belongs to {scope}, the fence to {fence.scope}", where=release)

    async def _place(self, call: calls.Place) -> calls.Answer:
        # Before the effect: what runs must never be without an owner.
        if call.workload.release not in self._scopes:
            self._keep_scopes({**self._scopes, call.workload.release: call.fence.scope})
        return calls.Answer(placement=await self._platform.place(call.workload, fence=call.fence))

    async def _scale(self, call: calls.Scale) -> calls.Answer:
        placement = await self._platform.scale(call.release, call.replicas, fence=call.fence, then=call.then)
        return calls.Answer(placement=placement)

    async def _remove(self, release: str, fence: Fence) -> calls.Answer:
        await self._platform.remove(release, fence=fence)
        self._keep_scopes({name: scope for name, scope in self._scopes.items() if name != release})
        return calls.Answer()

    async def _apply(self, call: calls.ApplyTraffic) -> calls.Answer:
        return calls.Answer(traffic=await self._router.apply(call.plan, fence=call.fence))

    def _keep_scopes(self, scopes: dict[str, str]) -> None:
        write_record(self._folder / "scopes.json", scopes)
        self._scopes = scopes

    # --- tending -------------------------------------------------------------------------------------

    async def _tend(self, driver: Tended) -> None:
        while True:
            try:
                await driver.tend()
            except Exception as error:  # one driver's trouble must not end the other's care
                self._complain(f"{type(driver).__name__}: {error}")
            await asyncio.sleep(TEND_SECONDS)

    async def _scale_all(self) -> None:
        """Look at every service whose number of copies may change, each by itself."""
        while True:
            async with self._scaling:
                scopes = {} if self._at_rest else await self._of_changing_number()
                await asyncio.gather(*(self._scale_in(scope, names) for scope, names in scopes.items()))
            await asyncio.sleep(LOOK_SECONDS)

    async def _of_changing_number(self) -> dict[str, list[str]]:
        """Releases by scope."""
        scopes: dict[str, list[str]] = {}
        for release, scope in self._scopes.items():
            placement = await self._platform.observe(release)
            if placement and (placement.elastic or placement.asked < len(placement.instances)):
                scopes.setdefault(scope, []).append(release)
        return scopes

    async def _scale_in(self, scope: str, releases: Collection[str]) -> None:
        lock = self._locks.setdefault(scope, asyncio.Lock())
        if lock.locked():
            return  # a delivery is at work: the next look will do
        try:
            async with lock:
                fence = Fence(scope, self._fences.seen(scope), "scaling")
                await self._scaler.look(fence, releases)
        except Exception as error:  # one service's trouble must not end the others' care
            self._complain(f"scaling {scope}: {error}")

    def _complain(self, message: str) -> None:
        now = time.monotonic()
        recent = {said: at for said, at in self._complained.items() if now < at + REPEAT_SECONDS}
        if message not in recent:
            log.error("%s", message.replace("\n", " "))
        self._complained = {message: now, **recent}

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        path = self._folder / "agent.lock"
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                pid = file.read() or "?"
                raise Conflict(
                    f"a node agent is at work here already (pid {pid})", where=str(path)
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer is our own user (or root), where the system can tell."""
    raw = writer.get_extra_info("socket")
    if raw is None or not hasattr(socket, "SO_PEERCRED"):
        return True  # the socket's mode is what remains
    credentials = raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.getuid())


def _check_fits(fence: Fence, scope: str) -> None:
    if fence.scope != scope:
        raise Conflict(f"a fence for {fence.scope}", where=scope)


def _parsed(line: bytes) -> calls.Call:
    try:
        return decode(calls.Envelope, {"call": json.loads(line)}, "").call
    except (ValueError, RecursionError) as error:
        raise Invalid(f"not a call: {error}") from error


def _bounded(answer: bytes) -> bytes:
    if len(answer) <= LINE_BYTES:
        return answer
    problem = f"an answer of {len(answer)} bytes; at most {LINE_BYTES}"
    return _line(_failed(Invalid(problem, next_move="ask for less")))


def _failed(error: PenstockError) -> dict[str, Any]:
    return {"error": error.to_wire()}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
