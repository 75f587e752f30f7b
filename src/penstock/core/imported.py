"""Statements signed elsewhere: an in-toto statement in a DSSE envelope, and what it says in our own words.

`foreign` is called by the ledger, which checks the signatures, and by whatever shows such a statement;
`translate` by the selection of evidence. Pure: nothing here knows a key. Unlike `core.evidence` it takes
any JSON formatting and several signatures: the bytes are kept as they came and never written again.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from penstock.core.bom import MAX_LICENCES, MAX_VULNERABILITIES, read_bom
from penstock.core.codec import Json, decode
from penstock.core.digest import digest, hex_of
from penstock.core.evidence import PAYLOAD_TYPE, STATEMENT_TYPE, Subject
from penstock.core.findings import MAX_FINDINGS, WORDS, Severity, by_score, summarise, worst
from penstock.core.outside import clean, read_json
from penstock.core.predicates import Components, Coverage, Finding, Findings, Predicate, TestResult
from penstock.errors import Invalid

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
MAX_SIGNATURES = 16
MAX_SUBJECTS = 256
MAX_TEXT = 300
MAX_COUNT = 10**9
MAX_NAMES = 50
STATEMENT_TYPES = (STATEMENT_TYPE, "https://in-toto.io/Statement/v0.1")

CYCLONEDX = "https://cyclonedx.org/bom"
VULNS = ("https://in-toto.io/attestation/vulns/v0.1", "https://in-toto.io/attestation/vulns/v0.2")

Report = TestResult | Coverage | Findings | Components


@dataclass(frozen=True)
class Foreign:
    """What an envelope holds. *signatures* are (key id, signature) over *payload*; nobody checked them yet.

    *subjects* are those with a SHA-256 digest; a key id is a hint, and may be empty.
    """

    predicate_type: str
    subjects: tuple[Subject, ...]
    predicate_json_text: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]


def foreign(raw: bytes) -> Foreign:
    """Parse the bytes of an envelope. `Invalid` unless all we rely on is as DSSE and in-toto say."""
    envelope = _mapping(read_json(raw, "envelope", limit=MAX_BYTES, depth=MAX_DEPTH), "envelope")
    if _text(envelope, "payloadType", "envelope") != PAYLOAD_TYPE:
        move = f"give a DSSE envelope of {PAYLOAD_TYPE}: in a Sigstore bundle, what dsseEnvelope holds"
        raise Invalid("not an envelope around an in-toto statement", where="envelope", next_move=move)
    signatures = _list(envelope, "signatures", "envelope", MAX_SIGNATURES)
    if not signatures:
        raise Invalid("nobody signed it", where="envelope")
    payload = _base64(envelope, "payload")
    statement = _mapping(read_json(payload, "statement", limit=MAX_BYTES, depth=MAX_DEPTH), "statement")
    if statement.get("_type") not in STATEMENT_TYPES:
        raise Invalid("not an in-toto statement", where="statement")
    return Foreign(
        predicate_type=_text(statement, "predicateType", "statement"),
        subjects=tuple(_subjects(statement)),
        predicate_json_text=json.dumps(_mapping(statement.get("predicate", {}), "predicate")),
        payload=payload,
        signatures=tuple(_signature(item) for item in signatures),
    )


def translate(foreign_envelope_base64: str) -> tuple[Predicate, ...]:
    """What the statement says in our own words, with the origin ``external``; () if we do not know its type.

    The caller knows the source and the time. *report* is the digest of the payload that was signed.
    """
    if len(foreign_envelope_base64) > 2 * MAX_BYTES:
        raise Invalid(f"larger than {MAX_BYTES} bytes", where="envelope")
    found = foreign(_base64({"envelope": foreign_envelope_base64}, "envelope"))
    kind = CYCLONEDX if found.predicate_type.startswith(f"{CYCLONEDX}/v") else found.predicate_type
    reader = READERS.get(kind)
    if reader is None:
        return ()
    name = digest(found.payload)
    reports = reader(json.loads(found.predicate_json_text))
    return tuple(replace(report, origin="external", at=None, source=None, report=name) for report in reports)


# --- the envelope ----------------------------------------------------------------------------------------


def _signature(item: Json) -> tuple[str, bytes]:
    signature = _mapping(item, "signature")
    keyid = signature.get("keyid") or ""
    if not isinstance(keyid, str) or clean(keyid, MAX_TEXT) != keyid:
        raise Invalid("keyid must be a short text", where="signature")
    return keyid, _base64(signature, "sig")


def _subjects(statement: Json) -> Iterator[Subject]:
    found = 0
    for item in _list(statement, "subject", "statement", MAX_SUBJECTS):
        subject = _mapping(item, "subject")
        name = subject.get("name") or subject.get("uri") or ""
        if not isinstance(name, str) or clean(name, MAX_TEXT) != name:
            raise Invalid("a name must be a short text", where="subject")
        digits = _mapping(subject.get("digest", {}), "subject").get("sha256")
        if digits is not None:
            found += 1
            wanted = f"sha256:{digits}"
            hex_of(wanted)
            yield Subject(name, wanted)
    if not found:
        raise Invalid(
            "it is about nothing with a SHA-256 digest",
            where="subject",
            next_move="attest the artifact by its sha256 digest",
        )


def _mapping(value: Json, where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise Invalid("must be an object", where=where)
    return value


def _text(holder: dict[str, Json], key: str, where: str) -> str:
    value = holder.get(key)
    if not isinstance(value, str) or not value or clean(value, MAX_TEXT) != value:
        raise Invalid(f"{key} must be a short text", where=where)
    return value


def _list(holder: dict[str, Json], key: str, where: str, most: int) -> list[Json]:
    value = holder.get(key)
    if not isinstance(value, list) or len(value) > most:
        raise Invalid(f"{key} must be a list of at most {most}", where=where)
    return value


def _base64(holder: dict[str, Json], key: str) -> bytes:
    """Base64 in either of the two alphabets that DSSE allows."""
    value = holder.get(key)
    try:
        if not isinstance(value, str):
            raise ValueError
        return base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"{key} must be base64", where="envelope") from error


# --- what it says ----------------------------------------------------------------------------------------


def _tests(predicate: Json) -> tuple[Report, ...]:
    """in-toto's test-result: with counts beside it if Penstock wrote it, else lists of names."""
    if "suite" in predicate and "passed" in predicate:
        return _ours(TestResult)(predicate)
    result = predicate.get("result")
    if result not in ("PASSED", "WARNED", "FAILED"):
        raise Invalid("result must be PASSED, WARNED or FAILED", where="predicate")
    lists = ("passedTests", "warnedTests", "failedTests")
    passed, warned, failing = (_names(predicate.get(key), key) for key in lists)
    # A result that names no test at all stands for one.
    alone = int(all(predicate.get(key) is None for key in lists))
    failed = max(len(failing), int(result == "FAILED"))
    settings = predicate.get("configuration")
    first = settings[0] if isinstance(settings, list) and settings else {}
    suite = first.get("name") or first.get("uri") if isinstance(first, dict) else None
    return (
        TestResult(
            result="FAILED" if failed else result,
            suite=clean(suite, 80) if isinstance(suite, str) and clean(suite, 80) else "tests",
            configuration=(),
            passed=len(passed) + len(warned) + (0 if failed else alone),
            failed=failed,
            skipped=0,
            failed_tests=failing[:MAX_NAMES],
        ),
    )


