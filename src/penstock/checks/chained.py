"""Whether the dark releases that are tested together met one another; a part of `acceptance`.

The proxy leads calls of a dark release to the others of its chain, and counts them by whose chain it was.
Past a service that has users the application itself must forward the chain (W3C ``baggage``): where it does
not, the dark release behind it sees nothing, and the tests have tested something else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from penstock.core.chain import Link, Met
from penstock.core.traffic import Led, TrafficState
from penstock.core.wording import plural
from penstock.errors import Broken, Invalid, Unavailable
from penstock.ports import Metrics, Router, Task


@dataclass(frozen=True)
class Reading:
    """What was led to the release under test, and to each of its chain, by (release, caller)."""

    led: dict[tuple[str, str], Led]

    def since(self, before: Reading, release: str, caller: str = "") -> int:
        """How many requests *caller* led to *release* since *before*."""
        now, then = self.led.get((release, caller)), before.led.get((release, caller))
        if now is None:
            return 0
        if then is not None and then.epoch != now.epoch:
            raise Unavailable("the proxy was started anew during the tests: what was led where is not known")
        return now.requests - (then.requests if then else 0)


async def lead(task: Task, state: TrafficState, router: Router) -> None:
    """Make the calls of the dark release go to its chain, if they do not yet: others may have come since."""
    if task.release is None:
        raise Broken("a chain without a release", where=task.delivery)
    if task.release.id in state.plan.serving:
        return
    backend = next(known.backend for known in state.backends if known.release == task.release.id)
    chain = tuple(link.release.id for link in task.chain)
    if backend.chain != chain:
        await router.apply(state.exposing(replace(backend, chain=chain)), fence=task.fence)


async def read(task: Task, metrics: Metrics) -> Reading:
    """`Invalid` if a release of the chain is not there any more."""
    if task.release is None or not task.chain:
        return Reading({})
    releases = (task.release, *(link.release for link in task.chain))
    found = [led for r in releases for led in await metrics.led(r.service, r.environment)]
    reading = Reading({(led.release, led.caller): led for led in found})
    for release in releases:
        if (release.id, "") not in reading.led:
            raise Invalid(f"{release.id} is not there any more: nothing can be tested together with it")
    return reading


def met(task: Task, before: Reading, after: Reading) -> tuple[Met, ...] | None:
    """What the tests between two readings have met of the chain; None if there is no chain."""
    if task.release is None or not task.chain:
        return None
    callers = (task.release.id, *(link.release.id for link in task.chain))
    led = after.since(before, task.release.id)
    return tuple(
        _met(link, led, sum(after.since(before, link.release.id, c) for c in callers)) for link in task.chain
    )


def _met(link: Link, led: int, requests: int) -> Met:
    return Met(link.release.id, link.release.digest, led, requests, () if requests else link.stable)


def in_words(together: tuple[Met, ...] | None) -> str:
    """What is to be said of it, after other words; "" if there is nothing."""
    return "".join(f"; {_said(one)}" for one in together or ())


def _said(one: Met) -> str:
    if one.requests:
        return f"together with {one.release} ({plural(one.requests, 'request')})"
    saw = f"{one.release} saw none of {plural(one.led, 'request')}"
    if one.lost_after:
        after = " or ".join(one.lost_after)
        return f"the chain was lost after {after}: {saw}; forward the baggage header"
    return f"{saw}: the tests never called it"
