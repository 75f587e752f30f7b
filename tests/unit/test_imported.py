"""Statements signed elsewhere are read whatever their formatting, and said in our words or not at all."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from penstock.core.digest import digest
from penstock.core.evidence import PAYLOAD_TYPE, Statement, Subject, seal
from penstock.core.imported import MAX_BYTES, foreign, translate
from penstock.core.predicates import Components, Coverage, Finding, Findings, TestResult
from penstock.errors import Invalid

HEX = "ab" * 32
TEST = TestResult.TYPE
VULNS = "https://in-toto.io/attestation/vulns/v0.2"


def statement(predicate: Any, kind: str = TEST, **fields: Any) -> bytes:
    """Not in our canonical form: another order, other spaces."""
    subject = [{"name": "shop", "digest": {"sha256": HEX, "sha512": "x"}}]
    whole = {"predicateType": kind, "subject": subject, "_type": "https://in-toto.io/Statement/v1"}
    return json.dumps({**whole, "predicate": predicate, **fields}, indent=1).encode()


def envelope(payload: bytes, /, **fields: Any) -> bytes:
    text = base64.b64encode(payload).decode()
    signatures = [{"keyid": "k1", "sig": "AAEC"}, {"sig": base64.urlsafe_b64encode(b"\xfb\xff\xfe").decode()}]
    return json.dumps(
        {"payloadType": PAYLOAD_TYPE, "signatures": signatures, "payload": text, **fields}
    ).encode()


def said(predicate: Any, kind: str = TEST) -> Any:
    payload = statement(predicate, kind)
    found = translate(base64.b64encode(envelope(payload)).decode())
    for report in found:
        kept = vars(report)
        assert (kept["origin"], kept["source"], kept["at"]) == ("external", None, None)
        assert kept["report"] == digest(payload)
        assert Statement((Subject("shop", digest(b"x")),), report).payload()
    return found[0] if len(found) == 1 else found


def test_an_envelope_of_anybody_is_read() -> None:
    payload = statement({"result": "PASSED"})
    found = foreign(envelope(payload))
    assert found.predicate_type == TEST
    assert found.subjects == (Subject("shop", f"sha256:{HEX}"),)
    assert json.loads(found.predicate_json_text) == {"result": "PASSED"}
    assert found.payload == payload
    assert found.signatures == (("k1", b"\x00\x01\x02"), ("", b"\xfb\xff\xfe"))


def test_our_own_envelopes_and_the_older_statement_are_read() -> None:
    ours = seal(
        Statement((Subject("shop", f"sha256:{HEX}"),), Coverage("u", 1, 2, "platform")).payload(), "k", b"s"
    )
    assert foreign(ours.raw).payload == ours.payload
    older = statement({}, "urn:x", _type="https://in-toto.io/Statement/v0.1")
    assert foreign(envelope(older)).predicate_type == "urn:x"


def test_only_subjects_with_sha256_count() -> None:
    subjects = [{"digest": {"gitCommit": "x"}}, {"uri": "pkg:x", "digest": {"sha256": HEX}}, {"name": "none"}]
    assert foreign(envelope(statement({}, subject=subjects))).subjects == (Subject("pkg:x", f"sha256:{HEX}"),)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "not JSON"),
        (b"[]", "must be an object"),
        (b"[" * 1_000_000, "larger than"),
        (b"[" * 100_000, "not JSON"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64"),
        (b" " * (MAX_BYTES + 1), "larger than"),
        (envelope(b"{}", payloadType="text/plain"), "not an envelope"),
        (envelope(b"{}", payloadType=5), "payloadType"),
        (envelope(b"{}", signatures=[]), "nobody signed"),
        (envelope(b"{}", signatures=[{"sig": "AA=="}] * 17), "at most 16"),
        (envelope(statement({}), signatures=[{"keyid": 5, "sig": "AA=="}]), "keyid"),
        (envelope(statement({}), signatures=[{"sig": "!"}]), "sig must be base64"),
        (envelope(b"{}", payload=None), "payload must be base64"),
        (envelope(b"{}", payload="é"), "payload must be base64"),
        (envelope(b"{}"), "not an in-toto statement"),
        (envelope(b'{"_type": "a", "_type": "b"}'), "given twice"),
        (envelope(statement({}, _type=["x"])), "not an in-toto statement"),
        (envelope(statement({}, kind="")), "predicateType"),
        (envelope(statement({}, kind="a\ud800")), "predicateType"),
        (envelope(statement([])), "must be an object"),
        (envelope(statement({}, subject=[])), "nothing with a SHA-256"),
        (envelope(statement({}, subject=[{"name": "x", "digest": {"sha1": "x"}}])), "nothing with a SHA-256"),
        (envelope(statement({}, subject=[{"digest": {"sha256": HEX.upper()}}])), "not a sha256 digest"),
        (envelope(statement({}, subject=[{"digest": {"sha256": [HEX]}}])), "not a sha256 digest"),
        (envelope(statement({}, subject=[{"name": "a\nb", "digest": {"sha256": HEX}}])), "short text"),
        (envelope(statement({}, subject=[{}] * 257)), "at most 256"),
        (envelope(statement({}, subject="x")), "must be a list"),
    ],
)
def test_what_is_no_such_envelope_is_invalid(raw: bytes, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint):
        foreign(raw)


def test_a_type_that_nobody_here_knows_says_nothing() -> None:
    assert said({"anything": 1}, "urn:other:v1") == ()
    with pytest.raises(Invalid):
        translate("not base64")
    with pytest.raises(Invalid, match="larger"):
        translate("A" * (3 * MAX_BYTES))


# --- tests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicate", "counts"),
    [
        ({"result": "PASSED", "passedTests": ["a", "b"], "warnedTests": ["c"]}, ("PASSED", 3, 0)),
        ({"result": "FAILED", "passedTests": ["a"], "failedTests": ["b"]}, ("FAILED", 1, 1)),
        ({"result": "PASSED"}, ("PASSED", 1, 0)),
        ({"result": "WARNED"}, ("WARNED", 1, 0)),
        ({"result": "FAILED"}, ("FAILED", 0, 1)),
        ({"result": "PASSED", "passedTests": []}, ("PASSED", 0, 0)),
        ({"result": "PASSED", "passedTests": ["a"], "failedTests": ["b"]}, ("FAILED", 1, 1)),
    ],
)
def test_a_test_result_of_others(predicate: Any, counts: tuple[str, int, int]) -> None:
    found = said({"configuration": [{"name": "ci.yml"}], **predicate})
    assert (found.result, found.passed, found.failed) == counts
    assert (found.suite, found.skipped) == ("ci.yml", 0)


def test_names_of_failed_tests_are_cut_and_counts_are_not() -> None:
    found = said({"result": "FAILED", "configuration": [], "failedTests": [f"t{n}\n" for n in range(60)]})
    assert (found.failed, len(found.failed_tests), found.failed_tests[0], found.suite) == (
        60,
        50,
        "t0",
        "tests",
    )


OURS = {
    "result": "PASSED",
    "suite": "unit\ud800",
    "configuration": [],
    "passed": 3,
    "failed": 0,
    "skipped": 1,
    "failedTests": [],
    "origin": "self-reported",
    "source": "somebody",
    "at": 5.0,
}


def test_reports_of_another_penstock_keep_their_counts_and_nothing_of_their_origin() -> None:
    assert said(OURS).passed == 3
    assert said(OURS).suite == "unit?"
    assert said({"suite": "u", "covered": 1, "total": 2, "origin": "platform"}, Coverage.TYPE).covered == 1
    listed = {"id": "CVE-1", "severity": "high", "message": ""}
    counts = {"critical": 0, "high": 2, "medium": 0, "low": 0}
    found = said({"tool": "t", "origin": "platform", **counts, "findings": [listed]}, Findings.TYPE)
    assert (found.high, found.findings) == (2, (Finding("CVE-1", "high", ""),))
    made = {"tool": "t", "origin": "platform", "count": 2, "unlicensed": 1, "licences": ["MIT"]}
    assert said(made, Components.TYPE).licences == ("MIT",)


@pytest.mark.parametrize(
    ("predicate", "kind"),
    [
        ({}, TEST),
        ({"result": "OK"}, TEST),
        ({"result": ["PASSED"]}, TEST),
        ({"result": "PASSED", "passedTests": 5}, TEST),
        ({"result": "PASSED", "passedTests": [5]}, TEST),
        ({**OURS, "passed": -1}, TEST),
        ({**OURS, "passed": 10**10}, TEST),
        ({**OURS, "passed": True}, TEST),
        ({**OURS, "failed": 1}, TEST),
        ({**OURS, "result": "FAILED"}, TEST),
        ({**OURS, "result": "FAILED", "failed": 1, "failedTests": ["a", "b"]}, TEST),
        ({"suite": "u", "covered": 3, "total": 2, "origin": "platform"}, Coverage.TYPE),
        ({"suite": "u", "covered": 3, "total": 2e400, "origin": "platform"}, Coverage.TYPE),
        ({"tool": "t", "origin": "platform", "critical": 0, "high": 0, "medium": 0, "low": 0,
          "findings": [{"id": "x", "severity": "critical", "message": ""}]}, Findings.TYPE),
        ({"tool": "t", "origin": "platform", "count": 1, "unlicensed": 2}, Components.TYPE),
        ({"bomFormat": "SPDX"}, "https://cyclonedx.org/bom"),
        ({}, VULNS),
        ({"scanner": {"uri": "x", "result": {}}}, VULNS),
        ({"scanner": {"uri": "x", "result": [{}]}}, VULNS),
        ({"scanner": {"result": []}}, VULNS),
        ({"scanner": {"uri": "x", "result": [
            {"id": "CVE-1", "severity": [{"method": "cvss", "score": "11"}]}]}}, VULNS),
    ],
)  # fmt: skip
def test_a_known_type_that_says_what_cannot_be_is_invalid(predicate: Any, kind: str) -> None:
    with pytest.raises(Invalid):
        said(predicate, kind)


# --- what scanners say ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["https://cyclonedx.org/bom", "https://cyclonedx.org/bom/v1.4"])
def test_a_bill_of_materials(kind: str) -> None:
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.4",
        "components": [{"name": "x", "licenses": [{"license": {"id": "MIT"}}]}],
        "vulnerabilities": [{"id": "CVE-1", "ratings": [{"severity": "critical"}]}],
    }
    made, found = said(document, kind)
    assert (made.count, made.licences, found.critical) == (1, ("MIT",), 1)


@pytest.mark.parametrize(
    ("severity", "expected"),
    [
        ([{"method": "nvd", "score": "medium"}, {"method": "cvss_score", "score": "5.2"}], "medium"),
        ([{"method": "cvss", "score": "low"}, {"method": "cvss_score", "score": 9.8}], "critical"),
        ({"method": "vendor", "score": "Important"}, "high"),
        ([{"method": "epss", "score": "0.01"}], "high"),
        ([{"method": "cvss", "score": "CVSS:3.1/AV:N"}], "high"),
        ([], "high"),
        (None, "high"),
    ],
)
def test_a_scan_for_vulnerabilities(severity: Any, expected: str) -> None:
    for result in (
        {"id": "CVE-1", "severity": severity},
        {"vulnerability": {"id": "CVE-1", "severity": severity}},
    ):
        found = said({"scanner": {"uri": "pkg:trivy", "result": [result]}, "metadata": {}}, VULNS)
        assert (found.tool, found.findings[0]) == ("pkg:trivy", Finding("CVE-1", expected, ""))  # type: ignore[arg-type]


def test_a_scan_that_found_none_says_so() -> None:
    found = said({"scanner": {"uri": "pkg:trivy", "result": []}}, "https://in-toto.io/attestation/vulns/v0.1")
    assert (found.critical, found.high, found.medium, found.low) == (0, 0, 0, 0)
