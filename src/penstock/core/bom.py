"""Reads a CycloneDX document (1.4 to 1.6): what an artifact is made of, and what is known against it.

Called by `checks.cyclonedx`, with a file, and by `core.imported`, with a signed statement. Pure and strict:
what is read has to be of the type that the specification gives it, or the count would be a smaller one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TypeVar

from penstock.core.codec import Json
from penstock.core.findings import WORDS, Severity, by_score, summarise, worst
from penstock.core.outside import clean
from penstock.core.predicates import Components, Finding, Findings, Origin
from penstock.errors import Invalid

VERSIONS = ("1.4", "1.5", "1.6")
MAX_COMPONENTS = 100_000
MAX_VULNERABILITIES = 100_000
MAX_LICENCES = 200
#: States of an analysis after which a vulnerability is none of this artifact's.
SETTLED = ("not_affected", "false_positive", "resolved", "resolved_with_pedigree")

T = TypeVar("T")


def read_bom(document: Json, where: str, origin: Origin) -> tuple[Components | Findings, ...]:
    """`Components` if the document lists any, `Findings` if it lists vulnerabilities; `Invalid` if neither.

    An empty list of vulnerabilities is no finding of none: tools that did not look write one too.
    """
    bom = _Bom(where)
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX":
        raise Invalid("not a CycloneDX document", where=where)
    version = bom.optional(document, "specVersion", str, "")
    if version not in VERSIONS:
        raise Invalid(
            f"CycloneDX {clean(version, 20) or 'without a version'}; known: {', '.join(VERSIONS)}",
            where=where,
            next_move="have the tool write one of these versions, or convert the document",
        )
    tool = bom.tool(document)
    components = list(itertools.islice(bom.components(document), MAX_COMPONENTS + 1))
    vulnerabilities = bom.optional(document, "vulnerabilities", list, [])
    if len(components) > MAX_COMPONENTS or len(vulnerabilities) > MAX_VULNERABILITIES:
        most = f"{MAX_COMPONENTS} components or {MAX_VULNERABILITIES} vulnerabilities"
        raise Invalid(f"more than {most}", where=where)
    if not components and not vulnerabilities:
        raise Invalid("it lists no component and no vulnerability", where=where)
    found: list[Components | Findings] = []
    if components:
        found.append(_summary(tool, origin, [bom.licences(component) for component in components]))
    if vulnerabilities:
        known = (bom.finding(item) for item in vulnerabilities if not bom.settled(item))
        found.append(summarise(tool, origin, known))
    return tuple(found)


def _summary(tool: str, origin: Origin, licences: list[tuple[str, ...]]) -> Components:
    distinct = sorted({name for names in licences for name in names})
    unlicensed = sum(not names for names in licences)
    return Components(tool, origin, len(licences), unlicensed, tuple(distinct[:MAX_LICENCES]))


class _Bom:
    """Reads parts of one document; every error names its file."""

    def __init__(self, where: str) -> None:
        self._where = where

    def optional(self, holder: Json, key: str, kind: type[T], default: T) -> T:
        """The field, or *default* if it is absent or null; `Invalid` if it is something else."""
        if not isinstance(holder, dict):
            raise Invalid(f"not CycloneDX: {key!r} is wanted of what is no object", where=self._where)
        value = holder.get(key)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise Invalid(f"not CycloneDX: {key!r} is of the wrong type", where=self._where)
        return value

    def components(self, document: Json) -> Iterator[Json]:
        """Every component, nested ones too; the thing that the document describes is not one of its own."""
        subject = self.optional(self.optional(document, "metadata", dict, {}), "component", dict, {})
        waiting = [*self._parts(subject), *self._parts(document)]
        while waiting:
            component = waiting.pop()
            waiting.extend(self._parts(component))
            yield component

    def _parts(self, holder: Json) -> list[Json]:
        return self.optional(holder, "components", list, [])

    def licences(self, component: Json) -> tuple[str, ...]:
        """What the component says it is licensed under: an id, else a name, or an expression."""
        choices = self.optional(component, "licenses", list, [])
        return tuple(filter(None, (self._licence(choice) for choice in choices)))

    def _licence(self, choice: Json) -> str:
        licence = self.optional(choice, "license", dict, {})
        named = self.optional(licence, "id", str, "") or self.optional(licence, "name", str, "")
        return clean(named or self.optional(choice, "expression", str, ""), 200)

    def tool(self, document: Json) -> str:
        """The first tool that the document names, in either form that the specification has."""
        metadata = self.optional(document, "metadata", dict, {})
        tools = metadata.get("tools")
        listed = self._parts(tools) if isinstance(tools, dict) else self.optional(metadata, "tools", list, [])
        names = (clean(self.optional(tool, "name", str, ""), 80) for tool in listed)
        return next(filter(None, names), "cyclonedx")

    def settled(self, vulnerability: Json) -> bool:
        return self.optional(vulnerability, "analysis", dict, {}).get("state") in SETTLED

    def finding(self, vulnerability: Json) -> Finding:
        ratings = self.optional(vulnerability, "ratings", list, [])
        words = self.optional(vulnerability, "description", str, "")
        affected = self.optional(vulnerability, "affects", list, [])
        return Finding(
            id=clean(self.optional(vulnerability, "id", str, ""), 120) or "?",
            severity=worst(said for rating in ratings for said in self._rating(rating)),
            message=clean(words, 300),
            location=clean(self.optional(affected[0], "ref", str, ""), 300) if affected else "",
        )

    def _rating(self, rating: Json) -> tuple[Severity | None, ...]:
        """What one rating says, in words and by its score, if that is one of CVSS."""
        said = WORDS.get(self.optional(rating, "severity", str, ""))
        method = self.optional(rating, "method", str, "CVSS")
        score = rating.get("score")
        if score is None or not method.startswith("CVSS"):
            return (said,)
        if type(score) not in (int, float) or not 0 <= score <= 10:
            raise Invalid(f"not CycloneDX: a CVSS score of {clean(str(score), 40)}", where=self._where)
        return (said, by_score(score))
