"""``GET /metrics``: Penstock's own numbers for Prometheus.

Called by `server.app`. Every number is read from the database when it is asked for, so it is the same
whichever process counted it, and it survives restarts; what lives in this process alone is called
``penstock_process_…``. Labels hold verbs, states and environments, never a delivery.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import version

from fastapi import APIRouter, Response

from penstock.bootstrap.control import ControlPlane
from penstock.core.exposition import CONTENT_TYPE, Family, Sample, histogram, write
from penstock.engine import moments, numbers
from penstock.engine.numbers import BOUNDS, Numbers, Steps

STARTED = time.time()


def routes(control: ControlPlane) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """The engine's numbers, in the Prometheus text format."""
        return Response(write(await families(control)), headers={"content-type": CONTENT_TYPE})

    return router


async def families(control: ControlPlane) -> tuple[Family, ...]:
    """Everything that is exported, in the order of the guide's table."""
    async with control.store.transaction(write=False) as tx:
        read = await numbers.read(tx, control.journal.lease_seconds)
        entries = await control.ledger.size(tx)
        newest = await moments.newest(control.ledger, control.journal, tx)
        behind = await control.outgoing.webhooks.behind(tx)
        traces = await control.outgoing.traces.behind(tx)
        now = await tx.now()
    return (*_engine(read), *_ledger(entries, now, newest), *_outgoing(control, behind, traces), *_process())


def _engine(read: Numbers) -> tuple[Family, ...]:
    return (
        _by("penstock_deliveries", "Deliveries by state.", "state", read.deliveries),
        _by(
            "penstock_queue_age_seconds",
            "How long the oldest pending delivery has waited, by environment with open deliveries.",
            "environment",
            read.queues,
        ),
        _one(
            "penstock_deliveries_stuck",
            "Executing deliveries that nobody took up three lease lengths after they could have been.",
            read.stuck,
        ),
        Family(
            "penstock_step_seconds",
            "histogram",
            "Time that recorded steps took, by verb and result.",
            tuple(sample for steps in read.steps for sample in _step(steps)),
        ),
        Family(
            "penstock_attempts_failed_total",
            "counter",
            "Attempts at a step that an outside system did not answer, by verb.",
            tuple(Sample(count, {"verb": verb}) for verb, count in read.failed_attempts.items()),
        ),
        Family(
            "penstock_lease_takeovers_total",
            "counter",
            "Deliveries that a worker took up because the lease of another had ended unreturned.",
            (Sample(read.take_overs),),
        ),
    )


def _step(steps: Steps) -> tuple[Sample, ...]:
    return histogram({"verb": steps.verb, "result": steps.result}, BOUNDS, steps.buckets, steps.seconds)


def _ledger(entries: int, now: float, newest: float | None) -> tuple[Family, ...]:
    age = () if newest is None else (Sample(max(0.0, now - newest)),)
    return (
        Family("penstock_ledger_entries_total", "counter", "Entries of the ledger.", (Sample(entries),)),
        Family(
            "penstock_ledger_checkpoint_age_seconds",
            "gauge",
            "Time since the newest checkpoint was signed; every append signs one.",
            age,
        ),
    )


def _outgoing(control: ControlPlane, behind: Mapping[str, int], traces: int | None) -> tuple[Family, ...]:
    failures = {f"webhook {name}": count for name, count in control.outgoing.webhooks.failures.items()}
    if traces is not None:
        failures["collector"] = control.outgoing.traces.failures
    return (
        _by(
            "penstock_webhook_entries_behind",
            "Entries of the ledger that a webhook was not told of yet.",
            "webhook",
            behind,
        ),
        Family(
            "penstock_traces_entries_behind",
            "gauge",
            "Entries of the ledger whose steps were not exported as spans yet, if there is a collector.",
            () if traces is None else (Sample(traces),),
        ),
        Family(
            "penstock_process_sends_failed_total",
            "counter",
            "Messages to webhooks and to the collector that were not accepted, since this server started.",
            tuple(Sample(count, {"to": to}) for to, count in sorted(failures.items())),
        ),
    )


def _process() -> tuple[Family, ...]:
    return (
        _one("penstock_process_start_time_seconds", "When this server started, since 1970.", STARTED),
        _by(
            "penstock_build_info", "Always 1; the label is the version.", "version", {version("penstock"): 1}
        ),
    )


def _one(name: str, meaning: str, value: float) -> Family:
    return Family(name, "gauge", meaning, (Sample(value),))


def _by(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Family:
    samples = tuple(Sample(value, {label: key}) for key, value in sorted(values.items()))
    return Family(name, "gauge", meaning, samples)
