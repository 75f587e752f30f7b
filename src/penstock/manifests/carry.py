"""Files of manifests to one ``penstock.yaml`` for each service in them.

Called by ``penstock import``. Finds which objects belong together (a Rollout or Canary and the Deployment
that it points at, the Services that lead there, autoscalers, ConfigMaps, templates) and has each read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from penstock.errors import Invalid
from penstock.manifests import spinnaker
from penstock.manifests.beside import NAMED, UNREAD, set_autoscaler, set_service
from penstock.manifests.draft import Draft, service_name
from penstock.manifests.flagger import set_canary
from penstock.manifests.place import Note, Place
from penstock.manifests.pods import Around, set_workload
from penstock.manifests.reading import Object, as_object, objects
from penstock.manifests.rollout import set_rollout

ROLLOUT, CANARY, DEPLOYMENT = "Rollout", "Canary", "Deployment"
TEMPLATES = ("AnalysisTemplate", "ClusterAnalysisTemplate")
IGNORED = (
    "metadata.labels",
    "metadata.annotations",
    "metadata.managedFields",
    "status",
    "metadata.namespace",
)
NOTHING = (
    "Penstock has nothing that it could become",
    "leave it out; penstock doctor --reference has all fields",
)


@dataclass(frozen=True)
class Service:
    """One service: its ``penstock.yaml``, where each field came from, and what did not carry over."""

    name: str
    origin: str
    text: str
    sources: Mapping[str, str]
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Carried:
    """All services of some files. *notes* are about objects that belong to none of them."""

    services: tuple[Service, ...]
    notes: tuple[Note, ...]


@dataclass
class _Pile:
    """The objects, the pipelines, and the draft of each service by what it comes from (`_key`)."""

    every: list[Object]
    pipelines: list[Place] = field(default_factory=list)
    drafts: dict[str, Draft] = field(default_factory=dict)

    def of(self, *kinds: str) -> list[Object]:
        return [one for one in self.every if one.kind in kinds]

    def named(self, kind: str, name: str, beside: Object) -> Object | None:
        """The object that *beside*, in the same namespace, means by *name*."""
        for one in self.of(kind):
            if one.name == name and one.namespace == beside.namespace:
                return one
        return None


def carry(files: Mapping[str, bytes]) -> Carried:
    """Read *files* (name → bytes). `Invalid`, with file and line, if one cannot be read, if nothing in them
    is a service, or if two would have the same name."""
    pile = _sorted(objects(files))
    mains = _mains(pile)
    if not mains:
        what = "no Rollout, Canary, Deployment or Spinnaker pipeline with one"
        move = "name the files that hold them; render templates first (helm template, kubectl kustomize)"
        raise Invalid(what, where=", ".join(list(files)[:3]) or "no file", next_move=move)
    for one, workload in mains:
        _begin(pile, one, workload)
    around = {namespace: _around(pile, namespace) for namespace in {one.namespace for one, _ in mains}}
    for one, workload in mains:
        _fill(pile, one, workload, around[one.namespace])
    _pipelines(pile)
    for one, workload in mains:
        for part in {id(one): one, id(workload): workload}.values():
            _leftovers(pile.drafts[_key(one)], part.place)
    services = tuple(
        Service(draft.service, draft.origin.where, draft.text(), draft.sources, tuple(draft.notes))
        for draft in pile.drafts.values()
    )
    return Carried(services, tuple(_unowned(pile)))


def _sorted(found: Iterable[Object]) -> _Pile:
    pile = _Pile([])
    for one in found:
        if not one.kind and spinnaker.is_pipeline(one.place):
            pile.pipelines.append(one.place)
            pile.every += [as_object(place) for place in spinnaker.manifests(one.place)]
        else:
            pile.every.append(one)
    return pile


def _mains(pile: _Pile) -> list[tuple[Object, Object]]:
    """What stands for a service, and the workload whose pods it is: a Deployment alone stands for itself."""
    found: list[tuple[Object, Object]] = []
    for one in pile.of(ROLLOUT, CANARY):
        reference = one.place.at("spec.workloadRef" if one.kind == ROLLOUT else "spec.targetRef")
        target = pile.named(DEPLOYMENT, str(reference.at("name").value), one)
        found.append((one, target or one))
    pointed = {id(workload) for _, workload in found}
    return found + [(one, one) for one in pile.of(DEPLOYMENT) if id(one) not in pointed]


def _key(one: Object) -> str:
    return f"{one.kind} {one.namespace}/{one.name}"


def _begin(pile: _Pile, one: Object, workload: Object) -> None:
    name = service_name(workload.name if one.kind == CANARY else one.name)
    for draft in pile.drafts.values():
        if draft.service == name:
            what = f"two objects would be the service {name}; the other is at {draft.origin.where}"
            move = "import one namespace, or one overlay, at a time"
            raise Invalid(what, where=one.place.where, next_move=move)
    draft = pile.drafts[_key(one)] = Draft(name, one.place)
    if name != workload.name:
        rule = "lower-case letters, digits and dashes, at most 40"
        draft.lost(
            one.place.at("metadata.name"), f"the name {workload.name[:60]}, {rule}", f"service: {name}"
        )


def _around(pile: _Pile, namespace: str) -> Around:
    """What all workloads of a namespace may name: its ConfigMaps, and the hosts of its services."""
    configs = {one.name: one.place.at("data") for one in pile.of("ConfigMap") if one.namespace == namespace}
    hosts: dict[str, str] = {}
    for key, draft in pile.drafts.items():
        for host in _names(pile, key):
            for suffix in ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local"):
                hosts[host + suffix] = draft.service
    return Around(configs, hosts)


def _names(pile: _Pile, key: str) -> set[str]:
    """The names of Services that lead to a workload: the stable ones, not those of a canary or preview."""
    (one,) = (each for each in pile.of(ROLLOUT, CANARY, DEPLOYMENT) if _key(each) == key)
    spec = one.place.at("spec")
    named = {str(found.value) for found in (spec.at(path) for path in NAMED) if found}
    if one.kind == CANARY:
        named.add(str(spec.at("service.name").value or spec.at("targetRef.name").value))
    return named | {service.name for service in _services(pile, one)}


def _services(pile: _Pile, one: Object) -> list[Object]:
    """The Services whose selector fits the pods of *one*, or of the Deployment that it points at."""
    reference = one.place.at("spec.workloadRef.name") or one.place.at("spec.targetRef.name")
    workload = pile.named(DEPLOYMENT, str(reference.value), one) or one
    labels = workload.place.at("spec.template.metadata.labels").value
    if not isinstance(labels, dict):
        return []
    found = []
    for service in pile.of("Service"):
        selector = service.place.at("spec.selector").value
        fits = isinstance(selector, dict) and selector and selector.items() <= labels.items()
        if fits and service.namespace == one.namespace:
            found.append(service)
    return found


def _fill(pile: _Pile, one: Object, workload: Object, around: Around) -> None:
    draft = pile.drafts[_key(one)]
    spec = one.place.at("spec")
    if workload is one and one.kind == CANARY:
        target = spec.at("targetRef")
        what = f"the {target.at('kind').shown()} {target.at('name').shown()} is not among the files"
        draft.lost(target, what, "import it too, or write run:, health: and environment: yourself")
    if workload is not one:
        spec.at("replicas").done()  # the Deployment's would be 0, or the same
    if one.kind == ROLLOUT:
        if workload is one and spec.at("workloadRef"):
            what = f"the {spec.at('workloadRef.kind').shown()} that it points at is not among the files"
            draft.lost(spec.at("workloadRef"), what, "import it too")
        set_rollout(draft, spec, _templates(pile))
    if one.kind == CANARY:
        set_canary(draft, spec)
    for scaler in pile.of("HorizontalPodAutoscaler"):
        target = scaler.place.at("spec.scaleTargetRef.name").value
        if scaler.namespace == one.namespace and target in (one.name, workload.name):
            set_autoscaler(draft, scaler.place.at("spec"))
            _leftovers(draft, scaler.place)
    if one.kind != CANARY or workload is not one:
        set_workload(draft, workload.place.at("spec"), around)
    for service in _services(pile, one):
        set_service(draft, service.place.at("spec"))
        _leftovers(draft, service.place)
    if draft.fields.get("protocol") == "grpc" and draft.fields.pop("health", None):
        what = "a gRPC server has no path to be asked for: that it greets as HTTP/2 does is enough"
        draft.lost(workload.place.at("spec.template.spec.containers"), what, "leave health out")


def _templates(pile: _Pile) -> dict[str, Place]:
    return {one.name: one.place for one in pile.of(*TEMPLATES)}


def _pipelines(pile: _Pile) -> None:
    """A pipeline is about what it deploys; where it does not say, about all that there is."""
    for pipeline in pile.pipelines:
        inside = {id(place) for place in spinnaker.manifests(pipeline)}
        owned = [draft for draft in pile.drafts.values() if id(draft.origin) in inside]
        for draft in owned or pile.drafts.values():
            spinnaker.set_pipeline(draft, pipeline)
            for name, part in pipeline.named().items():
                for left in part.left() if name != "stages" else ():
                    draft.lost(left, *NOTHING)


def _leftovers(draft: Draft, place: Place) -> None:
    """Everything that nobody has read."""
    for path in (*IGNORED, "metadata.name", "metadata.creationTimestamp", "metadata.resourceVersion"):
        place.at(path).done()
    for name in ("metadata.uid", "metadata.generation", "metadata.finalizers", "metadata.ownerReferences"):
        place.at(name).done()
    for left in list(place.left()):
        draft.lost(left, *UNREAD.get(left.path.rpartition(".")[2], NOTHING))


def _unowned(pile: _Pile) -> Iterable[Note]:
    """Objects of which nothing was read, by kind."""
    for one in pile.every:
        if one.kind in (ROLLOUT, CANARY, DEPLOYMENT) or _used(one.place):
            continue
        if not one.kind:
            yield one.place.lost(
                "not a Kubernetes object, and no pipeline of Spinnaker", "leave the file out"
            )
            continue
        why, move = UNREAD.get(one.kind, ("an object that belongs to no service here", "keep it where it is"))
        yield one.place.lost(f"{one.kind} {one.name}: {why}", move)


def _used(place: Place) -> bool:
    return any(part.read for name in ("spec", "data") for part in _all(place.at(name)))


def _all(place: Place) -> Iterable[Place]:
    yield place
    for part in place.parts.values():
        yield from _all(part)
