"""What the ledger's entries are in the words of CDEvents 0.5.1, as CloudEvents 1.0 in structured mode.

Called by `engine.webhooks`. Pure: the same entry gives the same event with the same id, however often it is
sent. Structured, not binary: then the signature of the body covers the attributes too. Sign-offs, for which
CDEvents 0.5 has no word, are custom events (``dev.cdeventsx``); entries that mean nothing to others are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from penstock.core.codec import Json
from penstock.core.digest import canonical, short
from penstock.core.evidence import Entry
from penstock.core.predicates import (
    Deployed,
    Ended,
    Predicate,
    Promoted,
    Proposed,
    Provenance,
    RolledBack,
    SignOff,
    TestResult,
)
from penstock.core.release import Change, Release

SPECVERSION = "0.5.1"
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
#: Of a reason: a receiver gets words, not a log.
LONGEST = 1000

#: The version of each event's own schema in CDEvents 0.5.1.
EVENT_VERSION = "0.3.0"
SIGN_OFF = "dev.cdeventsx.penstock-signoff.decided.0.1.0"
TESTED = "dev.cdeventsx.penstock-webhook.tested.0.1.0"
#: CDEvents knows success, failure, cancel and error.
OUTCOMES = {"success": "success", "skip": "success", "failure": "failure", "cancellation": "cancel"}


@dataclass(frozen=True)
class Circumstances:
    """What an entry itself does not say. *pages* is where people see deliveries; *delivery* "" if unknown."""

    source: str
    pages: str
    at: float
    delivery: str = ""
    pipeline: str = ""
    change: Change | None = None


@dataclass(frozen=True)
class Event:
    """A CloudEvent: its *id*, its *type*, and the bytes that are sent."""

    id: str
    type: str
    body: bytes


@dataclass(frozen=True)
class _Said:
    """*word* is ``<subject>.<predicate>``, or the whole type of a custom event."""

    word: str
    subject: str
    content: Mapping[str, Json]

    @property
    def type(self) -> str:
        custom = self.word.startswith("dev.")
        return self.word if custom else f"dev.cdevents.{self.word}.{EVENT_VERSION}"


def event_of(entry: Entry, seen: Circumstances) -> Event | None:
    """The event that tells of this entry; None if there is nothing to tell."""
    said = _said(entry, entry.statement.predicate, seen)
    if said is None:
        return None
    custom = {"entry": entry.index, "digest": entry.envelope.digest, "delivery": seen.delivery}
    return _event(f"{entry.index}-{short(entry.envelope.digest)}", said, seen, custom)


def trial_event(name: str, number: str, seen: Circumstances) -> Event:
    """What ``penstock webhook test`` sends. *number* makes it another one each time."""
    return _event(f"test-{number}", _Said(TESTED, f"webhook/{name}", {"webhook": name}), seen, {})


def _event(name: str, said: _Said, seen: Circumstances, custom: Mapping[str, Json]) -> Event:
    at = _time(seen.at)
    context = {
        "specversion": SPECVERSION,
        "id": name,
        "source": seen.source,
        "type": said.type,
        "timestamp": at,
    }
    if seen.delivery:
        context["chainId"] = seen.delivery
    subject = {"id": said.subject, "source": seen.source, "content": dict(said.content)}
    envelope = {
        "specversion": "1.0",
        "id": name,
        "source": seen.source,
        "type": said.type,
        "subject": said.subject,
        "time": at,
        "datacontenttype": "application/json",
        "data": {"context": context, "subject": subject, "customData": {"penstock": dict(custom)}},
    }
    return Event(name, said.type, canonical(envelope))


def _said(entry: Entry, predicate: Predicate, seen: Circumstances) -> _Said | None:
    match predicate:
        case Proposed():
            return _Said("pipelinerun.started", seen.delivery, _run(seen))
        case Ended():
            return _Said("pipelinerun.finished", seen.delivery, {**_run(seen), **_outcome(predicate)})
        case Provenance():
            (about, *_) = entry.statement.subjects
            return _Said("artifact.packaged", _purl(about.name, about.digest), {"change": _change(predicate)})
        case TestResult():
            return _Said("testsuiterun.finished", f"{seen.delivery}/{entry.index}", _tests(predicate, seen))
        case Deployed(release=release):
            return _Said("service.deployed", _service(release), _running(release))
        case Promoted(release=release, replaced=None):
            return _Said("service.published", _service(release), _environment(release))
        case Promoted(release=release):
            return _Said("service.upgraded", _service(release), _running(release))
        case RolledBack(release=release, restored=None):
            return _Said("service.removed", _service(release), _environment(release))
        case RolledBack(restored=Release() as restored):
            return _Said("service.rolledback", _service(restored), _running(restored))
        case SignOff():
            return _Said(SIGN_OFF, f"{seen.delivery}/{entry.index}", _decision(predicate))
        case _:
            return None


def _run(seen: Circumstances) -> dict[str, Json]:
    return {
        "pipelineName": seen.pipeline or "unknown",
        "uri": f"{seen.pages}/deliveries/{quote(seen.delivery)}",
    }


def _outcome(ended: Ended) -> dict[str, Json]:
    outcome = OUTCOMES.get(ended.state, "error")
    return {
        "outcome": outcome,
        "errors": "" if outcome == "success" else _short(ended.reason or ended.outcome),
    }


def _change(provenance: Provenance) -> dict[str, Json]:
    given = provenance.build_definition.external_parameters
    found: dict[str, Json] = {"id": given.get("revision") or "unknown"}
    if given.get("repository"):
        found["source"] = quote(given["repository"], safe=":/?#[]@!$&'()*+,;=%~")
    return found


def _tests(result: TestResult, seen: Circumstances) -> dict[str, Json]:
    return {
        "environment": {"id": seen.change.environment if seen.change else "unknown"},
        "testSuite": {"id": result.suite or "unnamed", "name": result.suite},
        "outcome": "failure" if result.result == "FAILED" else "success",
        "reason": f"{result.passed} passed, {result.failed} failed, {result.skipped} skipped",
    }


def _decision(signed: SignOff) -> dict[str, Json]:
    decision = signed.penstock
    return {
        "policy": decision.policy,
        "owner": decision.owner,
        "action": decision.action,
        "environment": {"id": decision.environment},
        "artifactId": _purl(decision.artifact.name, decision.artifact.digest),
        "verdict": decision.verdict,
        "result": signed.verification_result,
        "explanation": _short(decision.explanation),
        "overriddenBy": decision.override.identity if decision.override else None,
    }


def _running(release: Release) -> dict[str, Json]:
    return {**_environment(release), "artifactId": _purl(release.service, release.artifact)}


def _environment(release: Release) -> dict[str, Json]:
    return {"environment": {"id": release.environment}}


def _service(release: Release) -> str:
    return f"{release.service}/{release.environment}"


def _purl(name: str, digest: str) -> str:
    return f"pkg:oci/{quote(name, safe='')}@{quote(digest, safe='')}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