def _names(value: Json, key: str) -> tuple[str, ...]:
    listed = [] if value is None else value
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise Invalid(f"{key} must be a list of names", where="predicate")
    return tuple(clean(name, MAX_TEXT) for name in listed)


def _ours(kind: type[TestResult | Coverage | Findings | Components]) -> Callable[[Json], tuple[Report, ...]]:
    """A report as another Penstock writes it."""

    def read(predicate: Json) -> tuple[Report, ...]:
        report: Report = decode(kind, _cleaned(predicate), "predicate")
        if any(not 0 <= n <= MAX_COUNT for n in vars(report).values() if type(n) is int):
            raise Invalid(f"counts must be from 0 to {MAX_COUNT}", where="predicate")
        problem = _contradiction(report)
        if problem:
            raise Invalid(problem, where="predicate")
        return (report,)

    return read


def _contradiction(report: Report) -> str:
    """Why the report cannot be true; "" if it can."""
    match report:
        case TestResult():
            fine = len(report.failed_tests) <= min(report.failed, MAX_NAMES)
            fine = fine and (report.result == "FAILED") == (report.failed > 0)
            return "" if fine else "its result, counts and names of failed tests do not agree"
        case Coverage():
            fine = report.covered <= report.total
            return "" if fine else f"{report.covered} lines covered of {report.total}"
        case Findings():
            listed = summarise(report.tool, report.origin, report.findings)
            counts = ("critical", "high", "medium", "low")
            fine = all(getattr(listed, name) <= getattr(report, name) for name in counts)
            fine = fine and len(report.findings) <= MAX_FINDINGS
            return "" if fine else "it lists more findings than it counts, or too many"
        case Components():
            fine = report.unlicensed <= report.count and len(report.licences) <= MAX_LICENCES
            return "" if fine else "its counts of components and licences do not agree"


