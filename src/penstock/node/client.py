"""The control plane's side of the node agent: the same ports, over its socket.

Bootstrap hands these out as `Platform`, `Router` and `Metrics`. The only sign that the driver is in another
process is `Unavailable` when that process is gone.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from penstock.core import nodecalls as calls
from penstock.core.admission import Refused
from penstock.core.canary import Count
from penstock.core.canaryconfig import Metric
from penstock.core.codec import decode, encode
from penstock.core.experiment import Goal, Users
from penstock.core.fence import Fence
from penstock.core.traffic import Counters, Led, TrafficPlan, TrafficState, Visit
from penstock.core.workload import MOST_DRAIN, Afterwards, Placement, Workload
from penstock.errors import Broken, Invalid, Unavailable, from_wire
from penstock.node.agent import LINE_BYTES

READ_SECONDS = 10.0
CHANGE_SECONDS = 60.0
#: What ends an instance, or takes it out of the proxy, may have to wait for what is in flight.
END_SECONDS = CHANGE_SECONDS + MOST_DRAIN


class NodeClient:
    """One connection for each call: the agent may be another process by the next one."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def ask(self, call: calls.Call, seconds: float) -> calls.Answer:
        line = json.dumps(encode(call)).encode() + b"\n"
        if len(line) > LINE_BYTES:  # the agent would hang up on it, and that looks like an outage
            raise Invalid(f"a call of {len(line)} bytes; at most {LINE_BYTES}", where=call.kind)
        try:
            async with asyncio.timeout(seconds):
                raw = await self._exchange(line)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise Unavailable(
                f"the node agent does not answer: {error or type(error).__name__}",
                where=str(self._socket),
                next_move="penstock up starts it; its log is log/node.log in the data folder",
            ) from error
        answer = json.loads(raw)
        if "error" in answer:
            raise from_wire(answer["error"])
        return decode(calls.Answer, answer["ok"], "node agent")

    async def _exchange(self, line: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=LINE_BYTES)
        try:
            writer.write(line)
            await writer.drain()
            return await reader.readuntil(b"\n")
        finally:
            writer.close()

    async def stop_everything(self) -> None:
        """End workloads and proxy; everything stays on record for the next start."""
        await self.ask(calls.StopEverything("stop-everything"), CHANGE_SECONDS)


class NodePlatform:
    def __init__(self, client: NodeClient) -> None:
        self._client = client

    async def place(self, workload: Workload, *, fence: Fence) -> Placement:
        return _placed(await self._client.ask(calls.Place("place", workload, fence), CHANGE_SECONDS))

    async def observe(self, release: str) -> Placement | None:
        return (await self._client.ask(calls.Observe("observe", release), READ_SECONDS)).placement

    async def scale(self, release: str, replicas: int, *, fence: Fence, then: Afterwards = ()) -> Placement:
        call = calls.Scale("scale", release, replicas, fence, then)
        return _placed(await self._client.ask(call, END_SECONDS))

    async def remove(self, release: str, *, fence: Fence) -> None:
        await self._client.ask(calls.Remove("remove", release, fence), END_SECONDS)

    async def logs(self, release: str, lines: int) -> tuple[str, ...]:
        return (await self._client.ask(calls.Logs("logs", release, lines), READ_SECONDS)).lines or ()


class NodeRouter:
    def __init__(self, client: NodeClient) -> None:
        self._client = client

    async def read(self, service: str, environment: str) -> TrafficState:
        call = calls.ReadTraffic("read-traffic", service, environment)
        return _traffic(await self._client.ask(call, READ_SECONDS))

    async def apply(self, plan: TrafficPlan, *, fence: Fence) -> TrafficState:
        return _traffic(await self._client.ask(calls.ApplyTraffic("apply-traffic", plan, fence), END_SECONDS))


class NodeMetrics:
    def __init__(self, client: NodeClient) -> None:
        self._client = client

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        call = calls.ReadCounters("read-counters", service, environment)
        return (await self._client.ask(call, READ_SECONDS)).counters or ()

    async def visits(self, service: str, environment: str, since: float) -> tuple[Visit, ...]:
        call = calls.ReadVisits("read-visits", service, environment, since)
        return (await self._client.ask(call, READ_SECONDS)).visits or ()

    async def users(self, service: str, environment: str, salt: str, goal: Goal) -> Users:
        answer = await self._client.ask(
            calls.ReadUsers("read-users", service, environment, salt, goal), READ_SECONDS
        )
        if answer.users is None:
            raise Broken("the node agent answered without users")
        return answer.users

    async def refused(self, service: str, environment: str) -> tuple[Refused, ...]:
        call = calls.ReadRefused("read-refused", service, environment)
        return (await self._client.ask(call, READ_SECONDS)).refused or ()

    async def led(self, service: str, environment: str) -> tuple[Led, ...]:
        call = calls.ReadLed("read-led", service, environment)
        return (await self._client.ask(call, READ_SECONDS)).led or ()


class NodeMeter:
    """Counts what the copies of a release say of themselves, or have written: each can only speak for its own
    release, for it is the agent that asks it."""

    def __init__(self, client: NodeClient) -> None:
        self._client = client

    async def count(self, metric: Metric, service: str, environment: str, release: str) -> Count | None:
        return (await self._client.ask(calls.ReadCount("read-count", metric, release), READ_SECONDS)).count


def _placed(answer: calls.Answer) -> Placement:
    if answer.placement is None:
        raise Broken("the node agent answered without a placement")
    return answer.placement


def _traffic(answer: calls.Answer) -> TrafficState:
    if answer.traffic is None:
        raise Broken("the node agent answered without traffic")
    return answer.traffic
