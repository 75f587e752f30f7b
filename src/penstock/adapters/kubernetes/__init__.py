"""Platform: releases as Deployments of a Kubernetes cluster.

Found as ``penstock.platform: kubernetes``. `driver` places, observes, scales and removes; `manifests` says
what a release is in the cluster, `reading` what the cluster says of it, `troubles` why it does not come up,
and `roll` which pod is which copy.
"""

from penstock.adapters.kubernetes.driver import Kubernetes
from penstock.adapters.kubernetes.manifests import Settings

__all__ = ["Kubernetes", "Settings"]
