"""What can be live: artifacts, environment data, and the pair of both that is rolled out and back.

Called by every layer. Must not know where an artifact is stored or where a release runs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from penstock.core.digest import digest_of, short
from penstock.core.masking import forms
from penstock.core.mesh import Mesh
from penstock.core.variables import check_variable
from penstock.errors import Invalid

#: The environment that is meant if none is named: normally the only one.
PRODUCTION = "production"

Value = str | int | float | bool


@dataclass(frozen=True)
class Variable:
    """One value that must be given at run time. Without a default it has no fallback. Of one that is
    *secret*, pages and logs show asterisks."""

    type: Literal["string", "integer", "number", "boolean"] = "string"
    default: Value | None = None
    secret: bool = False

    def check(self, name: str, value: Value) -> Value:
        """*value* if it may be this variable's. A secret is not repeated in an error."""
        kinds: dict[str, tuple[type, ...]] = {
            "string": (str,),
            "integer": (int,),
            "number": (int, float),
            "boolean": (bool,),
        }
        if type(value) not in kinds[self.type]:
            found = "another type" if self.secret else repr(value)
            raise Invalid(f"{name} must be of type {self.type}, found {found}", where="environment")
        check_variable(name, str(value))
        if self.secret:
            try:
                forms(str(value).encode())
            except Invalid as error:
                move = error.next_move
                raise Invalid(f"{name}: {error.what}", where="environment", next_move=move) from error
        return value


@dataclass(frozen=True)
class Change:
    """What someone wants live. *revision* is a full git commit id of *repository*.

    Author, reviewers and work items are what the commit says of itself (its author field and its
    ``Reviewed-by:``, ``Refs:`` trailers): a claim, shown as one. *signing_key* (raw, hex) is no claim: it
    signed the commit; "" if none did. An experiment has no commit: its revision is the digest of its text,
    its author whoever started it.
    """

    kind: Literal["code", "configuration", "rollback", "experiment"]
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
    """The typed document injected at run time; its digest is the second half of a release.

    *secret* names the values that are not to be shown; None if there are none. So is *mesh*, what the service
    has to do with other machines.
    """

    service: str
    environment: str
    values: Mapping[str, Value] = field(default_factory=dict)
    schema: Literal["penstock.environment/v1"] = "penstock.environment/v1"
    secret: tuple[str, ...] | None = None
    mesh: Mesh | None = None

    @functools.cached_property
    def digest(self) -> str:
        return digest_of(self)

    @property
    def shown(self) -> Mapping[str, Value]:
        """The values for people: secret ones are hidden."""
        hidden = self.secret or ()
        return {name: "***" if name in hidden else value for name, value in self.values.items()}

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret values, for a masker."""
        return tuple(str(self.values[name]) for name in self.secret or () if name in self.values)


@dataclass(frozen=True)
class Release:
    """The pair that is rolled out, and the pair that is rolled back."""

    service: str
    environment: str
    artifact: str
    data: str

    @functools.cached_property
    def digest(self) -> str:
        return digest_of(self)

    @property
    def id(self) -> str:
        """The short form people see: ``catalog-3f2a9c01d4e5``. Unique per service in practice."""
        return f"{self.service}-{short(self.digest)}"

    @property
    def fresh(self) -> str:
        """The name of copies of the pair that are put up beside those that run, to be compared with."""
        return f"{self.id}-fresh"


@functools.lru_cache(maxsize=256)
def pair(service: str, environment: str, artifact: str, data: str) -> Release:
    """A release. Whoever asks again for one is given the same, with its digest computed already."""
    return Release(service, environment, artifact, data)
