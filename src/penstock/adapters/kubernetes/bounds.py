"""Between which numbers load sets the copies of a release, and by what. Pure.

Called by `manifests`. A delivery says how many copies a share of the users needs; load may add to these as
much as it may add to the copies for all of them, in proportion.
"""

from __future__ import annotations

import math

from penstock.adapters._kubernetes import Object
from penstock.adapters._kubernetes.kinds import DEPLOYMENTS
from penstock.core.workload import Workload


def most(workload: Workload, asked: int) -> int:
    """The most copies while *asked* for are so many: for half of the users, half of the most for all."""
    share = -(-workload.most * asked // workload.replicas)
    return max(1, asked, min(workload.most, share))


def autoscaler(workload: Workload, asked: int, container: str) -> Object:
    """What an autoscaler is told while *asked* for are so many copies. Of a pod only *container* counts: what
    a mesh puts beside it has limits of its own.

    With none it has nothing to do: the cluster's own does not touch what has no copies, and cannot be told of
    fewer than one.
    """
    target = {"type": "Utilization", "averageUtilization": workload.scaling.cpu}
    return {
        "scaleTargetRef": {
            "apiVersion": DEPLOYMENTS.api_version,
            "kind": DEPLOYMENTS.name,
            "name": workload.release,
        },
        "minReplicas": max(1, asked),
        "maxReplicas": most(workload, asked),
        "metrics": [
            {
                "type": "ContainerResource",
                "containerResource": {"name": "cpu", "container": container, "target": target},
            }
        ],
        "behavior": {
            "scaleDown": {"stabilizationWindowSeconds": math.ceil(workload.scaling.idle_seconds)},
        },
    }


def has(live: object, wanted: object) -> bool:
    """Whether *live* says what *wanted* does; what the API or somebody else has added to it may stand."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return all(name in live and has(live[name], value) for name, value in wanted.items())
    return live == wanted
