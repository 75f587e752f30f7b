"""What others bring is read strictly, names its source, and no report is ever a smaller count or a pass."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.checks import intake
from penstock.checks.cyclonedx import parse_cyclonedx
from penstock.core.bom import MAX_LICENCES
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.findings import by_score, worst
from penstock.core.outside import clean, read_json
from penstock.core.predicates import Components, Coverage, Findings, TestResult
from penstock.errors import Invalid

JUNIT = b'<?xml version="1.0"?>\n<!-- made by x --><testsuites><testcase name="a"/></testsuites>'
COBERTURA = b'<!DOCTYPE coverage SYSTEM "x"><coverage lines-covered="1" lines-valid="2"/>'
LCOV = b"TN:\nSF:a.js\nDA:1,1\nDA:2,0\nend_of_record\n"
SARIF = b'{"$schema": "https://x/sarif-2.1.0.json", "version": "2.1.0", "runs": [{"tool": {"driver": \
{"name": "grype"}}, "results": [{"ruleId": "CVE-2024-1", "level": "error"}]}]}'


def bom(**fields: Any) -> bytes:
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, **fields}).encode()


def part(*licences: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "library", "name": "x", "licenses": list(licences), **fields}


MIT = {"license": {"id": "MIT"}}
BOM = bom(components=[part(MIT)])


# --- CycloneDX ----------------------------------------------------------------------------------------------


def components(data: bytes) -> Components:
    (found,) = parse_cyclonedx(data, "bom.json", "external")
    assert isinstance(found, Components)
    return found


def findings(*vulnerabilities: Any) -> Findings:
    (found,) = parse_cyclonedx(bom(vulnerabilities=list(vulnerabilities)), "bom.json", "external")
    assert isinstance(found, Findings)
    return found


def test_components_are_counted_with_those_inside_others() -> None:
    named = {"license": {"name": "The Apache License"}}
    inner = [part(named), part(components=[part(MIT)])]
    metadata = {
        "tools": {"components": [{"type": "application", "name": "syft"}]},
        "component": {"type": "container", "name": "shop", "components": [part()]},
    }
    data = bom(
        metadata=metadata,
        components=[part({"expression": "MIT OR GPL-2.0-only"}, components=inner), part(licenses=None)],
    )
    assert components(data) == Components(
        tool="syft",
        origin="external",
        count=6,
        unlicensed=3,
        licences=("MIT", "MIT OR GPL-2.0-only", "The Apache License"),
    )


def test_the_older_form_of_tools_is_known() -> None:
    assert components(bom(metadata={"tools": [{"name": "trivy"}]}, components=[part()])).tool == "trivy"
    assert components(BOM).tool == "cyclonedx"


def test_licences_are_cut_and_counts_are_not() -> None:
    many = [part({"license": {"name": f"L{number:04}"}}) for number in range(MAX_LICENCES + 9)]
    found = components(bom(components=many))
    assert (found.count, len(found.licences), found.licences[0]) == (MAX_LICENCES + 9, MAX_LICENCES, "L0000")


@pytest.mark.parametrize(
    ("ratings", "severity"),
    [
        ([{"severity": "critical"}], "critical"),
        ([{"severity": "low"}, {"severity": "high"}], "high"),
        ([{"severity": "low", "score": 9.1, "method": "CVSSv31"}], "critical"),
        ([{"score": 6.9, "method": "CVSSv4"}], "medium"),
        ([{"score": 0, "method": "CVSSv2"}], "low"),
        ([{"score": 8}], "high"),
        ([{"score": 1.0, "method": "OWASP"}], "high"),
        ([{"severity": "unknown"}, {"severity": "info"}], "low"),
        ([{"severity": "unknown"}], "high"),
        ([], "high"),
    ],
)
def test_the_worst_rating_counts_and_what_nobody_rated_is_high(ratings: Any, severity: str) -> None:
    found = findings({"id": "CVE-2024-1", "ratings": ratings})
    assert getattr(found, severity) == 1
    assert (found.findings[0].id, found.findings[0].severity) == ("CVE-2024-1", severity)


def test_what_was_settled_is_counted_nowhere_and_the_rest_is() -> None:
    states = ("not_affected", "false_positive", "resolved", "resolved_with_pedigree")
    settled = [{"id": state, "analysis": {"state": state}} for state in states]
    open_ones = [{"analysis": {"state": state}} for state in ("exploitable", "in_triage", ["resolved"], 1)]
    found = findings(*settled, *open_ones, {"affects": [{"ref": "pkg:x"}], "description": "bad"})
    assert (found.high, len(found.findings)) == (5, 5)
    assert {finding.id for finding in found.findings} == {"?"}
    assert (found.findings[-1].location, found.findings[-1].message) == ("pkg:x", "bad")
    assert findings(*settled) == Findings("cyclonedx", "external", 0, 0, 0, 0)


def test_an_empty_list_of_vulnerabilities_is_no_finding_of_none() -> None:
    """Tools write one when they did not look."""
    assert components(bom(components=[part()], vulnerabilities=[])).count == 1


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\xef\xbb\xbf <bom/>", "not as XML"),
        (b"", "not JSON"),
        (b"[]", "not a CycloneDX document"),
        (b'{"bomFormat": "SPDX"}', "not a CycloneDX document"),
        (bom(specVersion="1.3"), "known: 1.4, 1.5, 1.6"),
        (bom(), "no component and no vulnerability"),
        (bom(components={}), "'components' is of the wrong type"),
        (bom(components=["x"]), "no object"),
        (bom(components=[part("MIT")]), "no object"),
        (bom(components=[part({"license": {"id": 5}})]), "'id' is of the wrong type"),
        (bom(vulnerabilities=[{"ratings": 5}]), "'ratings' is of the wrong type"),
        (bom(vulnerabilities=[{"ratings": [{"score": -1}]}]), "a CVSS score of -1"),
        (bom(vulnerabilities=[{"ratings": [{"score": 11}]}]), "a CVSS score of 11"),
        (bom(vulnerabilities=[{"ratings": [{"score": True}]}]), "a CVSS score of True"),
        (bom(vulnerabilities=[{"ratings": [{"score": float("nan")}]}]), "NaN is not a JSON value"),
        (b'{"bomFormat": "CycloneDX", "bomFormat": "x"}', "'bomFormat' is given twice"),
        (b'{"a":' * 1_000_000, "not JSON"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "nested deeper"),
    ],
)
def test_what_is_no_bill_of_materials_is_invalid(data: bytes, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint) as refused:
        parse_cyclonedx(data, "bom.json", "external")
    assert refused.value.where == "bom.json"


def test_too_many_components_are_refused_and_not_cut() -> None:
    with pytest.raises(Invalid, match="more than 100000 components"):
        parse_cyclonedx(bom(components=[{}] * 100_001), "bom.json", "external")


# --- any report ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("junit", JUNIT, TestResult("PASSED", "unit", (), 1, 0, 0, ())),
        ("cobertura", COBERTURA.partition(b">")[2], Coverage("unit", 1, 2, "external")),
        ("lcov", LCOV, Coverage("unit", 1, 2, "external")),
        ("cyclonedx", BOM, Components("cyclonedx", "external", 1, 0, ("MIT",))),
    ],
)
def test_a_report_names_its_source_its_origin_and_its_bytes(kind: str, data: bytes, expected: Any) -> None:
    (found,) = intake.read(kind, data, source="jenkins", suite="unit")
    stamped = {**vars(expected), "origin": "external", "source": "jenkins", "report": digest(data)}
    assert vars(found) == stamped
    assert Statement((Subject("shop", digest(b"x")),), found).payload()


def test_findings_are_brought_too_and_an_origin_can_be_said() -> None:
    (found,) = intake.read("sarif", SARIF, source="ci", suite="scan", origin="self-reported")
    assert isinstance(found, Findings)
    assert (found.tool, found.high, found.origin, found.source) == ("grype", 1, "self-reported", "ci")
    assert found.at is None


def test_a_report_of_no_tests_is_no_pass() -> None:
    for cases in (b"", b"<testcase><skipped/></testcase>"):
        (found,) = intake.read("junit", b"<testsuite>%s</testsuite>" % cases, source="ci", suite="unit")
        assert isinstance(found, TestResult)
        assert (found.result, found.passed) == ("WARNED", 0)


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (JUNIT, "report", "junit"),
        (b"<testsuite name='x'>", "bom.json", "junit"),
        (COBERTURA, "report", "cobertura"),
        (b"\xef\xbb\xbf<bom xmlns='x'>", "report", "cyclonedx"),
        (LCOV, "report", "lcov"),
        (SARIF, "report", "sarif"),
        (b' {"version": "2.1.0", "runs": []}', "report", "sarif"),
        (BOM, "report", "cyclonedx"),
        (b"# a comment\n", "coverage/lcov.info", "lcov"),
        (b"?", "out.sarif", "sarif"),
        (b"?", "app.cdx.json", "cyclonedx"),
        (b"?", "build/TEST-shop.xml", "junit"),
        (b"?", "coverage.xml", "cobertura"),
    ],
)
def test_the_kind_is_told_by_content_and_then_by_name(data: bytes, name: str, kind: str) -> None:
    assert intake.guess(data, name) == kind


@pytest.mark.parametrize("data", [b"", b"{}", b"<html/>", b"\x00\xff", b"<!--" * 900, b"<!-->" * 800])
def test_what_cannot_be_told_lists_the_kinds(data: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        intake.guess(data, "file")
    assert "junit, cobertura, lcov, sarif, cyclonedx" in refused.value.next_move


@pytest.mark.parametrize(
    ("kind", "data", "suite", "complaint"),
    [
        ("spdx", b"", "unit", "unknown kind of report: 'spdx'"),
        ("junit", JUNIT, "", "short text"),
        ("junit", JUNIT, "a\nb", "short text"),
        ("cobertura", LCOV, "unit", "not XML"),
        ("lcov", COBERTURA, "unit", "not LCOV"),
        ("cobertura", COBERTURA, "unit", "document type"),
        ("cobertura", b'<coverage lines-covered="-1" lines-valid="2"/>', "unit", "whole numbers"),
        ("cobertura", b'<coverage lines-covered="1" lines-valid="9999999999"/>', "unit", "whole numbers"),
        ("lcov", "SF:a\nDA:١,١\nend_of_record\n".encode(), "unit", "not a line count"),
        ("junit", b"<a>" * 1_000_000, "unit", "nested deeper|root"),
        ("junit", b'<?xml version="1.0" encoding="unicode_escape"?><testsuite/>', "unit", "no encoding"),
        ("sarif", b'{"version": "2.1.0", "version": "2.1.0", "runs": []}', "unit", "given twice"),
        ("sarif", b'{"version": "2.1.0", "runs": [1e999]}', "unit", "beyond every number"),
        ("sarif", b'{"version": "2.1.0", "runs": [NaN]}', "unit", "NaN"),
    ],
)
def test_a_report_that_cannot_be_relied_on_is_invalid(
    kind: str, data: bytes, suite: str, complaint: str
) -> None:
    with pytest.raises(Invalid, match=complaint):
        intake.read(kind, data, source="ci", suite=suite)


def test_encodings_of_xml_that_tools_write_are_read() -> None:
    text = '<?xml version="1.0" encoding="{}"?><testsuite><testcase name="é"><error/></testcase></testsuite>'
    for name, codec in (("UTF-8", "utf-8-sig"), ("windows-1252", "cp1252"), ("utf-16", "utf-16")):
        (found,) = intake.read("junit", text.format(name).encode(codec), source="ci", suite="unit")
        assert isinstance(found, TestResult)
        assert found.failed_tests == ("é",)


# --- strict JSON --------------------------------------------------------------------------------------------


def test_json_is_read_up_to_its_bounds() -> None:
    assert read_json(b'\xef\xbb\xbf{"a": [1.5, {}]}', "x", limit=99, depth=3) == {"a": [1.5, {}]}
    assert read_json(b"1", "x", limit=1, depth=0) == 1
    for data in (b"[[[]]]", b"11111", b'"\xff"', b"[-Infinity]", b"9" * 5000):
        with pytest.raises(Invalid):
            read_json(data, "x", limit=4 if data == b"11111" else 9000, depth=2)


def test_text_from_outside_can_be_signed() -> None:
    assert clean(" a\ud800\x00b\n" + "c" * 9, 7) == "a? b c"


def test_ratings() -> None:
    assert [by_score(score) for score in (10, 9, 8.9, 7, 4, 3.9)] == [
        *("critical", "critical", "high", "high", "medium", "low")
    ]
    assert worst([None, "low", "medium"]) == "medium"
    assert worst([]) == worst([None]) == "high"
