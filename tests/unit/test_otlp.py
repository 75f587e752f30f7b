"""Spans of a delivery: derived ids, the conventions' names, and OTLP's JSON.

Required attributes are those of semantic conventions v1.44.0, ``docs/cicd/cicd-spans.md``.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from penstock.bootstrap.outgoing import collector_of
from penstock.core.otlp import Run, Span, pending_span, request, run_span, step_span, trace_id
from penstock.core.pipeline import Intent, Record, State
from penstock.core.release import Change
from penstock.errors import Invalid

CHANGE = Change("code", "shop", "production", "https://git.example/team/shop.git", "1" * 40, "Dana", "A")
RUN = Run("shop-1", "standard", "http://localhost:7070/deliveries/shop-1", CHANGE, State.SUCCESS, "promoted",
          100.0, 160.5)  # fmt: skip


def step(stage: str = "build", verb: str = "build", state: State = State.SUCCESS, number: int = 0) -> Span:
    return step_span(RUN, Record(Intent(stage, verb, number), state, 101.25, 103.5))


def test_ids_depend_on_the_delivery_and_the_step_alone() -> None:
    assert step().trace == run_span(RUN).trace == trace_id("shop-1")
    assert step().id == replace(step(state=State.FAILURE)).id
    assert step().parent == run_span(RUN).id == pending_span(RUN, 101.0).parent
    others = {
        step().id,
        step(number=1).id,
        step(verb="gate").id,
        run_span(RUN).id,
        pending_span(RUN, 101.0).id,
    }
    assert len(others) == 5
    assert trace_id("shop-2") != trace_id("shop-1")


def test_the_run_is_a_server_span_with_what_the_conventions_require() -> None:
    span = run_span(RUN)
    assert (span.name, span.kind, span.parent) == ("RUN standard", 2, "")
    wanted = {
        "cicd.pipeline.name": "standard",
        "cicd.pipeline.run.id": "shop-1",
        "cicd.pipeline.run.url.full": RUN.url,
        "cicd.pipeline.action.name": "RUN",
        "cicd.pipeline.result": "success",
        "deployment.environment.name": "production",
        "vcs.ref.head.revision": "1" * 40,
        "vcs.repository.name": "shop",
        "vcs.repository.url.full": "https://git.example/team/shop",
    }
    assert wanted.items() <= span.attributes.items()
    assert "error.type" not in span.attributes


@pytest.mark.parametrize(
    ("state", "outcome", "error"),
    [
        (State.FAILURE, "refused", "refused"),
        (State.ERROR, "error", "error"),
        (State.TIMEOUT, "error", "error"),
        (State.CANCELLATION, "aborted", None),
        (State.SKIP, "unchanged", None),
    ],
)
def test_a_bad_end_has_an_error_type(state: State, outcome: str, error: str | None) -> None:
    span = run_span(replace(RUN, state=state, outcome=outcome))
    assert span.attributes.get("error.type") == error
    assert span.attributes["cicd.pipeline.result"] == state.value


def test_a_step_is_an_internal_span_with_what_the_conventions_require() -> None:
    span = step("canary", "shift", number=2)
    assert (span.name, span.kind) == ("canary: shift", 1)
    wanted = {
        "cicd.pipeline.task.name": "canary",
        "cicd.pipeline.task.run.id": "canary/shift/2",
        "cicd.pipeline.task.run.result": "success",
        "cicd.pipeline.task.run.url.full": RUN.url,
        "cicd.pipeline.task.type": "deploy",
        "cicd.pipeline.run.state": "executing",
    }
    assert wanted.items() <= span.attributes.items()


def test_a_refusal_is_told_from_a_failure() -> None:
    assert step("deploy", "gate", State.FAILURE).attributes["error.type"] == "refused"
    assert step("build", "build", State.FAILURE).attributes["error.type"] == "failure"
    assert "error.type" not in step("deploy", "gate", State.PENDING).attributes


def test_a_repository_on_this_machine_has_no_url() -> None:
    span = run_span(replace(RUN, change=replace(CHANGE, repository="/srv/shop/")))
    assert "vcs.repository.url.full" not in span.attributes
    assert span.attributes["vcs.repository.name"] == "shop"


def test_the_request_is_otlps_json() -> None:
    body = json.loads(request({"service.name": "penstock"}, "1.2", [step(state=State.ERROR), run_span(RUN)]))
    (resource,) = body["resourceSpans"]
    assert resource["resource"]["attributes"] == [
        {"key": "service.name", "value": {"stringValue": "penstock"}}
    ]
    (scope,) = resource["scopeSpans"]
    assert scope["scope"] == {"name": "penstock", "version": "1.2"}
    build, run = scope["spans"]
    assert (len(build["traceId"]), len(build["spanId"]), build["parentSpanId"]) == (32, 16, run["spanId"])
    assert (build["startTimeUnixNano"], build["endTimeUnixNano"]) == ("101250000000", "103500000000")
    assert (build["kind"], run["kind"], run["parentSpanId"]) == (1, 2, "")
    assert build["status"] == {"code": 2, "message": "error"}
    assert run["status"] == {}


def test_a_span_never_ends_before_it_begins() -> None:
    span = step_span(RUN, Record(Intent("build", "build"), State.SUCCESS, 10.0, 9.0))
    assert span.ended >= span.began


# --- OpenTelemetry's own variables ------------------------------------------------------------------------

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {ENDPOINT: ""},
        {ENDPOINT: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"},
        {ENDPOINT: "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_exported_unless_a_collector_is_named(environ: dict[str, str]) -> None:
    assert collector_of(environ, "http://localhost:7070") is None


def test_the_variables_are_read_as_opentelemetry_says() -> None:
    environ = {
        ENDPOINT: "http://127.0.0.1:4318/",
        "OTEL_EXPORTER_OTLP_HEADERS": "X-Key=a%20b, other=1",
        "OTEL_RESOURCE_ATTRIBUTES": "team=delivery,service.name=ignored",
        "OTEL_SERVICE_NAME": "cd",
    }
    found = collector_of(environ, "http://localhost:7070")
    assert found
    assert dict(found.headers) == {"x-key": "a b", "other": "1"}
    assert found.resource["service.name"] == "cd"
    assert found.resource["team"] == "delivery"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (ENDPOINT, "127.0.0.1:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "nonsense"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=%0A"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=x"),
    ],
)
def test_what_is_wrong_in_them_is_told(name: str, value: str) -> None:
    with pytest.raises(Invalid):
        collector_of({ENDPOINT: "http://127.0.0.1:4318", name: value}, "")
