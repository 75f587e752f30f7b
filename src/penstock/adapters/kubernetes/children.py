"""Makes what belongs to a Deployment, once, and in nobody else's place.

Called by `driver` while a release is placed, and by `autoscaling`. Must not decide what is made.
"""

from __future__ import annotations

from penstock.adapters._kubernetes import Client, Kind, Object
from penstock.adapters._kubernetes.failures import Moved
from penstock.adapters.kubernetes.record import MANAGED
from penstock.errors import Conflict


async def make(client: Client, kind: Kind, child: Object) -> None:
    """One that is there already is this Deployment's, or an earlier one's of its name, and would soon go."""
    try:
        await client.create(kind, child)
    except Moved:
        name = child["metadata"]["name"]
        found = await client.get(kind, name)
        if found:
            check_ours(kind, found)
            if is_of_the_same(found, child):
                return
            await client.delete(kind, name, uid=found["metadata"]["uid"])
        await client.create(kind, child)


def check_ours(kind: Kind, found: Object) -> None:
    """`Conflict` if somebody else has made it."""
    metadata = found["metadata"]
    if metadata.get("labels", {}).get(MANAGED) != "penstock":
        raise Conflict(
            f"there is a {kind.name} {metadata['name']} that is not ours",
            where=f"{kind.full} {metadata['namespace']}/{metadata['name']}",
            next_move="remove or rename it, or deliver into another namespace",
        )


def is_of_the_same(found: Object, child: Object) -> bool:
    """Whether *found* belongs to the Deployment that *child* belongs to."""
    (owner,) = child["metadata"]["ownerReferences"]
    return any(reference["uid"] == owner["uid"] for reference in found["metadata"].get("ownerReferences", ()))
