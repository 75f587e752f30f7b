"""Entries in the words of CDEvents: held against what its schemas of v0.5.1 ask for.

The schemas are in no package, so what they require is written down here from
https://github.com/cdevents/spec/tree/v0.5.1/schemas (and ``custom/schema.json``).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from penstock.core.cdevents import CONTENT_TYPE, SIGN_OFF, TESTED, Circumstances, Event, event_of, trial_event
from penstock.core.digest import digest
from penstock.core.evidence import Entry, Statement, Subject, seal_statement
from penstock.core.predicates import (
    BuildDefinition,
    BuilderId,
    BuildMetadata,
    Coverage,
    Decision,
    Deployed,
    Ended,
    Overridden,
    Predicate,
    Promoted,
    Proposed,
    Provenance,
    Resource,
    RolledBack,
    RunDetails,
    SignOff,
    TestResult,
)
from penstock.core.release import Artifact, Change, EnvironmentData, Release

GUIDE = Path(__file__).parents[2] / "docs/guides/telemetry.md"
IMAGE = digest(b"image")
ARTIFACT = Artifact("shop", IMAGE)
DATA = EnvironmentData("shop", "production")
OLD = Release("shop", "production", digest(b"old"), DATA.digest)
NEW = Release("shop", "production", IMAGE, DATA.digest)
CHANGE = Change("code", "shop", "production", "/srv/my repo", "1" * 40, "Dana", "A change")
SEEN = Circumstances(
    "urn:penstock:ledger:0123456789ab", "http://localhost:7070", 1700000000.25, "shop-1", "standard", CHANGE
)
OLD_PURL = "pkg:oci/shop@" + OLD.artifact.replace(":", "%3A")
NEW_PURL = "pkg:oci/shop@" + IMAGE.replace(":", "%3A")


@dataclass(frozen=True)
class Asked:
    """What a schema asks of ``subject.content``; other fields than these are not allowed."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)


OUTCOMES = ("success", "failure", "cancel", "error")
SCHEMAS: dict[str, Asked] = {
    "dev.cdevents.pipelinerun.started.0.3.0": Asked(("pipelineName", "uri")),
    "dev.cdevents.pipelinerun.finished.0.3.0": Asked(
        (), ("pipelineName", "uri", "outcome", "errors"), {"outcome": OUTCOMES}
    ),
    "dev.cdevents.artifact.packaged.0.3.0": Asked(("change",), ("sbom",)),
    "dev.cdevents.testsuiterun.finished.0.3.0": Asked(
        ("outcome", "environment"), ("testSuite", "severity", "reason"), {"outcome": OUTCOMES}
    ),
    "dev.cdevents.service.deployed.0.3.0": Asked(("environment", "artifactId")),
    "dev.cdevents.service.upgraded.0.3.0": Asked(("environment", "artifactId")),
    "dev.cdevents.service.rolledback.0.3.0": Asked(("environment", "artifactId")),
    "dev.cdevents.service.published.0.3.0": Asked((), ("environment",)),
    "dev.cdevents.service.removed.0.3.0": Asked((), ("environment",)),
}
CUSTOM = re.compile(r"dev\.cdeventsx\.[a-zA-Z0-9]+-[a-zA-Z]+\.[a-zA-Z]+\.[0-9]\.[0-9]\.[0-9]")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
#: Objects within a content, and what they must have at least.
INNER = {"environment": "id", "change": "id", "testSuite": "id"}


