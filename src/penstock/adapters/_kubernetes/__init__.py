"""The Kubernetes API, for the adapters that drive a cluster. Not an adapter, and not for others.

`access` finds the cluster and who we are there; `client` reads, writes and watches; `failures` turns every
answer that is no success into one of the five words; `kinds` names what may be asked for. Must not know what
the objects are for.
"""

from penstock.adapters._kubernetes.access import Access
from penstock.adapters._kubernetes.client import MANAGER, Change, Client, Listed
from penstock.adapters._kubernetes.kinds import Kind, Object

__all__ = ["MANAGER", "Access", "Change", "Client", "Kind", "Listed", "Object"]
