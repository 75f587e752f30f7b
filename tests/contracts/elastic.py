"""What every `Router` must do for releases whose copies come and go: beside `contracts.router`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.router import ENVIRONMENT, SERVICE, Subject
from penstock.core.traffic import Backend, TrafficPlan, TrafficState, Weight
from penstock.errors import PenstockError


class ElasticContract:
    async def test_copies_come_and_go_and_the_counts_go_on(self, subject: Subject) -> None:
        full = await subject.world.copies("web-1", 3)
        state = await elastic(subject, with_copies(full, 1))
        began = (await subject.metrics.counters(SERVICE, ENVIRONMENT))[0]
        for number in (2, 3, 1, 2):
            state = await subject.apply(state.exposing(with_copies(full, number)))
            assert await proven(subject, number) == state
            await subject.who(state.address, 10)
        counted = (await subject.metrics.counters(SERVICE, ENVIRONMENT))[0]
        assert (counted.epoch, counted.requests) == (began.epoch, began.requests + 40)

    async def test_what_drains_gets_nothing_new_and_is_known(self, subject: Subject) -> None:
        full = await subject.world.copies("web-1", 3)
        state = await elastic(subject, full)
        await proven(subject, 3)
        await subject.who(state.address, 60)
        before = subject.world.served("web-1")
        assert all(before)
        last = full.addresses[2]
        state = await subject.apply(
            state.exposing(replace(full, addresses=full.addresses[:2], draining=(last,)))
        )
        (known,) = state.backends
        assert (known.backend.draining, known.total, known.busy) == ((last,), 2, ())
        assert state.ready("web-1"), "what drains is nobody's lack"
        await subject.who(state.address, 60)
        after = subject.world.served("web-1")
        assert after[2] == before[2]
        assert all(now > then for now, then in zip(after[:2], before[:2], strict=True))
        state = await subject.apply(state.exposing(full))  # it is wanted again
        await proven(subject, 3)
        await subject.who(state.address, 60)
        assert subject.world.served("web-1")[2] > after[2]

    async def test_a_copy_that_cannot_be_reached_gets_nobody(self, subject: Subject) -> None:
        full = await subject.world.copies("web-1", 3)
        state = await elastic(subject, with_copies(full, 2))
        dead = subject.world.dead("web-1").addresses
        state = await subject.apply(state.exposing(replace(full, addresses=(*full.addresses[:2], *dead))))
        assert (state.proven("web-1"), state.ready("web-1")) == (2, False)
        assert await subject.who(state.address, 30) == {"web-1": 30}

    async def test_an_elastic_release_can_be_taken_out_and_forgotten(self, subject: Subject) -> None:
        full = await subject.world.copies("web-2", 2)
        state = await subject.serving("web-1")
        state = await subject.apply(state.exposing(full))
        state = await subject.apply(state.exposing(replace(full, addresses=())))
        assert [(known.release, known.total) for known in state.backends] == [("web-1", 1), ("web-2", 0)]
        assert (await subject.apply(state.without("web-2"))).proven("web-2") == 0
        assert await subject.who(state.address, 5) == {"web-1": 5}

    async def test_what_is_refused_leaves_the_copies_as_they_are(self, subject: Subject) -> None:
        full = await subject.world.copies("web-1", 2)
        state = await elastic(subject, full)
        await proven(subject, 2)
        with pytest.raises(PenstockError):
            await subject.apply(state.exposing(replace(full, addresses=(*full.addresses, "999.1.1.1:80"))))
        assert await proven(subject, 2) == state
        assert await subject.who(state.address, 20) == {"web-1": 20}


def with_copies(full: Backend, number: int) -> Backend:
    return replace(full, addresses=full.addresses[:number])


async def elastic(subject: Subject, backend: Backend) -> TrafficState:
    """All users on *backend*."""
    plan = TrafficPlan(SERVICE, ENVIRONMENT, (backend,), (Weight(backend.release, 1000),))
    return await subject.apply(plan)


async def proven(subject: Subject, number: int) -> TrafficState:
    """The state once so many copies are proven; each look takes the router a moment."""
    for _ in range(2000):
        state = await subject.read()
        if state.proven("web-1") == number:
            return state
    raise AssertionError(f"not {number} copies: {state.backends}")
