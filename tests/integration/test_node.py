"""The node agent over a real socket: who may still write, what is not a call, and what survives a restart."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.node import agent_at
from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from penstock.core.codec import encode
from penstock.core.fence import Fence
from penstock.core.nodecalls import Place
from penstock.core.traffic import Backend, TrafficPlan, Weight
from penstock.core.workload import Placement, Workload
from penstock.errors import Broken, Conflict, Invalid, PenstockError, Refused, Unavailable, from_wire
from penstock.node.agent import LINE_BYTES
from penstock.node.client import NodeClient, NodeMetrics, NodePlatform, NodeRouter

SCOPE = "web/production"
ARTIFACT = "sha256:" + "0" * 64


def fence(number: int, scope: str = SCOPE) -> Fence:
    return Fence(scope, number, f"key-{number}")


def workload(release: str, service: str = "web") -> Workload:
    return Workload(service, "production", release, ARTIFACT, ("serve",))


@pytest.fixture
def platform() -> FakePlatform:
    return FakePlatform()


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture
async def client(short_tmp: Path, platform: FakePlatform, router: FakeRouter) -> AsyncIterator[NodeClient]:
    async with agent_at(short_tmp / "n", platform, router) as client:
        yield client


async def test_every_call_gives_what_the_driver_gives(
    client: NodeClient, platform: FakePlatform, router: FakeRouter
) -> None:
    node, traffic = NodePlatform(client), NodeRouter(client)
    placed = await node.place(workload("web-1"), fence=fence(1))
    assert (placed.release, len(placed.instances)) == ("web-1", 1)
    assert (await node.scale("web-1", 0, fence=fence(2))).instances == ()
    assert await node.observe("web-1") == await platform.observe("web-1")
    assert await node.logs("web-1", 9) == await platform.logs("web-1", 9) != ()

    router.up.add("unix:/up")
    plan = TrafficPlan("web", "production", (Backend("web-1", ("unix:/up",)),), (Weight("web-1", 1000),))
    state = await traffic.apply(plan, fence=fence(3))
    assert state == await traffic.read("web", "production") == await router.read("web", "production")
    assert router.applied == [plan]
    (counted,) = await NodeMetrics(client).counters("web", "production")
    assert counted.release == "web-1"

    await node.remove("web-1", fence=fence(4))
    assert await node.observe("web-1") is await platform.observe("web-1") is None
    assert [f.number for f in (*platform.fences, *router.fences)] == [1, 2, 4, 3]


# --- fences ------------------------------------------------------------------------------------------


async def test_a_lower_fence_is_refused_by_every_change(client: NodeClient, platform: FakePlatform) -> None:
    node, traffic = NodePlatform(client), NodeRouter(client)
    await node.place(workload("web-1"), fence=fence(5))
    plan = TrafficPlan("web", "production", (), ())
    for stale in (
        node.place(workload("web-2"), fence=fence(4)),
        node.scale("web-1", 3, fence=fence(4)),
        node.remove("web-1", fence=fence(4)),
        traffic.apply(plan, fence=fence(4)),
    ):
        with pytest.raises(Conflict, match="4 is stale: 5"):
            await stale
    assert [f.number for f in platform.fences] == [5]
    await node.scale("web-1", 2, fence=fence(5))
    await node.remove("web-1", fence=fence(6))


async def test_fences_of_another_scope_do_not_count(client: NodeClient) -> None:
    node = NodePlatform(client)
    await node.place(workload("web-1"), fence=fence(5))
    placed = await node.place(workload("shop-1", "shop"), fence=fence(1, "shop/production"))
    assert placed.release == "shop-1"


async def test_a_fence_opens_its_own_scope_only(client: NodeClient, platform: FakePlatform) -> None:
    node = NodePlatform(client)
    await node.place(workload("web-1"), fence=fence(5))
    other = fence(9, "shop/production")
    for foreign in (
        node.place(workload("web-2"), fence=other),
        node.scale("web-1", 3, fence=other),
        node.remove("web-1", fence=other),
        NodeRouter(client).apply(TrafficPlan("web", "production", (), ()), fence=other),
    ):
        with pytest.raises(Conflict):
            await foreign
    assert [f.number for f in platform.fences] == [5]


class SlowPlatform(FakePlatform):
    """What changes it takes until *go* is set."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def place(self, workload: Workload, *, fence: Fence) -> Placement:
        self.begun.set()
        await self.go.wait()
        return await super().place(workload, fence=fence)

    async def remove(self, release: str, *, fence: Fence) -> None:
        self.begun.set()
        await self.go.wait()
        await super().remove(release, fence=fence)


async def test_a_call_that_waited_finds_itself_stale(short_tmp: Path, router: FakeRouter) -> None:
    slow = SlowPlatform()
    async with agent_at(short_tmp / "n", slow, router) as client, asyncio.timeout(30):
        node = NodePlatform(client)
        first = asyncio.create_task(node.place(workload("web-1"), fence=fence(5)))
        await slow.begun.wait()
        newer = asyncio.create_task(node.place(workload("web-2"), fence=fence(6)))
        # One after the other on the socket, so that the stale one waits behind the newer one.
        await waiting_behind(client, newer)
        stale = asyncio.create_task(node.place(workload("web-3"), fence=fence(5)))
        await waiting_behind(client, stale)
        slow.go.set()
        assert (await first).release == "web-1"
        assert (await newer).release == "web-2"
        with pytest.raises(Conflict, match="5 is stale: 6"):
            await stale
        assert await node.observe("web-3") is None