def checked(event: Event) -> dict[str, Any]:
    """The event's CDEvent, after every rule of its schema and of the CloudEvents binding."""
    cloud = json.loads(event.body)
    data = cloud["data"]
    context, subject = data["context"], data["subject"]
    assert set(data) <= {"context", "subject", "customData", "customDataContentType"}
    assert set(context) <= {
        "specversion", "id", "source", "type", "timestamp", "schemaUri", "chainId", "links"
    }  # fmt: skip
    assert set(subject) == {"id", "source", "content"}
    for text in (context["id"], context["source"], subject["id"], subject["source"]):
        assert isinstance(text, str)
        assert text
        assert " " not in text
    assert context["specversion"] == "0.5.1"
    assert RFC3339.fullmatch(context["timestamp"])
    assert context.get("chainId", "some")
    assert (cloud["specversion"], cloud["datacontenttype"]) == ("1.0", "application/json")
    assert (cloud["id"], cloud["source"], cloud["type"], cloud["time"], cloud["subject"]) == (
        context["id"], context["source"], context["type"], context["timestamp"], subject["id"]
    )  # fmt: skip
    assert (event.id, event.type) == (context["id"], context["type"])
    if not CUSTOM.fullmatch(event.type):
        content_keeps(SCHEMAS[event.type], subject["content"])
    return data  # type: ignore[no-any-return]


def content_keeps(asked: Asked, content: dict[str, Any]) -> None:
    assert set(asked.required) <= set(content) <= {*asked.required, *asked.optional}
    for name, options in asked.choices.items():
        assert content[name] in options
    for name, needed in INNER.items():
        if name in content:
            assert content[name][needed]
    if "uri" in content:
        assert urlsplit(content["uri"]).scheme == "http"
    assert content.get("artifactId", "some")


def entry(predicate: Predicate, index: int = 42) -> Entry:
    statement = Statement((Subject("shop", IMAGE),), predicate)
    envelope = seal_statement(statement, lambda message: ("key", digest(message).encode()))
    return Entry(index, envelope, statement)


def provenance(**external: str) -> Provenance:
    definition = BuildDefinition("urn:x", external, {}, ())
    return Provenance(definition, RunDetails(BuilderId("urn:y"), BuildMetadata("shop-1")))


def signed(override: Overridden | None = None) -> SignOff:
    decision = Decision(
        "shop-1", "security-lead", "security-lead", "deploy", "production", "PASS", "fine", (), 3, 5.0,
        9.0, "1", False, CHANGE, ARTIFACT, NEW, None, override,
    )  # fmt: skip
    return SignOff(BuilderId("v"), "t", "r", Resource("p"), (), "PASSED", (), decision)


def suite(result: str) -> TestResult:
    return TestResult(result, "unit", (), 3, 1, 2, ())  # type: ignore[arg-type]


CASES: list[tuple[Predicate, str, dict[str, Any]]] = [
    (
        Proposed("shop-1", CHANGE),
        "pipelinerun.started.0.3.0",
        {"pipelineName": "standard", "uri": "http://localhost:7070/deliveries/shop-1"},
    ),
    (Ended("shop-1", "success", "promoted", ""), "pipelinerun.finished.0.3.0", {"outcome": "success"}),
    (Ended("shop-1", "skip", "unchanged", ""), "pipelinerun.finished.0.3.0", {"outcome": "success"}),
    (Ended("shop-1", "cancellation", "aborted", ""), "pipelinerun.finished.0.3.0", {"outcome": "cancel"}),
    (Ended("shop-1", "timeout", "error", ""), "pipelinerun.finished.0.3.0", {"outcome": "error"}),
    (
        Ended("shop-1", "failure", "refused", "x" * 5000),
        "pipelinerun.finished.0.3.0",
        {"outcome": "failure", "errors": "x" * 999 + "…"},
    ),
    (
        provenance(revision="1" * 40, repository="/srv/my repo"),
        "artifact.packaged.0.3.0",
        {"change": {"id": "1" * 40, "source": "/srv/my%20repo"}},
    ),
    (provenance(), "artifact.packaged.0.3.0", {"change": {"id": "unknown"}}),
    (
        suite("PASSED"),
        "testsuiterun.finished.0.3.0",
        {
            "outcome": "success",
            "reason": "3 passed, 1 failed, 2 skipped",
            "environment": {"id": "production"},
        },
    ),
    (suite("WARNED"), "testsuiterun.finished.0.3.0", {"outcome": "success"}),
    (suite("FAILED"), "testsuiterun.finished.0.3.0", {"outcome": "failure"}),
    (Deployed("shop-1", NEW, DATA, "none", 1), "service.deployed.0.3.0", {"artifactId": NEW_PURL}),
    (Promoted("shop-1", NEW, DATA), "service.published.0.3.0", {"environment": {"id": "production"}}),
    (Promoted("shop-1", NEW, DATA, OLD), "service.upgraded.0.3.0", {"artifactId": NEW_PURL}),
    (RolledBack("shop-1", NEW, OLD, "slow"), "service.rolledback.0.3.0", {"artifactId": OLD_PURL}),
    (RolledBack("shop-1", NEW, None, "slow"), "service.removed.0.3.0", {"environment": {"id": "production"}}),
]


