"""What every `Platform` must do. Subclass `PlatformContract` and give it a fixture ``subject``.

Must not know which platform it tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from penstock.core.admission import Admission, Breakers
from penstock.core.fence import Fence
from penstock.core.workload import Later, Limits, Liveness, Phase, Placement, Scaling, Workload
from penstock.errors import Invalid
from penstock.node.scaler import Resizable
from penstock.ports import Platform

FENCE = Fence("web/production", 1, "key")
SECONDS = 30.0


@dataclass(frozen=True)
class Subject:
    """A platform and the world around it.

    *artifact* is the digest of an image whose *program* (`fakes.image`) takes one word. *tend* gives the
    platform a moment of care; *ask* asks the instance at an address for a path, over HTTP. A release finds
    its callees at URLs that begin with *neighbours*.
    """

    platform: Platform
    artifact: str
    tend: Callable[[], Awaitable[None]]
    ask: Callable[[str, str], Awaitable[str]]
    neighbours: str = "http://127.0.0.1:"
    placed: set[str] = field(default_factory=set)
    program: tuple[str, ...] = ("python3", "/app/program.py")

    async def place(
        self,
        life: str,
        *,
        replicas: int = 1,
        start_seconds: float = SECONDS,
        release: str = "web-1",
        begin_with: int = 0,
        most: int = 0,
        cpu: int | None = None,
    ) -> Placement:
        """Place a release that is asked at ``/live`` whether it lives. With *cpu* it follows its processors,
        else its requests."""
        self.placed.add(release)
        workload = Workload(
            service="web",
            environment="production",
            release=release,
            artifact=self.artifact,
            command=(*self.program, life),
            env={"COLOUR": "blue", "TOKEN": "sesame-open"},
            secrets=("sesame-open",),
            calls=("price-list",),
            health_path="/health",
            replicas=replicas,
            start_seconds=start_seconds,
            liveness=Liveness("/live", every=0.1, timeout=0.5, failures=2),
            drain_seconds=1.0,
            limits=Limits(memory_mb=200, cpus=0.5, open_files=256),
            admission=Admission(callers=("cart",)),
            breakers=Breakers(requests=9),
            begin_with=begin_with,
            scaling=Scaling(most, 0 if cpu else 10, cpu),
        )
        return await self.platform.place(workload, fence=FENCE)

    async def until(self, wanted: Callable[[Placement], bool], release: str = "web-1") -> Placement:
        """Tend until the release is as wanted; an assertion after `SECONDS`."""
        found = await self.platform.observe(release)
        try:
            async with asyncio.timeout(SECONDS):
                while found is None or not wanted(found):
                    await self.tend()
                    await asyncio.sleep(0.01)
                    found = await self.platform.observe(release)
        except TimeoutError:
            raise AssertionError(f"not as wanted after {SECONDS} s: {found}") from None
        return found

    async def spoke_before_it_failed(self, release: str) -> tuple[bool, Placement]:
        """(whether its greeting could be read before it was given up, what was told then)."""
        spoke = False
        async with asyncio.timeout(SECONDS):
            while True:
                spoke = spoke or "hello from the workload" in await self.platform.logs(release, 9)
                found = await self.platform.observe(release)
                if found is not None and found.failed:
                    return spoke, found
                await self.tend()
                await asyncio.sleep(0.01)

    async def gone(self, address: str) -> None:
        """Tend until nobody answers there; an assertion after `SECONDS`."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(SECONDS):
                while await self.ask(address, "/"):
                    await self.tend()
                    await asyncio.sleep(0.01)

    async def remove_all(self) -> None:
        for release in self.placed:
            await self.platform.remove(release, fence=FENCE)


