"""Deliveries as traces: OpenTelemetry spans in OTLP's JSON form, named by the CI/CD semantic conventions.

Called by `engine.traces`. Pure: ids are derived from the delivery's id and the step's key, so that whoever
exports a step, whenever and however often, exports the same span of the same trace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.core.codec import Json
from penstock.core.digest import canonical
from penstock.core.pipeline import Record, State
from penstock.core.release import Change

CONTENT_TYPE = "application/json"
#: OTLP's numbers for kinds of spans and for a status.
INTERNAL, SERVER, ERROR = 1, 2, 2
#: States that are errors to whoever looks at traces.
BAD = (State.FAILURE, State.ERROR, State.TIMEOUT)
#: The conventions know build, test and deploy; what is none of them has its own verb for a type.
TYPES = {
    "build": "build",
    "suite": "test",
    "scan": "test",
    "acceptance": "test",
    "measure": "test",
    "look": "test",
    "slo": "test",
    "deploy": "deploy",
    "baseline": "deploy",
    "shift": "deploy",
    "promote": "deploy",
    "rollback": "deploy",
    "restore": "deploy",
}
LONGEST = 500

Attributes = Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """A delivery as its spans need it. *url* is its page; *ended* is 0 while it runs."""

    delivery: str
    pipeline: str
    url: str
    change: Change
    state: State
    outcome: str
    created: float
    ended: float


@dataclass(frozen=True)
class Span:
    trace: str
    id: str
    parent: str
    name: str
    kind: int
    began: float
    ended: float
    attributes: Attributes
    error: str = ""


def trace_id(delivery: str) -> str:
    """32 hex digits: the same on every worker, and after every restart."""
    return _hash(f"delivery {delivery}", 16)


def run_span(run: Run) -> Span:
    """The root: from being queued to the end."""
    attributes = {
        **_of_run(run),
        "cicd.pipeline.action.name": "RUN",
        "cicd.pipeline.run.state": "finalizing",
        "cicd.pipeline.result": run.state.value,
        "penstock.outcome": run.outcome,
    }
    error = run.outcome if run.state in BAD else ""
    return _span(run, "", f"RUN {run.pipeline}", (run.created, run.ended), attributes, error)


def pending_span(run: Run, began: float) -> Span:
    """The time in the queue, until the first step *began*."""
    attributes = {**_of_run(run), "cicd.pipeline.run.state": "pending"}
    return _span(run, "pending", "pending", (run.created, began), attributes)


def step_span(run: Run, record: Record) -> Span:
    """One performed intent."""
    intent = record.intent
    refused = intent.verb == "gate" and record.state is State.FAILURE
    attributes = {
        **_of_run(run),
        "cicd.pipeline.run.state": "executing",
        "cicd.pipeline.task.name": intent.stage,
        "cicd.pipeline.task.run.id": intent.key,
        "cicd.pipeline.task.run.result": record.state.value,
        "cicd.pipeline.task.run.url.full": run.url,
        "cicd.pipeline.task.type": TYPES.get(intent.verb, intent.verb),
    }
    name = intent.stage if intent.stage == intent.verb else f"{intent.stage}: {intent.verb}"
    error = "refused" if refused else record.state.value if record.state in BAD else ""
    return _span(run, f"step {intent.key}", name, (record.began, record.ended), attributes, error)


def request(resource: Attributes, version: str, spans: Iterable[Span]) -> bytes:
    """The body of a POST to a collector's ``/v1/traces``."""
    scope = {"scope": {"name": "penstock", "version": version}, "spans": [_json(span) for span in spans]}
    return canonical(
        {"resourceSpans": [{"resource": {"attributes": _pairs(resource)}, "scopeSpans": [scope]}]}
    )


def _span(
    run: Run, what: str, name: str, between: tuple[float, float], attributes: Attributes, error: str = ""
) -> Span:
    """*what* names the span within its trace; "" is the root."""
    root = _hash(f"run {run.delivery}", 8)
    return Span(
        trace=trace_id(run.delivery),
        id=_hash(f"{what} of {run.delivery}", 8) if what else root,
        parent=root if what else "",
        name=name,
        kind=INTERNAL if what else SERVER,
        began=between[0],
        ended=max(between),
        attributes={**attributes, "error.type": error} if error else attributes,
        error=error,
    )


def _of_run(run: Run) -> dict[str, str]:
    change = run.change
    repository = change.repository.rstrip("/").removesuffix(".git")
    found = {
        "cicd.pipeline.name": run.pipeline,
        "cicd.pipeline.run.id": run.delivery,
        "cicd.pipeline.run.url.full": run.url,
        "deployment.environment.name": change.environment,
        "penstock.service": change.service,
        "vcs.ref.head.revision": change.revision,
        "vcs.repository.name": repository.rpartition("/")[2],
    }
    if repository.startswith(("http://", "https://")):
        found["vcs.repository.url.full"] = repository
    return {name: value for name, value in found.items() if value}


def _json(span: Span) -> dict[str, Json]:
    status: dict[str, Json] = {"code": ERROR, "message": span.error[:LONGEST]} if span.error else {}
    return {
        "traceId": span.trace,
        "spanId": span.id,
        "parentSpanId": span.parent,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": _nano(span.began),
        "endTimeUnixNano": _nano(span.ended),
        "attributes": _pairs(span.attributes),
        "status": status,
    }


def _pairs(attributes: Attributes) -> list[Json]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in sorted(attributes.items())]


def _nano(seconds: float) -> str:
    # By way of microseconds: a float has no more digits, and nanoseconds of it would be noise.
    return str(round(seconds * 1e6) * 1000)


def _hash(text: str, size: int) -> str:
    return hashlib.sha256(f"penstock {text}".encode()).hexdigest()[: 2 * size]
