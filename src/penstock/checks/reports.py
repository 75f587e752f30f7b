"""Reads the reports that tests and scanners write: JUnit XML, Cobertura XML, LCOV (SARIF is in `sarif`).

Called by the checks beside it. Pure. A report is written by code under test or by a tool that read it:
anything that is not exactly such a report is `Invalid`, naming the file, and never a smaller count.
"""

from __future__ import annotations

import abc
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.core.outside import clean
from penstock.errors import Invalid

MAX_BYTES = 20 * 1024 * 1024
MAX_DEPTH = 200
MAX_NAMES = 50

LCOV_LINE = re.compile(r"(?P<key>[A-Z]+):(?P<value>.*)")
DECLARED = re.compile(
    rb"(?:\xef\xbb\xbf)?<\?xml[^>]{0,80}?encoding\s{0,9}=\s{0,9}[\"']([A-Za-z0-9._-]{1,40})"
)
ENCODINGS = re.compile(r"utf-?8|us-ascii|ascii|iso-8859-[0-9]{1,2}|windows-125[0-8]")
DATA_LINE = re.compile(r"(\d{1,9}),(\d{1,18})(?:,.*)?", re.ASCII)


@dataclass(frozen=True)
class JUnit:
    """Counts of test cases; *failing* names at most `MAX_NAMES` of them, as ``class::name``."""

    passed: int
    failed: int
    skipped: int
    failing: tuple[str, ...]


@dataclass(frozen=True)
class Lines:
    """Lines *covered* of *total*."""

    covered: int
    total: int


def parse_junit(data: bytes, name: str) -> JUnit:
    """The counts of a JUnit report; *name* is the file named in errors. A report of no tests is all zeros."""
    reader = _JUnitReader(name)
    _feed(reader, data, name)
    return JUnit(reader.passed, reader.failed, reader.skipped, tuple(reader.failing))


def parse_coverage(data: bytes, name: str) -> Lines:
    """Line coverage of a Cobertura (XML) or LCOV (text) report."""
    _check_size(data, name)
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return _parse_lcov(data, name)
    reader = _CoberturaReader(name)
    _feed(reader, data, name)
    return reader.lines()


class _Reader(abc.ABC):
    """Sees elements as they pass, so that a large report is never a large tree."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path: list[str] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if len(self.path) >= MAX_DEPTH:
            raise Invalid(f"elements are nested deeper than {MAX_DEPTH}", where=self.name)
        tag = tag.rpartition("}")[2]
        self.path.append(tag)
        self.opened(tag, attributes)

    def end(self, tag: str) -> None:
        self.closed(self.path.pop())

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        # Entities can only be declared in a document type, and a few of them expand to gigabytes.
        raise Invalid("a document type declaration is not accepted", where=self.name)

    def close(self) -> None:  # noqa: B027 (the parser calls it; there is nothing to close)
        """The end of the document."""

    @abc.abstractmethod
    def opened(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element began."""

    def closed(self, tag: str) -> None:  # noqa: B027 (only some readers care)
        """An element ended."""


class _JUnitReader(_Reader):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.passed = self.failed = self.skipped = 0
        self.failing: list[str] = []
        self._case: str | None = None
        self._result = ""

    def opened(self, tag: str, attributes: Mapping[str, str]) -> None:
        if len(self.path) == 1 and tag not in ("testsuites", "testsuite"):
            raise Invalid(f"not a JUnit report: its root is <{clean(tag, 40)}>", where=self.name)
        if tag == "testcase":
            if self._case is not None:
                raise Invalid("a test case inside a test case", where=self.name)
            self._case = "::".join(filter(None, (attributes.get("classname"), attributes.get("name", "?"))))
            self._result = ""
        elif self._case is not None and self.path[-2] == "testcase":
            if tag in ("failure", "error"):
                self._result = "failed"
            elif tag == "skipped":
                self._result = self._result or "skipped"

    def closed(self, tag: str) -> None:
        if tag != "testcase" or self._case is None:
            return
        if self._result == "failed":
            self.failed += 1
            if len(self.failing) < MAX_NAMES:
                self.failing.append(clean(self._case, 300))
        elif self._result == "skipped":
            self.skipped += 1
        else:
            self.passed += 1
        self._case = None


