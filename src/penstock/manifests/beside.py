"""What stands beside a workload: Services and autoscalers, and the reason why any other object is left out.

Called by `carry`.
"""

from __future__ import annotations

from penstock.manifests.draft import Draft
from penstock.manifests.flagger import LED, set_protocol
from penstock.manifests.place import Place
from penstock.manifests.pods import set_replicas

#: Where a Rollout names the Service of its users.
NAMED = ("strategy.canary.stableService", "strategy.blueGreen.activeService")
GRANT = "release and identity are Penstock's own: docs/guides/policies-and-people.md"
FILES = (
    "put files into the repository, values into environment:, and keep what must last in a store of its own"
)
KEEP = "keep it where it is"
CLUSTER = "where copies run is the platform's to choose"

#: By the last name of a path, or by the kind of an object: why it did not carry over, and what to do instead.
UNREAD = {
    "volumes": ("a copy has the files of its image and nothing else", FILES),
    "volumeMounts": ("a copy has the files of its image and nothing else", FILES),
    "initContainers": ("a step before the program", "do it in the build, or at the beginning of run:"),
    "lifecycle": ("hooks of a container", "a copy gets SIGTERM, and drain_seconds for what is in flight"),
    "serviceAccountName": ("an account of the cluster", GRANT),
    "serviceAccount": ("an account of the cluster", GRANT),
    "automountServiceAccountToken": ("an account of the cluster", GRANT),
    "securityContext": (
        "a copy runs without rights, in a sandbox",
        "leave it out; SECURITY.md says what it may",
    ),
    "imagePullSecrets": ("the image is Penstock's own", "leave it out"),
    "affinity": (CLUSTER, "leave it out"),
    "nodeSelector": (CLUSTER, "leave it out"),
    "tolerations": (CLUSTER, "leave it out"),
    "topologySpreadConstraints": (CLUSTER, "leave it out"),
    "priorityClassName": (CLUSTER, "leave it out"),
    "antiAffinity": (CLUSTER, "leave it out"),
    "minReadySeconds": (
        "a copy that is ready is ready; a canary tells if it stays so",
        "canary.seconds_per_step",
    ),
    "strategy": ("here the new release runs beside the old one", "canary: steps of users instead of copies"),
    "trafficRouting": ("Penstock leads users itself", LED),
    "trafficPolicy": ("Penstock leads users itself", LED),
    "workingDir": ("the program begins at the root of the repository", "run: sh -c 'cd … && exec …'"),
    "hostNetwork": ("a copy has a network of its own", "leave it out"),
    "type": ("how it is reached from outside", LED),
    "sessionAffinity": ("users kept by address", "traffic.sticky keeps a user by cookie during a canary"),
    "Secret": (
        "values are never read from a Secret",
        "secret: true under environment, values by environment",
    ),
    "ConfigMap": ("no workload names it", "values that code needs go under environment:"),
    "Ingress": ("how users reach a service", LED),
    "Gateway": ("how users reach a service", LED),
    "HTTPRoute": ("Penstock leads users itself", LED),
    "GRPCRoute": ("Penstock leads users itself", LED),
    "VirtualService": ("Penstock leads users itself", "traffic: {timeout_seconds, retries, mirror, early}"),
    "DestinationRule": ("Penstock leads users itself", "traffic: {most_connections, most_requests}"),
    "TrafficSplit": ("Penstock leads users itself", "canary.steps"),
    "NetworkPolicy": ("who may call a service", "traffic.callers and traffic.public: docs/guides/mesh.md"),
    "AuthorizationPolicy": ("who may call a service", "traffic.callers: docs/guides/mesh.md"),
    "PodDisruptionBudget": ("copies that must go on", "replicas; a copy is ready before another one goes"),
    "HorizontalPodAutoscaler": ("its workload is not among the files", "import that too"),
    "ScaledObject": ("copies by another scale", "scaling: docs/guides/services.md#how-many-copies"),
    "Service": ("no workload here has the labels that it selects", "import its workload too"),
    "AnalysisTemplate": ("no Rollout here names it", "import that too"),
    "ClusterAnalysisTemplate": ("no Rollout here names it", "import that too"),
    "MetricTemplate": ("a query", "an SLO, or a test in production: docs/guides/slo.md"),
    "AlertProvider": ("who is told", "penstock webhook add URL: docs/guides/telemetry.md"),
    "StatefulSet": ("copies with a state and a name of their own", f"{KEEP}: releases are copies alike"),
    "DaemonSet": ("a copy on each machine", f"{KEEP}: how many copies is replicas"),
    "Job": ("runs once", "make it a check (docs/guides/pipelines.md), or " + KEEP),
    "CronJob": ("runs by the clock", KEEP),
    "Experiment": ("releases beside one another for a while", "acceptance.compare, or the canary"),
    "Application": ("a repository that Argo CD follows", "penstock ship with the URL in spec.source.repoURL"),
    "ApplicationSet": ("repositories that Argo CD follows", "penstock ship each of them"),
    "Kustomization": ("how manifests are put together", "import what kubectl kustomize prints"),
    "Namespace": ("a service is in an environment instead", KEEP),
    "ServiceAccount": ("an account of the cluster", KEEP),
    "CustomResourceDefinition": ("a kind of object, and no object", KEEP),
}


def set_autoscaler(draft: Draft, spec: Place) -> None:
    """The fewest copies are ours; by what load adds some must be said anew."""
    spec.at("scaleTargetRef").done()
    least, most = spec.at("minReplicas"), spec.at("maxReplicas")
    set_replicas(draft, least)
    bound = f"scaling: {{most: {min(most.whole(1), 64)}"
    move = f"{bound}, in_flight: …}}: requests that a copy has at once; or cpu: … in a cluster"
    draft.lost(most, "copies by processor or memory, of what they ask for", move)
    for name in ("metrics", "targetCPUUtilizationPercentage", "behavior"):
        spec.at(name).done()  # told with the number of copies


def set_service(draft: Draft, spec: Place) -> None:
    """What its port speaks; the rest is how a cluster finds it."""
    for name in (
        "selector",
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "ipFamilyPolicy",
        "internalTrafficPolicy",
    ):
        spec.at(name).done()
    if spec.at("type").value == "ClusterIP":
        spec.at("type").done()
    if spec.at("sessionAffinity").value == "None":
        spec.at("sessionAffinity").done()
    for port in spec.at("ports").each():
        set_protocol(draft, port.at("appProtocol"))
        set_protocol(draft, port.at("name"))
        port.done()
