"""The Service that previews of a release are led to, beside the one that its users are led to. Pure.

The platform makes it, routers lead previews there, and so whoever counts by Service counts users alone. Its
name follows from the release's. That it is there, the release's own Service says: one that an older Penstock
has made says nothing, and its previews go where its users do.
"""

from __future__ import annotations

from penstock.adapters._kubernetes.kinds import Object

#: An annotation of a release's own Service: the name of the one for previews, which was made before it.
PREVIEWS = "penstock.org/previews"
LONGEST = 63


def service_of(release: str) -> str:
    """Its name; the release's own where that would be too long for a Service."""
    name = f"{release}-preview"
    return name if len(name) <= LONGEST else release


def has_own(service: Object) -> bool:
    """Whether this release's Service says that there is one for previews."""
    return PREVIEWS in service["metadata"].get("annotations", {})