class _CoberturaReader(_Reader):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._stated: tuple[str | None, str | None] = (None, None)
        self._file = ""
        self._hit: dict[tuple[str, str], bool] = {}

    def opened(self, tag: str, attributes: Mapping[str, str]) -> None:
        if len(self.path) == 1:
            if tag != "coverage":
                raise Invalid(f"not a Cobertura report: its root is <{clean(tag, 40)}>", where=self.name)
            self._stated = (attributes.get("lines-covered"), attributes.get("lines-valid"))
        elif tag == "class":
            self._file = attributes.get("filename", "?")
        elif tag == "line" and "class" in self.path:
            # A line is listed under its method and under its class: once is enough.
            key = (self._file, attributes.get("number", "?"))
            hits = attributes.get("hits", "")
            if not re.fullmatch(r"\d{1,18}", hits, re.ASCII):
                raise Invalid(f"a line without a count of hits: {clean(hits, 40)!r}", where=self.name)
            self._hit[key] = self._hit.get(key, False) or int(hits) > 0

    def lines(self) -> Lines:
        """The counts that the report states; those of its lines if it states none."""
        if self._stated == (None, None):
            return Lines(sum(self._hit.values()), len(self._hit))
        texts = [text or "" for text in self._stated]
        if not all(re.fullmatch(r"\d{1,9}", text, re.ASCII) for text in texts):
            raise Invalid("lines-covered and lines-valid must be whole numbers", where=self.name)
        covered, total = (int(text) for text in texts)
        if covered > total:
            raise Invalid(f"{covered} lines covered of {total}", where=self.name)
        return Lines(covered, total)


def _feed(reader: _Reader, data: bytes, name: str) -> None:
    _check_size(data, name)
    # Named, so that the document cannot choose any codec that Python has.
    parser = ET.XMLParser(target=reader, encoding=_encoding(data, name))
    try:
        parser.feed(data)
        parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise Invalid(f"not well-formed XML: {clean(str(error), 200)}", where=name) from error


def _encoding(data: bytes, name: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    declared = DECLARED.match(data)
    encoding = declared[1].decode().lower() if declared else "utf-8"
    if not ENCODINGS.fullmatch(encoding):
        raise Invalid(f"not well-formed XML: {clean(encoding, 40)!r} is no encoding for it", where=name)
    return encoding


def _parse_lcov(data: bytes, name: str) -> Lines:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid("neither Cobertura XML nor LCOV text", where=name) from error
    hit: dict[tuple[str, int], bool] = {}
    source: str | None = None
    records = 0
    for number, line in enumerate(text.splitlines(), 1):
        match = LCOV_LINE.fullmatch(line)
        if line == "end_of_record" and source is not None:
            source, records = None, records + 1
        elif match and match["key"] == "SF":
            source = match["value"]
        elif match and match["key"] == "DA":
            counts = DATA_LINE.fullmatch(match["value"])
            if counts is None or source is None:
                raise Invalid("not a line count inside a record", where=f"{name}:{number}")
            key = (source, int(counts[1]))
            hit[key] = hit.get(key, False) or int(counts[2]) > 0
        elif not match and line.strip() and not line.startswith("#"):
            raise Invalid("neither Cobertura XML nor LCOV text", where=f"{name}:{number}")
    if not records or source is not None:
        raise Invalid("an LCOV report without a complete record", where=name)
    return Lines(sum(hit.values()), len(hit))


def _check_size(data: bytes, name: str) -> None:
    if len(data) > MAX_BYTES:
        raise Invalid(f"larger than {MAX_BYTES} bytes", where=name)
