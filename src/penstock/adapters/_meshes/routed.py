"""A router whose plan is one object of a cluster: what is the same whatever the object is called.

The drivers of `gateway_api` and `istio` subclass `Routed` and say how a plan is written, what an object does,
and what its controller says of it. An object is changed whole and at once, so no order can lose a request;
what is checked first is that every release has all its copies ready. Each write says which version it was
made of and carries our fence; a field that somebody else has changed is never taken back by force.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from penstock.adapters._kubernetes import Client, Kind, Object
from penstock.adapters._kubernetes.failures import Moved
from penstock.adapters._meshes import backends, written
from penstock.adapters._meshes.backends import Reached
from penstock.adapters._meshes.sight import Sight
from penstock.core.fence import Fence
from penstock.core.powers import Power, refuse_beyond
from penstock.core.traffic import BackendState, Handling, Mirror, Rule, TrafficPlan, TrafficState, Weight
from penstock.errors import Conflict, Invalid, Unavailable

#: A controller that has said nothing for so long is looked after: its word may be known to the API alone.
DOUBT_SECONDS = 0.5
#: So often in a row a status may be told between our reading and our writing.
MOST_MOVES = 5


@dataclass(frozen=True)
class Word:
    """What a controller says of a generation of an object: *sure* once nothing is open, why it was *refused*,
    or what is *waited* for."""

    sure: bool
    refused: str = ""
    waits: str = ""


@dataclass(frozen=True)
class Said:
    """What the spec of an object says that a plan could say too."""

    weights: tuple[Weight, ...]
    rules: tuple[Rule, ...]
    mirror: Mirror | None
    handling: Handling


class Routed(ABC):
    """A change that is not confirmed within *seconds* is `Unavailable`. *reach* is where we find the
    gateway, if not where users do."""

    #: What it writes, what it is called in messages, and what it can do besides weights and rules.
    kind: ClassVar[Kind]
    called: ClassVar[str]
    powers: ClassVar[frozenset[Power]]

    def __init__(self, client: Client, seconds: float, reach: str = "") -> None:
        self._client = client
        self._seconds = seconds
        self._reach = reach
        self._sight = Sight(client, self.kind)

    async def check(self) -> None:
        """Raise what would keep everybody from being led: a kind that is not known, a right that is
        missing."""
        await self._sight.check()
        await self._sight.ask(written.object_name("penstock", "check"))

    async def close(self) -> None:
        """Stop watching, and let go of connections."""
        await self._sight.close()
        await self._client.close()

    @abstractmethod
    def _spec(self, plan: TrafficPlan, token: str, ports: Mapping[str, int]) -> Object:
        """How *plan* is written; *ports* are those of Services, as `backends.ports_of` has them."""

    @abstractmethod
    def _said(self, spec: Object, usual: Handling) -> Said:
        """What a spec does, in our words; *usual* has what it does not say."""

    @abstractmethod
    def _word(self, object: Object, generation: int) -> Word:
        """What is known of it by now."""

    @abstractmethod
    async def _address(self, service: str, environment: str) -> str:
        """Where users find a service; "" if that is not known."""

    @abstractmethod
    async def _before(self, plan: TrafficPlan, had: TrafficPlan | None, fence: Fence) -> None:
        """Make what the object will refer to; *had* is what it did so far."""

    async def read(self, service: str, environment: str) -> TrafficState:
        """As the object has it, with what differs from what was asked."""
        found = await self._sight.ask(written.object_name(service, environment))
        if found is None:
            return TrafficState(service, environment)
        asked = written.asked(found, self._where(service, environment))
        return await self._told(found, asked, await self._sight.reached(_hoped(asked)))

    async def _told(self, found: Object, asked: TrafficPlan, known: Mapping[str, Reached]) -> TrafficState:
        """What the object does that was written as *asked*, and how its releases are."""
        token = written.annotation(found, written.TOKEN)
        ours = self._spec(asked, token, backends.ports_of(known))
        changed = written.changed(found, ours)
        states = [backends.state_of(backend, known) for backend in asked.backends]
        state = self._state(found, ours, asked, states, changed)
        address = await self._address(asked.service, asked.environment)
        return replace(state, address=address, reach=self._reach, preview_token=token)

    async def apply(self, plan: TrafficPlan, *, fence: Fence) -> TrafficState:
        """Write, have it confirmed, read back; where it is refused, put back what was there."""
        refuse_beyond(plan, self.powers, self.called)
        backends.check_addresses(plan)
        name = written.object_name(plan.service, plan.environment)
        known = await self._sight.known(name)
        if known is not None:
            with contextlib.suppress(Moved):  # what is known was not the last
                return await self._applied(plan, fence, known)
        return await self._applied(plan, fence, await self._sight.ask(name))

    async def _applied(self, plan: TrafficPlan, fence: Fence, live: Object | None) -> TrafficState:
        """Made of *live*; `Moved` if that is not what is there."""
        where = self._where(plan.service, plan.environment)
        written.check_fence(live, fence, where)
        had = written.asked(live, where) if live else None
        new_to_users = backends.new_to_users(plan, had)
        known = await self._sight.reached(_hoped(plan), new_to_users | backends.gaining(plan, had))
        backends.check_reachable(plan, new_to_users, known)
        token = written.annotation(live, written.TOKEN) if live else secrets.token_urlsafe(24)
        spec = self._spec(plan, token, backends.ports_of(known))
        await self._before(plan, had, fence)
        metadata = written.metadata(plan, fence.number, token, self._client.namespace)
        new = await self._write({"metadata": metadata, "spec": spec}, live)
        await self._confirm(new, live, spec.keys(), where)
        return await self._told(new, written.asked(new, where), known)

    def _state(
        self,
        found: Object,
        ours: Object,
        asked: TrafficPlan,
        states: Sequence[BackendState],
        changed: str,
    ) -> TrafficState:
        """What the object does: *changed* says what of it is not as *ours*, which *asked* was written as."""
        who, weights, admission = (asked.service, asked.environment), asked.weights, asked.admission
        same = TrafficState(*who, weights, tuple(states), rules=asked.rules, admission=admission)
        same = replace(same, mirror=asked.mirror, handling=asked.handling)
        if not changed:
            return same
        said, meant = self._said(found["spec"], asked.handling), self._said(ours, asked.handling)
        parts = {name: value for name, value in vars(said).items() if value != getattr(meant, name)}
        return replace(same, **parts, asked=asked, foreign="" if parts else changed)

    # --- writing -------------------------------------------------------------------------------------

    async def _write(self, object: Object, live: Object | None) -> Object:
        """Make it of the version that was read. A controller that only told its status in between has moved
        the version too, and nothing else: then it is made of that one."""
        if live is None:
            return self._sight.told(await self._client.create(self.kind, object))
        for left in reversed(range(MOST_MOVES)):
            for name in ("resourceVersion", "uid"):
                object["metadata"][name] = live["metadata"][name]
            try:
                return self._sight.told(await self._client.apply(self.kind, object))
            except Moved:
                now = await self._sight.ask(object["metadata"]["name"])
                if now is None or not left or not _same_but_for_status(now, live):
                    raise
                live = now
        raise AssertionError("the last of them returns or raises")

    async def _confirm(self, new: Object, before: Object | None, fields: Collection[str], where: str) -> None:
        """Return once its controller has said that it does what was written."""
        word = self._word(new, new["metadata"]["generation"])
        if not (word.sure or word.refused):
            new, word = await self._wait(new, word)
        if word.refused:
            await self._put_back(new, before, fields)
            move = "the words are its own; what was there before is there again"
            raise Invalid(f"{self.called} refuses it: {word.refused}", where=where, next_move=move)
        if not word.sure:
            raise Unavailable(
                f"not confirmed in {self._seconds:g} s: {word.waits}",
                where=where,
                next_move=f"kubectl describe {self.kind.full} {new['metadata']['name']}",
            )

    async def _wait(self, new: Object, word: Word) -> tuple[Object, Word]:
        """The last word, once the controller has spoken or time is up, and the object that has it."""
        name, last = new["metadata"]["name"], new

        def look(found: Object | None) -> bool:
            nonlocal word, last
            if found is None or not _is_same(found, new):
                raise Conflict("somebody changed it meanwhile", where=name, next_move="read it")
            word, last = self._word(found, new["metadata"]["generation"]), found
            return word.sure or bool(word.refused)

        began, pause = time.monotonic(), DOUBT_SECONDS
        while (left := began + self._seconds - time.monotonic()) > 0:
            if await self._sight.until(name, look, min(pause, left)):
                break
            if look(await self._sight.ask(name)):  # it has spoken, and nobody told of it
                break
            pause *= 2
        return last, word

    async def _put_back(self, new: Object, before: Object | None, fields: Collection[str]) -> None:
        """The plan before, in the *fields* that we write; an object that is new goes. What somebody has
        written since stays: it is not what was refused."""
        metadata = new["metadata"]
        if before is None:
            await self._client.delete(self.kind, metadata["name"], uid=metadata["uid"])
            return
        kept = written.metadata(
            written.asked(before, metadata["name"]),
            int(written.annotation(new, written.FENCE)),
            written.annotation(before, written.TOKEN),
            metadata["namespace"],
        )
        spec = {name: before["spec"][name] for name in fields if name in before["spec"]}
        with contextlib.suppress(Moved):
            await self._write({"metadata": kept, "spec": spec}, new)

    def _where(self, service: str, environment: str) -> str:
        return f"{self.kind.full} {written.object_name(service, environment)}"


def _same_but_for_status(now: Object, before: Object) -> bool:
    """Whether nobody has written more than a status: a spec has its generation, a worker its annotations."""
    told = ("uid", "generation", "annotations", "labels")
    return all(now["metadata"].get(name) == before["metadata"].get(name) for name in told)


def _is_same(found: Object, new: Object) -> bool:
    """Whether it is the one that was written, with the spec that was."""
    return all(found["metadata"][name] == new["metadata"][name] for name in ("uid", "generation"))


def _hoped(plan: TrafficPlan) -> dict[str, int]:
    """How many copies of each release are to be ready."""
    return {backend.release: len(backend.addresses) for backend in plan.backends}