@pytest.mark.parametrize(("predicate", "kind", "content"), CASES)
def test_an_entry_becomes_its_event(predicate: Predicate, kind: str, content: dict[str, Any]) -> None:
    event = event_of(entry(predicate), SEEN)
    assert event
    data = checked(event)
    assert event.type == f"dev.cdevents.{kind}"
    assert {name: data["subject"]["content"][name] for name in content} == content
    assert data["context"]["chainId"] == "shop-1"
    assert data["context"]["timestamp"] == "2023-11-14T22:13:20.250Z"
    assert data["customData"]["penstock"]["entry"] == 42


def test_every_type_that_the_schemas_know_is_told() -> None:
    assert {f"dev.cdevents.{kind}" for _, kind, _ in CASES} == set(SCHEMAS)


def test_the_guide_lists_every_event() -> None:
    listed = set(re.findall(r"\| `(dev\.cdevents[^`]*)` \|", GUIDE.read_text(encoding="utf-8")))
    assert listed == {*SCHEMAS, SIGN_OFF, TESTED}


def test_a_sign_off_is_a_custom_event() -> None:
    event = event_of(entry(signed(Overridden(7, "sue", "fix is on its way", 99.0))), SEEN)
    assert event
    content = checked(event)["subject"]["content"]
    assert CUSTOM.fullmatch(event.type)
    assert (content["policy"], content["action"], content["verdict"]) == ("security-lead", "deploy", "PASS")
    assert content["overriddenBy"] == "sue"


def test_a_test_of_a_webhook_is_a_custom_event_with_an_id_of_its_own() -> None:
    one, two = (trial_event("chat", number, SEEN) for number in ("1", "2"))
    checked(one)
    assert CUSTOM.fullmatch(one.type)
    assert one.id != two.id


def test_what_means_nothing_to_others_is_no_event() -> None:
    assert event_of(entry(Coverage("unit", 1, 2, "platform")), SEEN) is None


def test_the_same_entry_is_the_same_event_and_another_is_another() -> None:
    said = Ended("shop-1", "success", "promoted", "")
    first, again, other = (event_of(entry(said, index), SEEN) for index in (1, 1, 2))
    assert first == again
    assert first
    assert other
    assert first.id != other.id


@pytest.mark.parametrize("predicate", [predicate for predicate, _, _ in CASES])
def test_an_entry_of_a_delivery_that_nobody_knows_any_more_is_still_valid(predicate: Predicate) -> None:
    event = event_of(entry(predicate), Circumstances(SEEN.source, SEEN.pages, 0.0, "shop-1"))
    assert event
    checked(event)


def test_a_report_about_something_never_built_here_is_still_valid() -> None:
    event = event_of(entry(suite("PASSED")), Circumstances(SEEN.source, SEEN.pages, 0.0))
    assert event
    data = checked(event)
    assert "chainId" not in data["context"]


def test_the_media_type_is_that_of_structured_mode() -> None:
    assert CONTENT_TYPE == "application/cloudevents+json; charset=utf-8"
