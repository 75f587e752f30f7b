"""Which objectives are in force, as the ledger says: a fold over what holders of the operations lead said.

Called by the ledger on append, by the check ``slo``, by whoever counts for objectives, and by the server.
Must not say how they stand.
"""

from __future__ import annotations

import functools

from penstock.core.authority import Authority
from penstock.core.objectives import Objective, SloInForce
from penstock.core.people import SloVersion
from penstock.errors import Invalid
from penstock.slofile import SloDocument, parse_slo


def document_of(version: SloVersion | SloInForce) -> SloDocument:
    """The SLO that a version publishes; `Invalid` if its text is another's."""
    document = _parsed(version.source, f"{version.name}.yaml")
    if (document.service, document.name) != (version.service, version.name):
        raise Invalid(
            f"published as {version.name} of {version.service}, but its text is {document.name} of "
            f"{document.service}",
            where=f"slo {version.name}",
        )
    return document


def in_force(authority: Authority, service: str) -> tuple[tuple[SloInForce, Objective], ...]:
    """A service's objectives, by the names of their SLOs, each with the version that it stands in."""
    held = [authority.slos[key] for key in sorted(authority.slos) if key[0] == service]
    return tuple((slo, objective) for slo in held for objective in document_of(slo).objectives)


def services(authority: Authority) -> tuple[str, ...]:
    """The services that have objectives, in alphabetical order."""
    return tuple(sorted({service for service, _ in authority.slos}))


@functools.lru_cache(maxsize=4096)
def _parsed(source: str, name: str) -> SloDocument:
    return parse_slo(source.encode(), name)
