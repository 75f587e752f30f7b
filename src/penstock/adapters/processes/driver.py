"""Places releases as local processes, and keeps them as they should be.

Called by the node agent, which checks fences and calls `tend` several times a second. Everything that
must survive the agent is in one JSON file for each release; a new driver over the same folder adopts
what runs, and starts what should run and does not (after a reboot: everything).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Collection, Coroutine, Iterator, Sequence
from pathlib import Path

from penstock.adapters.processes.counting import Counting
from penstock.adapters.processes.images import Images
from penstock.adapters.processes.instance import BACKOFF, Runner, free_port
from penstock.adapters.processes.limits import Watch, advisory
from penstock.adapters.processes.listening import not_ready
from penstock.adapters.processes.probes import Probes
from penstock.adapters.processes.record import (
    MAX_CRASHES,
    Place,
    Record,
    as_instance,
    last_words,
    rotate,
)
from penstock.adapters.processes.release import Asked, Release
from penstock.core.canary import Count
from penstock.core.canaryconfig import Metric
from penstock.core.codec import decode, encode
from penstock.core.fence import Fence
from penstock.core.traffic import Egress
from penstock.core.workload import MOST_DRAIN, Afterwards, Isolation, Phase, Placement, Workload
from penstock.errors import Invalid, PenstockError, Unavailable
from penstock.ports import Sandbox

log = logging.getLogger(__name__)

#: How long what is in flight may take if everything is stopped, or if it never served anybody, in seconds.
STOP_SECONDS = 10.0
#: The longest path of a unix socket that every system takes.
SOCKET_PATH = 103


class Processes:
    """Platform on this machine. *folder* is ours alone; *artifacts* is an OCI image layout."""

    def __init__(self, folder: Path, artifacts: Path, sandbox: Sandbox) -> None:
        self._folder = folder
        self._images = Images(artifacts, folder / "images")
        self._runner = Runner(sandbox)
        self._probes = Probes(sandbox.isolation)
        self._watch = Watch()
        self._counting = Counting(sandbox.isolation)
        self._isolation = sandbox.isolation
        self._stopped = False
        self._lock = asyncio.Lock()
        self._locks: dict[str, asyncio.Lock] = {}
        self._leaving: list[Record] = []
        self._unpacking: list[str] = []
        self._background: set[asyncio.Future[None]] = set()
        self._records = folder / "releases"
        self._records.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._releases = {path.stem: self._load(path) for path in sorted(self._records.glob("*.json"))}
        self._looked = time.monotonic()
        self._unsaved: dict[str, Asked] = {}
        known = [(record, self._place(name)) for name, r in self._releases.items() for record in r.everybody]
        self._runner.adopt(known)
        self._interrupted = [release for release in self._releases.values() if release.leaving]

    # --- Platform ------------------------------------------------------------------------------------

    async def place(self, workload: Workload, *, fence: Fence) -> Placement:
        async with self._lock:
            self._stopped = False
        async with self._lock_of(workload.release):
            if workload.release not in self._releases:
                self._check_length(workload.release)
                with self._wanted(workload.artifact):
                    await asyncio.to_thread(self._images.unpack, workload.artifact)
                bare = self._isolation is Isolation.NONE
                egress = tuple(free_port() for _ in workload.calls) if bare else ()
                first = workload.begin_with or workload.replicas
                release = Release(workload, [self._new(n) for n in range(first)], egress, "", Asked(first))
                self._place(workload.release).sockets.joinpath("out").mkdir(parents=True, exist_ok=True)
                self._releases[workload.release] = release
                self._save(release)  # before anything runs: what is started must be on somebody's list
                for record in release.instances:
                    self._start(record, release)
                self._save(release)
            await self._revive(self._releases[workload.release])
            return self._placement(self._releases[workload.release])

    async def _revive(self, release: Release) -> None:
        """Being asked for again, what had been given up gets a new start, and a record of its own: the
        old one may still be on its way out."""
        failed = [record for record in release.instances if record.phase is Phase.FAILED]
        await self._end(failed, release, at_most=STOP_SECONDS)
        for record in failed:
            fresh = Record(record.id, port=record.port)
            release.instances[release.instances.index(record)] = fresh
            self._start(fresh, release)
        if failed:
            self._save(release)

    async def observe(self, release: str) -> Placement | None:
        found = self._releases.get(release)
        return self._placement(found) if found else None

    async def scale(self, release: str, replicas: int, *, fence: Fence, then: Afterwards = ()) -> Placement:
        async with self._lock_of(release):
            found = self._known(release)
            if replicas < 0:
                raise Invalid(f"{replicas} instances", where=release, next_move="ask for 0 or more")
            found.asked = self._unsaved.pop(release, found.wanted).said(replicas, then)
            self._grow(found, replicas)
            surplus = found.take_off(replicas)
            self._save(found)
            await self._let_go(found, surplus)
            return self._placement(found)

    async def resize(self, release: str, count: int) -> Placement:
        """As many copies as load needs: at least those asked for, at most what is allowed. Those too many are
        told to end, and nobody waits for that."""
        async with self._lock_of(release):
            found = self._known(release)
            count = max(found.wanted.replicas, min(count, found.workload.most))
            self._grow(found, count)
            if surplus := found.take_off(count):
                self._in_background(self._let_go(found, surplus))  # also where the disk is full
                self._save(found)
            return self._placement(found)

    def _grow(self, found: Release, replicas: int) -> None:
        grown = []
        while len(found.instances) < replicas:
            record = self._new(max((int(r.id) for r in found.everybody), default=-1) + 1)
            found.instances.append(record)
            grown.append(record)
        self._save(found)
        for record in grown:
            self._start(record, found)
        if grown:
            self._save(found)

    async def _let_go(self, found: Release, records: Collection[Record]) -> None:
        """End instances that leave; on disk they stay until they are gone."""
        await self._end(tuple(records), found)
        found.leaving = [record for record in found.leaving if record not in records]
        if self._releases.get(found.workload.release) is found:
            self._save(found)

    async def remove(self, release: str, *, fence: Fence) -> None:
        async with self._lock_of(release):
            found = self._releases.pop(release, None)
            self._unsaved.pop(release, None)
            self._counting.forget(release)
            if found is None:
                return
            # Forget it on disk last: a crash in between must not leave a process that nobody knows.
            await self._end(found.everybody, found)
            place = self._place(release)
            for folder in (place.sockets, place.logs, place.data):
                shutil.rmtree(folder, ignore_errors=True)
            (self._records / f"{release}.json").unlink(missing_ok=True)
            kept = {kept.workload.artifact for kept in self._releases.values()}
            self._images.keep_only(kept | set(self._unpacking))

    async def logs(self, release: str, lines: int) -> tuple[str, ...]:
        found = self._releases.get(release)
        if found is None or not found.instances or lines < 1:
            return ()
        place, share = self._place(release), math.ceil(lines / len(found.instances))
        return tuple(
            line
            for record in found.instances
            for line in last_words(place, record, found.workload.secrets, share).splitlines()
        )[-lines:]

    async def count(self, metric: Metric, release: str) -> Count | None:
        found = self._releases.get(release)
        if found is None:
            return None
        return await self._counting.count(metric, release, self._place(release), found.instances)

    # --- looked after by the agent -------------------------------------------------------------------

    async def tend(self) -> None:
        # Without an await, so that nothing is removed, scaled or stopped halfway through.
        passed, self._looked = time.monotonic() - self._looked, time.monotonic()
        while self._interrupted:  # whose end an agent before us had begun
            release = self._interrupted.pop()
            self._in_background(self._let_go(release, tuple(release.leaving)))
        for release in () if self._stopped else tuple(self._releases.values()):
            before = encode(release)
            self._pass(release, passed)
            for record in release.instances:
                self._tend(record, release)
            if encode(release) != before:
                self._save(release)

    def _pass(self, release: Release, seconds: float) -> None:
        """Let time pass for what is asked for later; kept now and then, and when it changes something."""
        name, kept = release.workload.release, release.wanted
        if not kept.then:
            return
        now = self._unsaved.get(name, kept).after(seconds)
        self._unsaved[name] = now
        if now.worth_keeping(kept):
            release.asked = self._unsaved.pop(name)

    async def stop(self) -> None:
        """End everything, and remember that it should run: the next agent starts it again."""
        self._stopped = True
        async with self._lock:
            ending = [self._end(r.everybody, r, at_most=STOP_SECONDS) for r in self._releases.values()]
            # Those on their way out are on no list any more, and may take longer than this.
            leaving = [self._runner.stop(record, STOP_SECONDS) for record in self._leaving]
            await asyncio.gather(*ending, *leaving)
            for release in self._releases.values():
                for record in release.instances:
                    if record.phase is Phase.READY:
                        record.phase = Phase.STARTING
                self._save(release)

    async def _end(self, records: Sequence[Record], release: Release, at_most: float = MOST_DRAIN) -> None:
        """End instances, and note which would not end by themselves in time."""
        seconds = min(release.workload.drain_seconds, at_most)
        killed = await asyncio.gather(*(self._stop(record, seconds) for record in records))
        stubborn = [record.id for record, was_killed in zip(records, killed, strict=True) if was_killed]
        if stubborn:
            which = f"{release.workload.release}: instance {', '.join(stubborn)}"
            release.cut = f"{which} was still at work {seconds:g} s after SIGTERM, and was killed"
            log.warning("%s", release.cut)

    async def _stop(self, record: Record, seconds: float) -> bool:
        self._probes.forget(record)
        self._watch.forget(record)
        self._leaving.append(record)
        try:
            return await self._runner.stop(record, seconds)
        finally:
            self._leaving.remove(record)

    def _lock_of(self, release: str) -> asyncio.Lock:
        """Of one release: another's long farewell must keep nobody waiting."""
        return self._locks.setdefault(release, asyncio.Lock())

    @contextlib.contextmanager
    def _wanted(self, artifact: str) -> Iterator[None]:
        """Nobody tidies away what is being unpacked."""
        self._unpacking.append(artifact)
        try:
            yield
        finally:
            self._unpacking.remove(artifact)

    def _tend(self, record: Record, release: Release) -> None:
        place, workload, now = self._place(release.workload.release), release.workload, time.time()
        if record.phase is Phase.FAILED:
            return
        record.started = min(record.started, now)  # the clock may have been set back
        rotate(place, record)
        if not self._runner.alive(record):
            self._restart(record, release, place, now)
        elif record.phase is Phase.STARTING:
            if self._probes.ready(record, place, workload):
                self._probes.forget(record)
                record.phase, record.ready_since, record.served = Phase.READY, now, True
            elif now > record.started + workload.start_seconds and not record.served:
                words = last_words(place, record, workload.secrets)
                record.phase = Phase.FAILED
                port, pids = self._runner.port(record), self._runner.own(record)
                record.reason = f"{not_ready(workload, port, pids)}; its output:\n{words}"
                self._in_background(self._end([record], release, at_most=STOP_SECONDS))
        elif exceeded := self._watch.exceeded(record, workload.limits):
            record.ended_for = exceeded
            self._runner.kill(record)
        elif workload.liveness.path and self._probes.hangs(record, place, workload):
            asked = f"{workload.liveness.failures} times at {workload.liveness.path}"
            record.ended_for = f"did not answer, asked {asked}, and was ended"
            self._runner.kill(record)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _restart(self, record: Record, release: Release, place: Place, now: float) -> None:
        if record.pid:
            self._runner.ended(record, place)
            self._probes.forget(record)
            record.end(now)
            words = last_words(place, record, release.workload.secrets)
            how = record.ended_for or f"ended with exit code {record.exit_code}"
            record.reason = f"{how}; its output:\n{words}"
        # What once served is never given up: what it depends on may come back.
        if record.crashes >= MAX_CRASHES and not record.served:
            record.phase = Phase.FAILED
            return
        if not record.crashes or now >= record.started + BACKOFF[min(record.crashes, len(BACKOFF)) - 1]:
            reason = record.reason
            record.restarts += bool(record.crashes)
            if record.port and record.crashes and not record.served:
                record.port = free_port()  # somebody may listen there since it was chosen
            try:
                self._start(record, release)
                record.reason = reason
            except PenstockError as error:
                # One release's trouble must not keep the others from being tended.
                record.crashes, record.started, record.reason = record.crashes + 1, now, str(error)

    # --- records -----------------------------------------------------------------------------------

    def _new(self, number: int) -> Record:
        """Its port is chosen at once: it must be on record before anything listens there."""
        return Record(str(number), port=free_port() if self._isolation is Isolation.NONE else 0)

    def _start(self, record: Record, release: Release) -> None:
        if self._stopped:
            raise Unavailable("everything is being stopped", where=release.workload.release)
        image = self._images.unpack(release.workload.artifact)
        place = self._place(release.workload.release)
        self._runner.start(record, place, release.workload, image, release.egress)

    def _place(self, release: str) -> Place:
        short = hashlib.sha256(release.encode()).hexdigest()[:8]
        return Place(
            self._folder / "s" / short, self._folder / "logs" / release, self._folder / "data" / release
        )

    def _placement(self, release: Release) -> Placement:
        place = self._place(release.workload.release)
        reasons = [record.reason for record in release.instances if record.reason]
        return Placement(
            release=release.workload.release,
            instances=tuple(as_instance(record, place, self._isolation) for record in release.instances),
            egress=tuple(
                Egress(callee, self._egress(release, place, number))
                for number, callee in enumerate(release.workload.calls)
            ),
            isolation=self._isolation,
            reason=reasons[0] if reasons else release.cut,
            health_path=release.workload.health_path,
            advisory=advisory(release.workload),
            drain_seconds=release.workload.drain_seconds,
            admission=release.workload.admission,
            breakers=release.workload.breakers,
            full=release.workload.replicas,
            asked=release.wanted.replicas,
            later=release.wanted.then,
            most=release.workload.most,
            scaling=release.workload.scaling,
            protocol=release.workload.protocol,
        )

    def _egress(self, release: Release, place: Place, number: int) -> str:
        if self._isolation is Isolation.NONE:
            return f"127.0.0.1:{release.egress[number]}"
        return f"unix:{place.sockets / 'out' / f'{number}.sock'}"

    def _known(self, release: str) -> Release:
        if release not in self._releases:
            known = ", ".join(sorted(self._releases)) or "none"
            raise Invalid(f"{release} is not placed; placed: {known}")
        return self._releases[release]

    def _check_length(self, release: str) -> None:
        longest = str(self._place(release).sockets / "out" / "10.sock.new")
        if len(longest.encode()) > SOCKET_PATH:
            raise Invalid(
                "the folder's path is too long for unix sockets",
                where=longest,
                next_move="use a shorter data folder",
            )

    def _load(self, path: Path) -> Release:
        return decode(Release, json.loads(path.read_text()), path.name)

    def _save(self, release: Release) -> None:
        path = self._records / f"{release.workload.release}.json"
        temporary = path.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(encode(release)))
            temporary.replace(path)
        except OSError as error:
            problem = f"what runs cannot be written down: {error.strerror}"
            raise Unavailable(problem, where=str(path), next_move="free some space") from error
