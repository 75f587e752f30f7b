"""What is said to the process that reads what the service wrote, and what it answers: a JSON value each.

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
class Seen:
    """One answer of one release. *body* is base64, and *whole* unless there was too much of it to keep."""

    status: int
    headers: Mapping[str, str]
    body: str
    whole: bool


@dataclass(frozen=True)
class Pair:
    """The same request to two releases at the same moment, and to the stable one *again*: where its own
    answers differ, they tell nothing."""

    stable: Seen
    dark: Seen
    again: Seen | None


@dataclass(frozen=True)
class CompareCall:
    """*ignore* are rules as `core.acceptanceconfig` describes them."""

    kind: Literal["compare"]
    name: str
    ignore: tuple[str, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Difference:
    """*places* in which a pair differs, without the values; *told* is false if that cannot be told."""

    told: bool
    places: tuple[str, ...]


@dataclass(frozen=True)
class Differences:
    pairs: tuple[Difference, ...]


@dataclass(frozen=True)
class Call:
    """A call on its way."""

    call: PlanCall | JudgeCall | CompareCall
