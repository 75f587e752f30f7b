"""A Kubernetes cluster in one process: a real HTTP API over loopback, and small controllers behind it.

    async with FakeCluster() as cluster:
        os.environ["KUBECONFIG"] = str(cluster.kubeconfig(folder))

`cluster` puts it together; `server` speaks HTTP, `discovery` tells clients what is served, `api` knows what a
write means, `fields` who owns which field, `storage` keeps objects and their versions, `shapes` refuses what
a strict server refuses, `rights` and
`faults` say no on demand, `webhooks` asks others whether they do; `controllers` and `kubelet` do what a
cluster does with a Deployment, with images that `pulling` gets from a registry, and `autoscalers` say how
many copies it has. `gateway` and `istio` add kinds that route, `dataplane` decides what they say, and `proxy`
has it happen to requests. Must not be clever: what it does not do, it refuses.
"""

from penstock.testing.kubernetes.cluster import FakeCluster
from penstock.testing.kubernetes.faults import Fault
from penstock.testing.kubernetes.kinds import FakeKind, Object
from penstock.testing.kubernetes.kubelet import Behaviour, Kubelet
from penstock.testing.kubernetes.pulling import Puller, PullError

__all__ = ["Behaviour", "FakeCluster", "FakeKind", "Fault", "Kubelet", "Object", "PullError", "Puller"]
