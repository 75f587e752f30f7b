"""Reports are read strictly: whole counts, or `Invalid`; never a traceback, never a smaller number."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.checks.reports import MAX_BYTES, MAX_NAMES, JUnit, Lines, parse_coverage, parse_junit
from penstock.checks.sarif import at_least, merge, parse_sarif
from penstock.core.evidence import Statement, Subject
from penstock.core.predicates import Findings
from penstock.errors import Invalid

JUNIT = b"""<?xml version="1.0"?><testsuites><testsuite name="outer"><testsuite name="inner">
<testcase classname="shop.Cart" name="adds"/>
<testcase classname="shop.Cart" name="sums"><failure message="1 != 2">x</failure></testcase>
<testcase name="loads"><error/><skipped/></testcase>
<testcase classname="shop.Cart" name="later"><skipped/></testcase>
</testsuite>
<testcase classname="a" name="b"><system-out>failure</system-out></testcase></testsuite></testsuites>"""

COBERTURA = """<coverage {attributes}><packages><package><classes><class filename="a.py">
<methods><method><lines><line number="1" hits="1"/></lines></method></methods>
<lines><line number="1" hits="1"/><line number="2" hits="0"/><line number="3" hits="7"/></lines>
</class></classes></package></packages></coverage>"""

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    b'<testsuite><testcase name="&b;"/></testsuite>'
)


def test_junit_counts_nested_suites() -> None:
    assert parse_junit(JUNIT, "junit.xml") == JUnit(2, 2, 1, ("shop.Cart::sums", "loads"))


def test_junit_of_nothing_is_zero_tests() -> None:
    assert parse_junit(b"<testsuites/>", "x") == JUnit(0, 0, 0, ())


def test_junit_keeps_whole_counts_and_few_names() -> None:
    cases = "".join(f'<testcase name="t{n}"><failure/></testcase>' for n in range(MAX_NAMES + 5))
    found = parse_junit(f"<testsuite>{cases}</testsuite>".encode(), "x")
    assert (found.failed, len(found.failing)) == (MAX_NAMES + 5, MAX_NAMES)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (BOMB, "document type"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><testsuite/>', "document type"),
        (b"", "not well-formed"),
        (b"<testsuite>", "not well-formed"),
        (b"<html/>", "its root is <html>"),
        (b"<testsuite><testcase><testcase/></testcase></testsuite>", "inside a test case"),
        (b"<testsuite>" + b"<a>" * 10_000, "nested deeper"),
        (b'<?xml version="1.0" encoding="no-such"?><testsuite/>', "not well-formed"),
        (b" " * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_what_is_not_junit_is_invalid(data: bytes, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint) as refused:
        parse_junit(data, "junit.xml")
    assert refused.value.where == "junit.xml"


def test_cobertura_as_stated_or_counted() -> None:
    assert parse_coverage(COBERTURA.format(attributes="").encode(), "x") == Lines(2, 3)
    stated = COBERTURA.format(attributes='lines-covered="8" lines-valid="10"')
    assert parse_coverage(stated.encode(), "x") == Lines(8, 10)


def test_lcov_counts_each_line_once() -> None:
    text = "TN:\nSF:a.js\nFN:1,f\nDA:1,3\nDA:2,0\nLF:2\nLH:1\nend_of_record\nSF:a.js\nDA:2,1\nend_of_record\n"
    assert parse_coverage(text.encode(), "x") == Lines(2, 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "SF:a\nDA:1,1\n",
        "DA:1,1\nend_of_record\n",
        "SF:a\nDA:1,-1\nend_of_record\n",
        "<html/>",
        "<coverage lines-covered='3' lines-valid='2'/>",
        "<coverage lines-covered='3'/>",
        "<coverage><class><line number='1' hits='many'/></class></coverage>",
        "\udcff",
    ],
)
def test_what_is_not_coverage_is_invalid(text: str) -> None:
    with pytest.raises(Invalid):
        parse_coverage(text.encode("utf-8", "surrogateescape"), "coverage")


def sarif(*results: object, rules: object = (), **run: object) -> bytes:
    driver = {"name": "scanner", "rules": list(rules) if isinstance(rules, tuple) else rules}
    return json.dumps(
        {"version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": list(results), **run}]}
    ).encode()


def counts(found: Findings) -> tuple[int, int, int, int]:
    return (found.critical, found.high, found.medium, found.low)


def test_sarif_severity_from_the_score_then_the_level() -> None:
    scores = {"9.0": 0, "8.9": 1, "7.0": 1, "6.9": 2, "4": 2, "3.9": 3, "junk": 2, "NaN": 2}
    for score, place in scores.items():
        rules = ({"id": "R", "properties": {"security-severity": score}},)
        (found,) = parse_sarif(sarif({"ruleId": "R"}, rules=rules), "x", "platform")
        assert counts(found).index(1) == place, score
    results = [{"level": level} for level in ("error", "warning", "note", "none", "alien")]
    (found,) = parse_sarif(sarif(*results), "x", "platform")
    assert counts(found) == (0, 2, 1, 2)


def test_sarif_finds_the_rule_by_index_and_its_default_level() -> None:
    rules = ({"id": "A"}, {"id": "B", "defaultConfiguration": {"level": "error"}})
    (found,) = parse_sarif(sarif({"ruleIndex": 1}, {"rule": {"id": "B"}}, rules=rules), "x", "platform")
    assert counts(found) == (0, 2, 0, 0)
    assert found.findings[0].id == "B"


def test_sarif_leaves_out_what_is_suppressed_or_no_finding() -> None:
    results = [
        {"suppressions": [{"kind": "inSource"}]},
        {"suppressions": [{"status": "accepted"}]},
        {"kind": "pass"},
        {"suppressions": [{"status": "rejected"}], "message": {"text": "kept"}},
        {"suppressions": []},
    ]
    (found,) = parse_sarif(sarif(*results), "x", "platform")
    assert (found.medium, found.findings[0].message) == (2, "kept")


def test_sarif_lists_the_worst_first_with_whole_counts() -> None:
    results = [{"level": "note"}] * 300 + [{"level": "error", "ruleId": "bad"}]
    (found,) = parse_sarif(sarif(*results), "x", "platform")
    assert (found.high, found.low, len(found.findings), found.findings[0].id) == (1, 300, 200, "bad")
    raised = at_least(found, "high")
    assert counts(raised) == (0, 301, 0, 0)
    assert {finding.severity for finding in raised.findings} == {"high"}
    (both,) = merge([found, found])
    assert counts(both) == (0, 2, 0, 600)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "version"),
        (b'{"version": "2.0.0"}', "not 2.1.0"),
        (b'{"version": "2.1.0", "runs": []}', "without a run"),
        (b'{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}}]}', "results"),
        (sarif(invocations=[{"executionSuccessful": False}]), "did not succeed"),
        (sarif(3), "no object"),
    ],
)
def test_what_is_not_a_finished_sarif_report_is_invalid(data: bytes, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint):
        parse_sarif(data, "report.sarif", "platform")


def test_odd_text_can_still_be_signed() -> None:
    (found,) = parse_sarif(sarif({"ruleId": "a\ud800\x00b", "message": {"text": "\ud800"}}), "x", "platform")
    payload = Statement((Subject("shop", "sha256:" + "a" * 64),), found).payload()
    assert b'"id":"a? b"' in payload


names = st.sampled_from(
    ["testsuites", "testsuite", "testcase", "failure", "coverage", "class", "line", "x:y"]
)
attributes = st.dictionaries(
    st.sampled_from(["name", "classname", "hits", "number", "lines-covered", "lines-valid", "filename"]),
    st.text(max_size=8),
)


@st.composite
def xml(draw: st.DrawFn, depth: int = 0) -> str:
    name = draw(names)
    given_attributes = draw(attributes).items()
    text = " ".join(f'{key}="{value}"' for key, value in given_attributes)
    inner = "".join(draw(st.lists(xml(depth + 1), max_size=2))) if depth < 3 else ""
    return f"<{name} {text}>{inner}</{name}>"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
results = st.dictionaries(
    st.sampled_from(
        ["ruleId", "ruleIndex", "rule", "level", "kind", "message", "locations", "suppressions", "properties"]
    ),
    json_values,
)


@given(st.binary() | xml().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_make_the_readers_stumble(data: bytes) -> None:
    for parse in (parse_junit, parse_coverage):
        try:
            found = parse(data, "fuzz")
        except Invalid:
            continue
        assert isinstance(found, (JUnit, Lines))


@given(results, json_values, json_values)
def test_no_sarif_makes_the_reader_stumble(result: object, rules: object, invocations: object) -> None:
    try:
        found = parse_sarif(sarif(result, rules=rules, invocations=invocations), "fuzz", "platform")
    except Invalid:
        return
    assert sum(counts(found[0])) in (0, 1)
    Statement((Subject("shop", "sha256:" + "a" * 64),), found[0]).payload()


@given(json_values)
def test_any_json_is_read_or_invalid(value: object) -> None:
    for data in (value, {"version": "2.1.0", "runs": [value]}, {"version": "2.1.0", "runs": value}):
        with pytest.raises(Invalid):
            parse_sarif(json.dumps(data).encode(), "fuzz", "platform")