async def waiting_behind(client: NodeClient, call: asyncio.Task[Placement]) -> None:
    """Until the agent has taken *call*: it has answered calls that were sent after it."""
    for _ in range(3):
        await NodePlatform(client).observe("web-9")
    assert not call.done()


async def test_what_is_placed_behind_its_removal_keeps_its_owner(short_tmp: Path, router: FakeRouter) -> None:
    slow = SlowPlatform()
    slow.go.set()
    async with agent_at(short_tmp / "n", slow, router) as client, asyncio.timeout(30):
        node = NodePlatform(client)
        await node.place(workload("web-1"), fence=fence(5))
        slow.begun.clear()
        slow.go.clear()
        removing = asyncio.create_task(node.remove("web-1", fence=fence(5)))
        await slow.begun.wait()
        placing = asyncio.create_task(node.place(workload("web-1"), fence=fence(6)))
        await waiting_behind(client, placing)
        slow.go.set()
        await removing
        await placing
        with pytest.raises(Conflict, match="belongs to web/production"):
            await node.remove("web-1", fence=fence(9, "shop/production"))


async def test_nothing_happens_after_the_agents_end(
    short_tmp: Path, router: FakeRouter, caplog: pytest.LogCaptureFixture
) -> None:
    slow = SlowPlatform()
    async with agent_at(short_tmp / "n", slow, router) as client, asyncio.timeout(30):
        placing = asyncio.create_task(NodePlatform(client).place(workload("web-1"), fence=fence(5)))
        await slow.begun.wait()
    slow.go.set()  # too late: another agent may be at work by now
    with pytest.raises(Unavailable):
        await placing
    assert await slow.observe("web-1") is None
    assert caplog.records == []  # an ordinary end is not an error


async def test_fences_survive_the_agent(short_tmp: Path, platform: FakePlatform, router: FakeRouter) -> None:
    async with agent_at(short_tmp / "n", platform, router) as client:
        await NodePlatform(client).place(workload("web-1"), fence=fence(5))
    async with agent_at(short_tmp / "n", platform, router) as client:
        node = NodePlatform(client)
        with pytest.raises(Conflict, match="4 is stale: 5"):
            await node.remove("web-1", fence=fence(4))
        with pytest.raises(Conflict, match="belongs to"):
            await node.remove("web-1", fence=fence(9, "shop/production"))
        await node.remove("web-1", fence=fence(5))


# --- what is not a call --------------------------------------------------------------------------------