def _cleaned(value: Json) -> Json:
    """The same with texts that can be signed: what a fact says ends up in a sign-off."""
    if isinstance(value, str):
        return clean(value, MAX_TEXT)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return {key: _cleaned(item) for key, item in value.items()} if isinstance(value, dict) else value


def _bom(predicate: Json) -> tuple[Report, ...]:
    return read_bom(predicate, "predicate", "external")


def _vulns(predicate: Json) -> tuple[Report, ...]:
    """A scan for vulnerabilities. Here an empty list is a finding of none: the type says so."""
    scanner = _mapping(predicate.get("scanner"), "predicate.scanner")
    results = _list(scanner, "result", "predicate.scanner", MAX_VULNERABILITIES)
    found = (_vulnerability(item) for item in results)
    return (summarise(_text(scanner, "uri", "predicate.scanner")[:80], "external", found),)


def _vulnerability(item: Json) -> Finding:
    result = _mapping(item, "predicate.scanner.result")
    if "vulnerability" in result:  # the text of version 0.1 has it one level deeper than its example
        result = _mapping(result["vulnerability"], "predicate.scanner.result")
    given = result.get("severity")
    ratings = given if isinstance(given, list) else [given] if isinstance(given, dict) else []
    name = _text(result, "id", "predicate.scanner.result")
    return Finding(clean(name, 120), worst(_rating(_mapping(r, "severity")) for r in ratings), "")


def _rating(rating: dict[str, Json]) -> Severity | None:
    """What one rating says: a word, or the score of a method that is CVSS."""
    method, score = rating.get("method"), rating.get("score")
    if isinstance(score, str) and score.lower() in WORDS:
        return WORDS[score.lower()]
    if not isinstance(method, str) or not any(name in method.lower() for name in ("cvss", "nvd")):
        return None
    try:
        number = float(score) if isinstance(score, (str, float)) or type(score) is int else -1.0
    except (ValueError, OverflowError):
        return None  # a vector, or a word that we do not know
    if not 0 <= number <= 10:
        raise Invalid(f"a CVSS score of {clean(str(score), 40)}", where="severity")
    return by_score(number)


READERS: dict[str, Callable[[Json], tuple[Report, ...]]] = {
    TestResult.TYPE: _tests,
    Coverage.TYPE: _ours(Coverage),
    Findings.TYPE: _ours(Findings),
    Components.TYPE: _ours(Components),
    CYCLONEDX: _bom,
    **dict.fromkeys(VULNS, _vulns),
}