class PlatformContract:
    async def test_what_the_proxy_is_to_know_is_handed_on(self, subject: Subject) -> None:
        backend = (await subject.place("serve")).backend
        assert (backend.admission, backend.breakers) == (Admission(callers=("cart",)), Breakers(requests=9))

    async def test_what_is_placed_becomes_ready(self, subject: Subject) -> None:
        placed = await subject.place("serve")
        assert placed.release == "web-1"
        assert [instance.phase for instance in placed.instances] == [Phase.STARTING]
        ready = await subject.until(lambda p: p.ready)
        assert ready.backend.addresses == tuple(i.address for i in ready.instances)
        assert ready.backend.health_path == "/health"
        assert [egress.callee for egress in ready.egress] == ["price-list"]
        assert await subject.ask(ready.instances[0].address, "/")

    async def test_what_is_placed_twice_is_placed_once(self, subject: Subject) -> None:
        await subject.place("serve")
        first = await subject.until(lambda p: p.ready)
        assert await subject.place("serve") == first

    async def test_what_is_not_placed_is_not_there(self, subject: Subject) -> None:
        assert await subject.platform.observe("web-9") is None
        assert await subject.platform.logs("web-9", 10) == ()
        await subject.platform.remove("web-9", fence=FENCE)
        with pytest.raises(Invalid):
            await subject.platform.scale("web-9", 2, fence=FENCE)

    async def test_it_grows_and_shrinks(self, subject: Subject) -> None:
        await subject.place("serve", replicas=2)
        two = await subject.until(lambda p: p.ready)
        assert len({instance.address for instance in two.instances}) == 2
        assert len((await subject.platform.scale("web-1", 3, fence=FENCE)).instances) == 3
        three = await subject.until(lambda p: p.ready)
        assert three.instances[:2] == two.instances
        one = await subject.platform.scale("web-1", 1, fence=FENCE)
        assert one.instances == two.instances[:1]
        assert await subject.ask(one.instances[0].address, "/")
        with pytest.raises(ConnectionError):
            await subject.ask(three.instances[2].address, "/")

    async def test_it_begins_with_what_it_needs(self, subject: Subject) -> None:
        placed = await subject.place("serve", replicas=4, begin_with=1, most=6)
        assert (len(placed.instances), placed.asked, placed.full, placed.most) == (1, 1, 4, 6)
        ready = await subject.until(lambda p: p.ready)
        assert (ready.able, ready.backend.elastic) == (1, True)
        grown = await subject.platform.scale("web-1", 2, fence=FENCE)
        assert (len(grown.instances), grown.asked, grown.able) == (2, 2, 1)

    async def test_one_that_follows_its_processors_has_what_is_asked_for(self, subject: Subject) -> None:
        placed = await subject.place("serve", replicas=2, most=4, cpu=50)
        assert (len(placed.instances), placed.asked, placed.most) == (2, 2, 4)
        assert "scaling.in_flight" not in placed.advisory, "that was not declared"
        assert len((await subject.platform.scale("web-1", 3, fence=FENCE)).instances) == 3
        await subject.until(lambda p: p.able == 3)
        assert (await subject.platform.scale("web-1", 1, fence=FENCE)).asked == 1
        none = await subject.platform.scale("web-1", 0, fence=FENCE)
        assert (none.instances, none.asked) == ((), 0)
        assert len((await subject.platform.scale("web-1", 2, fence=FENCE)).instances) == 2
        await subject.until(lambda p: p.able == 2)

    async def test_one_copy_that_never_changes_is_not_elastic(self, subject: Subject) -> None:
        assert not (await subject.place("serve")).backend.elastic

    async def test_what_is_asked_for_later_holds_later(self, subject: Subject) -> None:
        await subject.place("serve", replicas=2)
        await subject.until(lambda p: p.ready)
        then = (Later(1, 2.0), Later(0, 4.0))
        said = await subject.platform.scale("web-1", 2, fence=FENCE, then=then)
        assert (said.asked, said.later) == (2, then)
        one = await subject.until(lambda p: p.asked == 1)
        assert one.later == (Later(0, 4.0),)
        assert len(one.instances) == 2, "whoever knows the proxy takes them away"
        none = await subject.until(lambda p: p.asked == 0)
        assert (len(none.instances), none.later) == (2, ())

    async def test_what_is_asked_for_later_can_be_taken_back(self, subject: Subject) -> None:
        await subject.place("serve", replicas=2)
        await subject.until(lambda p: p.ready)
        for _ in range(2):  # said again, it is the same
            said = await subject.platform.scale("web-1", 2, fence=FENCE, then=(Later(1, 1000.0),))
            assert said.later == (Later(1, 1000.0),)
        assert (await subject.platform.scale("web-1", 2, fence=FENCE)).later == ()

    async def test_what_is_removed_is_gone(self, subject: Subject) -> None:
        await subject.place("serve")
        ready = await subject.until(lambda p: p.ready)
        for _ in range(2):
            await subject.platform.remove("web-1", fence=FENCE)
            assert await subject.platform.observe("web-1") is None
        with pytest.raises(ConnectionError):
            await subject.ask(ready.instances[0].address, "/")

    async def test_releases_live_side_by_side(self, subject: Subject) -> None:
        await subject.place("serve")
        await subject.place("serve", release="web-2")
        await subject.until(lambda p: p.ready)
        other = await subject.until(lambda p: p.ready, "web-2")
        await subject.platform.remove("web-1", fence=FENCE)
        assert await subject.ask(other.instances[0].address, "/")
        assert await subject.platform.observe("web-2") == other

    async def test_a_failing_command_fails_with_its_own_words(self, subject: Subject) -> None:
        await subject.place("fail")
        failed = await subject.until(lambda p: p.failed)
        assert not failed.ready
        assert failed.instances[0].exit_code == 3
        assert failed.instances[0].restarts > 0
        assert "exit code 3" in failed.reason
        assert "cannot go on" in failed.reason

    async def test_what_never_listens_fails_with_a_reason(self, subject: Subject) -> None:
        spoke = False
        for seconds in (1.0, 4.0, 16.0):  # a busy machine may need longer than that to start a program
            release = f"web-{seconds:g}"
            await subject.place("deaf", start_seconds=seconds, release=release)
            spoke, failed = await subject.spoke_before_it_failed(release)
            assert f"not ready after {seconds:g} s" in failed.reason
            if spoke:
                assert "hello from the workload" in failed.reason
                break
        assert spoke

    async def test_what_failed_is_started_once_more_when_asked_for_again(self, subject: Subject) -> None:
        await subject.place("deaf", start_seconds=0.5)
        await subject.until(lambda p: p.failed)
        again = await subject.place("deaf", start_seconds=0.5)
        assert not again.failed
        await subject.until(lambda p: p.failed)

    async def test_its_last_lines_can_be_read(self, subject: Subject) -> None:
        await subject.place("fail")
        await subject.until(lambda p: p.failed)
        assert (await subject.platform.logs("web-1", 1))[-1:] == ("cannot go on",)
        assert len(await subject.platform.logs("web-1", 3)) == 3

    async def test_it_is_told_what_it_needs(self, subject: Subject) -> None:
        await subject.place("serve")
        ready = await subject.until(lambda p: p.ready)
        told = json.loads(await subject.ask(ready.instances[0].address, "/env"))
        assert told["COLOUR"] == "blue"
        assert told["HOST"]
        assert told["PORT"].isdigit()
        assert told["PRICE_LIST_URL"].startswith(subject.neighbours)

    async def test_what_crashes_is_started_again(self, subject: Subject) -> None:
        await subject.place("serve")
        ready = await subject.until(lambda p: p.ready)
        assert ready.instances[0].restarts == 0
        await ignoring(subject.ask(ready.instances[0].address, "/crash"))
        again = await subject.until(lambda p: p.ready and p.instances[0].restarts > 0)
        assert (again.instances[0].restarts, again.instances[0].exit_code) == (1, 3)
        assert await subject.ask(again.instances[0].address, "/")

    async def test_what_hangs_is_started_again(self, subject: Subject) -> None:
        await subject.place("serve", replicas=2)
        ready = await subject.until(lambda p: p.ready)
        await ignoring(subject.ask(ready.instances[0].address, "/hang"))
        again = await subject.until(lambda p: p.ready and p.instances[0].restarts > 0)
        assert again.reason.startswith("did not answer, asked 2 times at /live, and was ended")
        assert "hello from the workload" in again.reason
        assert again.instances[1] == ready.instances[1]
        assert await subject.ask(again.instances[0].address, "/")

    async def test_what_crashes_again_and_again_is_told(self, subject: Subject) -> None:
        await subject.place("serve")
        for number in range(1, 4):
            ready = await subject.until(lambda p, n=number: p.ready and p.instances[0].restarts == n - 1)
            assert (ready.crash_looping, ready.unrest) == (False, "")
            await ignoring(subject.ask(ready.instances[0].address, "/crash"))
        looping = await subject.until(lambda p: p.crash_looping)
        assert not looping.failed, "what once served is not given up"
        assert looping.unrest == "keeps ending: exit 3, 3 times in the last minute"
        assert "exit code 3" in looping.reason

    async def test_what_will_not_end_is_killed_at_the_limit_and_that_is_told(self, subject: Subject) -> None:
        await subject.place("stubborn", replicas=2)
        ready = await subject.until(lambda p: p.ready)
        one = await subject.platform.scale("web-1", 1, fence=FENCE)
        assert one.ready
        none = await subject.platform.scale("web-1", 0, fence=FENCE)
        assert none.instances == ()
        assert none.reason == "web-1: instance 0 was still at work 1 s after SIGTERM, and was killed"
        for instance in ready.instances:
            with pytest.raises(ConnectionError):
                await subject.ask(instance.address, "/")

    async def test_what_uses_too_much_memory_is_ended_and_that_is_told(self, subject: Subject) -> None:
        await subject.place("serve")
        ready = await subject.until(lambda p: p.ready)
        assert set(ready.advisory) <= {"memory_mb", "cpus", "open_files", "scaling.in_flight"}
        await ignoring(subject.ask(ready.instances[0].address, "/eat"))
        again = await subject.until(lambda p: p.ready and p.instances[0].restarts > 0)
        assert again.reason.startswith("out of memory: it used ")
        assert "its limit is 200 MB" in again.reason

    async def test_its_secrets_are_not_shown_in_what_it_wrote(self, subject: Subject) -> None:
        await subject.place("fail")
        failed = await subject.until(lambda p: p.failed)
        written = await subject.platform.logs("web-1", 100)
        assert "its token is ***" in written
        assert "its token is ***" in failed.reason
        assert "sesame" not in "".join((*written, failed.reason))


class LocalContract:
    """What a platform must do besides, whose copies the node agent counts."""

    async def test_load_may_add_copies_within_bounds(self, subject: Subject) -> None:
        platform = cast("Resizable", subject.platform)
        await subject.place("serve", replicas=2, most=3)
        two = await subject.until(lambda p: p.ready)
        grown = await platform.resize("web-1", 9)
        assert (len(grown.instances), grown.asked) == (3, 2)
        three = await subject.until(lambda p: p.ready)
        assert await subject.ask(three.instances[2].address, "/")
        assert (await platform.resize("web-1", 0)).instances == two.instances
        await subject.gone(three.instances[2].address)


async def ignoring(asking: Awaitable[str]) -> None:
    """What is asked to crash may well not answer."""
    try:
        await asking
    except OSError:
        return
