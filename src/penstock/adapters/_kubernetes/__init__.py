"""The Kubernetes API, for the adapters that drive a cluster. Not an adapter, and not for others.

    client = Client(Access.of_environment())
    made = await client.create(kinds.SERVICES, {"metadata": {"name": …, "namespace": …}, "spec": …})
    await client.apply(kinds.SERVICES, changed(owned.extract(made, MANAGER)))

`access` finds the cluster and who we are there; `client` reads, writes and watches; `failures` turns every
answer that is no success into one of the five words; `kinds` names what may be asked for; `owned` says what
of an object is ours; `mirror` is a picture of a namespace that watches keep current; `previews` is what a
platform and a router have to agree on. Must not know what else the objects are for.
"""

from penstock.adapters._kubernetes.access import Access
from penstock.adapters._kubernetes.client import MANAGER, Change, Client, Listed
from penstock.adapters._kubernetes.kinds import Kind, Object

__all__ = ["MANAGER", "Access", "Change", "Client", "Kind", "Listed", "Object"]
