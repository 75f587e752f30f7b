"""Who the pods of a service are: an account of its own, which has no rights.

Called by `driver` before a release gets copies. Must not take an account that somebody else has made: what
such a one may do, in the cluster, in a mesh or in a cloud, a service would get by its name alone.
"""

from __future__ import annotations

from penstock.adapters._kubernetes import Client
from penstock.adapters._kubernetes.failures import Moved
from penstock.adapters._kubernetes.kinds import SERVICE_ACCOUNTS
from penstock.adapters.kubernetes import manifests
from penstock.adapters.kubernetes.record import MANAGED
from penstock.core.workload import Workload
from penstock.errors import Conflict


async def demand(client: Client, workload: Workload) -> None:
    """Make it, unless it is there. `Conflict` if it is not ours."""
    try:
        await client.create(SERVICE_ACCOUNTS, manifests.account(workload, client.namespace))
    except Moved:
        found = await client.get(SERVICE_ACCOUNTS, workload.service)
        if found and found["metadata"].get("labels", {}).get(MANAGED) != "penstock":
            given = f"kubectl label serviceaccount {workload.service} {MANAGED}=penstock"
            raise Conflict(
                f"there is a ServiceAccount {workload.service} that is not ours, and its pods would be it",
                where=f"{SERVICE_ACCOUNTS.full} {client.namespace}/{workload.service}",
                next_move=f"call the service otherwise, or deliver elsewhere; to give it this one: {given}",
            ) from None
