"""What can be live: artifacts, environment data, and the pair of both that is rolled out and back.

Called by every layer. Must not know where an artifact is stored or where a release runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from penstock.core.digest import digest_of, short

Value = str | int | float | bool


@dataclass(frozen=True)
class Change:
    """What someone wants live. *revision* is a full git commit id of *repository*.

    Author, reviewers and work items are what the commit says of itself (its author field and its
    ``Reviewed-by:``, ``Refs:`` trailers): a claim, shown as one. *signing_key* (raw, hex) is no claim: it
    signed the commit; "" if none did.
    """

    kind: Literal["code", "configuration", "rollback"]
    service: str
    environment: str
    repository: str
    revision: str
    author: str
    title: str
    authored_at: str = ""
    reviewers: tuple[str, ...] = ()
    work_items: tuple[str, ...] = ()
    signing_key: str = ""


@dataclass(frozen=True)
class Artifact:
    """An OCI image manifest by *digest*, and the service it is a version of."""

    name: str
    digest: str


@dataclass(frozen=True)
class EnvironmentData:
    """The typed document injected at run time; its digest is the second half of a release."""

    service: str
    environment: str
    values: Mapping[str, Value] = field(default_factory=dict)
    schema: Literal["penstock.environment/v1"] = "penstock.environment/v1"

    @property
    def digest(self) -> str:
        return digest_of(self)


@dataclass(frozen=True)
class Release:
    """The pair that is rolled out, and the pair that is rolled back."""

    service: str
    environment: str
    artifact: str
    data: str

    @property
    def digest(self) -> str:
        return digest_of(self)

    @property
    def id(self) -> str:
        """The short form people see: ``catalog-3f2a9c01d4e5``. Unique per service in practice."""
        return f"{self.service}-{short(self.digest)}"
