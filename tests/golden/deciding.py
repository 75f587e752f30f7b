"""What a golden sign-off was about, and how it is made. Used by `test_sign_offs`.

One source signs two reports of the same type: its unit tests failed, then its lint passed. The files
``tests/golden/VERSION/sign-off.json`` hold the payload that the release computed from that; they are never
written again, and later releases have to compute the same bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from penstock.adapters.cel import Cel
from penstock.core.authority import Authority, InForce
from penstock.core.digest import digest
from penstock.core.evidence import Entry, Statement, Subject, seal
from penstock.core.policy import sign_off
from penstock.core.predicates import Imported, Predicate, Proposed, TestResult
from penstock.core.release import Artifact, Change, Release
from penstock.core.selection import Question, select
from penstock.policyfile import parse_policy

ARTIFACT = Artifact("shop", digest(b"artifact"))
RELEASE = Release("shop", "production", ARTIFACT.digest, digest(b"data"))
CHANGE = Change(
    "code", "shop", "production", "/srv/git/shop", "1" * 40, "Dana <dana@example.com>", "Sell more"
)
QUESTION = Question("shop-1", "deploy", CHANGE, ARTIFACT, RELEASE, True, 4, 1000.25)
SUBJECTS = (Subject(RELEASE.id, RELEASE.digest), Subject(ARTIFACT.name, ARTIFACT.digest))
POLICY = """
policy: test-lead
owner: test-lead
guards: [deploy]
environments: [production]
rules:
  - {id: none-fails, when: "evidence.tests.failed == 0", say: "'all passed'", else: "'some failed'"}
"""
AUTHORITY = Authority(
    policies={
        "test-lead": InForce("test-lead", "test-lead", "organisation", POLICY, digest(POLICY.encode()), 0)
    },
    changed=0,
)


def entry(index: int, predicate: Predicate) -> Entry:
    statement = Statement(SUBJECTS, predicate)
    return Entry(index, seal(statement.payload(), "ab" * 32, b"s"), statement)


def elsewhere(suite: str, failed: int) -> Imported:
    """The report of a suite as a source signed it."""
    names = tuple(f"{suite}-{number}" for number in range(failed))
    report = TestResult("FAILED" if failed else "PASSED", suite, (), 5, failed, 0, names)
    payload = Statement((SUBJECTS[1],), report).payload()
    envelope = seal(payload, "cd" * 32, b"s").raw
    return Imported("ci", report.TYPE, base64.b64encode(envelope).decode(), 900.0)


def evidence() -> Sequence[Entry]:
    said = (Proposed("shop-1", CHANGE), elsewhere("unit", 2), elsewhere("lint", 0))
    return [entry(index, predicate) for index, predicate in enumerate(said, 1)]


def decided(question: Question) -> bytes:
    """The payload of the sign-off that answers it."""
    document = parse_policy(POLICY.encode(), "policy.yaml")
    selected = select(evidence(), question)
    signed = sign_off(
        question, document, "urn:penstock:entry:0", Cel().compile(document), selected, AUTHORITY
    )
    return Statement(SUBJECTS, signed).payload()