BAD_LINES = {
    "nothing": b"",
    "not JSON": b"hello",
    "not text": b"\xff\xfe",
    "a number": b"1",
    "a list": b"[]",
    "null": b"null",
    "no kind": b"{}",
    "unknown kind": b'{"kind": "shut-down-the-world"}',
    "a field too few": b'{"kind": "observe"}',
    "a field too many": b'{"kind": "observe", "release": "web-1", "force": true}',
    "a wrong type": b'{"kind": "observe", "release": 7}',
    "a plan that is none": b'{"kind": "apply-traffic", "plan": {"service": "web"}, "fence": {}}',
    "deeper than anybody needs": b"[" * 200_000,
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
async def test_what_is_not_a_call_is_invalid(client: NodeClient, short_tmp: Path, line: bytes) -> None:
    good = json.dumps(encode(Place("place", workload("web-1"), fence(1)))).encode()
    bad, after = await say(short_tmp / "n" / "agent.sock", line + b"\n", good + b"\n")
    assert isinstance(error_in(bad), Invalid)
    assert b'"ok"' in after  # the same connection goes on


async def test_a_call_too_long_is_invalid(client: NodeClient, short_tmp: Path) -> None:
    (answer,) = await say(short_tmp / "n" / "agent.sock", b"x" * (LINE_BYTES + 1))
    assert isinstance(error_in(answer), Invalid)
    assert await NodePlatform(client).observe("web-1") is None


async def test_our_own_side_refuses_a_call_too_long(client: NodeClient) -> None:
    huge = Workload("web", "production", "web-1", ARTIFACT, (), {"BIG": "x" * (2 * LINE_BYTES)})
    with pytest.raises(Invalid):
        await NodePlatform(client).place(huge, fence=fence(1))


async def test_errors_keep_their_word_on_the_way(client: NodeClient, router: FakeRouter) -> None:
    with pytest.raises(Invalid, match="web-9 is not placed"):
        await NodePlatform(client).scale("web-9", 1, fence=fence(1))
    dead = TrafficPlan("web", "production", (Backend("web-1", ("unix:/dead",)),), (Weight("web-1", 1000),))
    with pytest.raises(Unavailable, match="no traffic was moved"):
        await NodeRouter(client).apply(dead, fence=fence(1))


async def test_an_unknown_call_is_told_the_known_ones(client: NodeClient, short_tmp: Path) -> None:
    (answer,) = await say(short_tmp / "n" / "agent.sock", b'{"kind": "shut-down-the-world"}\n')
    assert "'apply-traffic'" in error_in(answer).what


class ClumsyPlatform(FakePlatform):
    """Has a defect in `observe`, and too much to say in `logs`."""

    async def observe(self, release: str) -> Placement | None:
        raise ValueError("a defect")

    async def logs(self, release: str, lines: int) -> tuple[str, ...]:
        return ("x" * 1024,) * lines


async def test_a_drivers_defect_is_not_the_callers(short_tmp: Path, router: FakeRouter) -> None:
    async with agent_at(short_tmp / "n", ClumsyPlatform(), router) as client:
        with pytest.raises(Broken, match="a defect"):
            await NodePlatform(client).observe("web-1")


async def test_an_answer_too_long_is_told(short_tmp: Path, router: FakeRouter) -> None:
    async with agent_at(short_tmp / "n", ClumsyPlatform(), router) as client:
        node = NodePlatform(client)
        with pytest.raises(Invalid, match="an answer of"):
            await node.logs("web-1", 5000)
        assert len(await node.logs("web-1", 3000)) == 3000


async def test_no_agent_is_unavailable(short_tmp: Path) -> None:
    with pytest.raises(Unavailable) as raised:
        await NodePlatform(NodeClient(short_tmp / "agent.sock")).observe("web-1")
    assert raised.value.next_move


# --- the agent itself ----------------------------------------------------------------------------------


async def test_one_folder_has_one_agent(client: NodeClient, short_tmp: Path) -> None:
    with pytest.raises(Conflict, match="at work here already"):
        async with agent_at(short_tmp / "n", FakePlatform(), FakeRouter()):
            pass
    assert await NodePlatform(client).observe("web-1") is None  # the first one still answers


async def test_the_socket_is_for_its_user_alone(client: NodeClient, short_tmp: Path) -> None:
    assert (short_tmp / "n" / "agent.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to become somebody else")
async def test_another_user_is_refused(client: NodeClient, short_tmp: Path) -> None:
    """Also where the socket's mode would let them in: the kernel says who asks."""
    socket = short_tmp / "n" / "agent.sock"
    for path, mode in ((short_tmp, 0o711), (socket.parent, 0o711), (socket, 0o666)):
        path.chmod(mode)
    os.seteuid(65534)
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    finally:
        os.seteuid(0)
    try:
        async with asyncio.timeout(30):
            assert isinstance(error_in(await reader.readline()), Refused)
            assert await reader.read() == b""
    finally:
        writer.close()


class TroubledRouter(FakeRouter):
    """Its care always fails, and it says so on two lines."""

    async def tend(self) -> None:
        await super().tend()
        raise Unavailable("port taken", next_move="free it")


class TroubledPlatform(FakePlatform):
    """Its care always fails; *tries* counts how often it was tried."""

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    async def tend(self) -> None:
        self.tries += 1
        raise OSError("the disk is full")


async def test_one_drivers_trouble_is_not_the_others(short_tmp: Path, router: FakeRouter) -> None:
    troubled = TroubledPlatform()
    async with agent_at(short_tmp / "n", troubled, router), asyncio.timeout(30):
        while troubled.tries < 3 or router.tended < 3:
            await asyncio.sleep(0.02)


async def test_a_lasting_trouble_is_told_once_in_a_while(
    short_tmp: Path, caplog: pytest.LogCaptureFixture
) -> None:
    platform, router = TroubledPlatform(), TroubledRouter()
    with caplog.at_level(logging.ERROR, "penstock.node.agent"):
        async with agent_at(short_tmp / "n", platform, router), asyncio.timeout(60):
            while platform.tries < 5 or router.tended < 5:
                await asyncio.sleep(0.02)
    told = [record.getMessage() for record in caplog.records]
    assert set(told) == {"TroubledPlatform: the disk is full", "TroubledRouter: port taken   next: free it"}
    assert len(told) < platform.tries


async def test_stop_everything_stops_the_second_if_the_first_cannot(
    short_tmp: Path, router: FakeRouter
) -> None:
    class Stuck(FakePlatform):
        async def stop(self) -> None:
            raise Unavailable("it does not end")

    async with agent_at(short_tmp / "n", Stuck(), router) as client:
        with pytest.raises(Unavailable, match="it does not end"):
            await client.stop_everything()
    assert router.stopped


async def test_stop_everything_stops_both(
    client: NodeClient, platform: FakePlatform, router: FakeRouter
) -> None:
    await client.stop_everything()
    assert (platform.stopped, router.stopped) == (True, True)


async def say(socket: Path, *pieces: bytes) -> list[bytes]:
    """Send pieces over one connection, and read one line for each (less if it is closed)."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_unix_connection(str(socket))
        try:
            answers = []
            for piece in pieces:
                writer.write(piece)
                answers.append(await reader.readline())
            return answers
        finally:
            writer.close()


def error_in(answer: bytes) -> PenstockError:
    return from_wire(json.loads(answer)["error"])
