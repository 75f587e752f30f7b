"""What is said to the process that reads the document, and what it answers: one JSON value each way.

Called on both ends. Must not know how it travels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: An answer must be as the document says; to a request that it does not allow, only no server error.
Expected = Literal["documented", "no-error"]


@dataclass(frozen=True)
class PlanCall:
    """Which requests to make: one for each operation that may be asked, and *cases* with drawn values.

    GET and HEAD may be asked; others only where *declared* names them (``POST /items``). *document* is in
    base64.
    """

    kind: Literal["plan"]
    name: str
    document: str
    cases: int
    seed: int
    declared: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    operation: str
    method: str
    path: str
    expected: Expected
    headers: Mapping[str, str]
    body: str | None = None


@dataclass(frozen=True)
class Planned:
    version: str
    operations: tuple[str, ...]
    skipped: tuple[str, ...]
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Answered:
    """One answer to a request. *body* is base64, and *whole* unless there was too much of it to keep."""

    operation: str
    method: str
    expected: Expected
    status: int
    content_type: str
    body: str
    whole: bool


@dataclass(frozen=True)
class JudgeCall:
    kind: Literal["judge"]
    name: str
    document: str
    answers: tuple[Answered, ...]


@dataclass(frozen=True)
class Judged:
    """What is wrong with each answer, in words; "" where nothing is."""

    problems: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """A call on its way."""

    call: PlanCall | JudgeCall
