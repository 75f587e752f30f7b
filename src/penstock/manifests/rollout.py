"""Argo Rollouts: a ``Rollout`` and its analysis templates to ``canary``, ``traffic`` and ``warm``.

Called by `carry`, which reads the pod template with `pods`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from penstock.core.scaleconfig import MOST_BAKE
from penstock.manifests.draft import Draft
from penstock.manifests.place import Place
from penstock.manifests.steps import Step, set_margin, set_steps

PERSON = "a policy that guards promote says who has to agree: docs/guides/policies-and-people.md"
TEST = "put it into acceptance (tests against the dark release), or publish an SLO: docs/guides/slo.md"
DARK = "a wait before any user: the dark release is tested then"
SIZES = "copies follow the share of users by themselves: docs/guides/services.md#how-many-copies"
LIMIT = re.compile(r"\s*result(?:\[0\])?\s*(>=|>|<=|<)\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*")
#: A matcher of a query on statuses 5xx: `!~"5.*"` counts what is good, `=~"5.."` what is bad.
SERVER_ERRORS = re.compile(r"""(!~|=~)\s*["']5(?:\.\*|\.\.|xx|\[0-9\]\[0-9\]|\\d\\d|\\\\d\\\\d)["']""")


def set_rollout(draft: Draft, spec: Place, templates: Mapping[str, Place]) -> None:
    """What the *spec* of a Rollout says beside its pod template. *templates*: analysis templates by name."""
    for name in ("analysis", "rollbackWindow", "workloadRef", "restartAt"):
        spec.at(name).done()  # histories, and a reference that is followed elsewhere
    deadline = spec.at("progressDeadlineSeconds")
    if deadline:
        draft.set("start_seconds", max(1.0, deadline.seconds()), deadline)
    if spec.at("paused").flag():
        draft.lost(spec.at("paused"), "paused: nothing is delivered unless it is shipped", "leave it out")
    strategy = spec.at("strategy")
    canary, blue_green = strategy.at("canary"), strategy.at("blueGreen")
    if canary:
        _canary(draft, canary, templates)
    if blue_green:
        _blue_green(draft, blue_green, templates)


def _canary(draft: Draft, canary: Place, templates: Mapping[str, Place]) -> None:
    for name in ("canaryService", "stableService", "pingPong", "canaryMetadata", "stableMetadata"):
        canary.at(name).done()
    for name in ("maxSurge", "maxUnavailable", "minPodsPerReplicaSet", "dynamicStableScale"):
        draft.lost(canary.at(name), "the new release has copies of its own, before it has users", SIZES)
    _warm(draft, canary)
    analysis = canary.at("analysis")
    draft.lost(analysis.at("startingStep"), "the judge looks at every step", "leave it out")
    _analysis(draft, analysis, templates)
    whole = canary.at("trafficRouting.maxTrafficWeight").number(100.0)
    if whole <= 0:
        raise canary.at("trafficRouting.maxTrafficWeight").wrong("a number above 0")
    canary.at("trafficRouting.managedRoutes").done()
    steps = _steps(draft, canary.at("steps").each(), 100.0 / whole, templates)
    if not steps:
        what = "no weights: here users move by the default steps, 5, 25 and 50 per cent"
        draft.lost(canary, what, "canary: {steps: […], seconds_per_step: …} if they should be others")
    set_steps(draft, steps, canary.at("steps"))


def _steps(draft: Draft, given: Iterable[Place], unit: float, templates: Mapping[str, Place]) -> list[Step]:
    """The weights, and how long each lasts; everything else that a step may do is read or told."""
    steps: list[Step] = []
    for step in given:
        weight, pause = step.at("setWeight"), step.at("pause")
        if weight:
            steps.append(Step(weight.number() * unit, 0.0, weight))
        elif "pause" in step.parts and not pause.at("duration"):
            draft.lost(pause or step, "waits for a person", PERSON)
            if steps:
                steps[-1].open = True
        elif pause:
            seconds = pause.at("duration").seconds()
            if steps:
                steps[-1].seconds += seconds
            else:
                draft.lost(pause, DARK, TEST)
        elif step.at("analysis"):
            _analysis(draft, step.at("analysis"), templates)
        elif step.at("setHeaderRoute"):
            _headers(draft, step.at("setHeaderRoute"))
        elif step.at("setMirrorRoute"):
            _mirror(draft, step.at("setMirrorRoute"))
        else:
            _other(draft, step)
    return steps


def _other(draft: Draft, step: Place) -> None:
    for name in ("setCanaryScale", "replicaProgressThreshold"):
        draft.lost(step.at(name), "copies are ready before their users come", SIZES)
    draft.lost(step.at("experiment"), "releases beside one another for a while", TEST)
    draft.lost(step.at("plugin"), "code of a plug-in", "make it a check: docs/guides/pipelines.md")


def _headers(draft: Draft, route: Place) -> None:
    route.at("name").done()
    for match in route.at("match").each():
        name, value = match.at("headerName"), match.at("headerValue")
        if value.at("exact"):
            add_early(draft, {"header": name.text(), "value": value.at("exact").text()}, match)
        else:
            draft.lost(match, "a header by prefix or pattern", "traffic.early takes exact values")


def add_early(draft: Draft, early: dict[str, str], place: Place) -> None:
    """Users who see the new release first, once."""
    traffic = draft.fields.setdefault("traffic", {})
    if early not in traffic.setdefault("early", []):
        traffic["early"].append(early)
        draft.sources.setdefault("traffic.early", f"{place.where} {place.path}")
    place.done()


def _mirror(draft: Draft, route: Place) -> None:
    route.at("name").done()
    match = route.at("match")
    if not match.each():
        return  # the step that takes the route away again
    draft.lost(match, "copies are of all requests, whatever they ask", "traffic.mirror: a smaller share")
    draft.set("traffic.mirror", route.at("percentage").number(100.0), route)


def _blue_green(draft: Draft, spec: Place, templates: Mapping[str, Place]) -> None:
    for name in ("activeService", "previewService", "activeMetadata", "previewMetadata"):
        spec.at(name).done()
    draft.lost(spec.at("previewReplicaCount"), "copies of the dark release", SIZES)
    if not spec.at("autoPromotionEnabled").flag(True):
        draft.lost(spec.at("autoPromotionEnabled"), "waits for a person", PERSON)
    draft.lost(spec.at("autoPromotionSeconds"), DARK, TEST)
    _warm(draft, spec)
    for name in ("prePromotionAnalysis", "postPromotionAnalysis"):
        _analysis(draft, spec.at(name), templates)
    what = "all users at once: here they move by steps, under a judge (5, 25, 50 per cent by default)"
    draft.lost(spec, what, "canary: {steps: [50], seconds_per_step: …} is the shortest")


def _warm(draft: Draft, spec: Place) -> None:
    """How long what was replaced is kept."""
    delay = spec.at("scaleDownDelaySeconds")
    if delay:
        draft.set("warm.bake_seconds", min(delay.seconds(), MOST_BAKE), delay)
    spec.at("scaleDownDelayRevisionLimit").done()
    draft.lost(spec.at("abortScaleDownDelaySeconds"), "what was rolled back is ended at once", "leave it out")


def _analysis(draft: Draft, analysis: Place, templates: Mapping[str, Place]) -> None:
    """Templates whose query is a share of failed requests are margins of the judge; others are told."""
    if not analysis:
        return
    for name in ("args", "dryRun", "measurementRetention", "analysisRunMetadata"):
        analysis.at(name).done()
    for reference in analysis.at("templates").each():
        name = reference.at("templateName").text()
        template = templates.get(name)
        if template is None:
            draft.lost(reference, f"the AnalysisTemplate {name[:60]} is not among the files", "import it too")
            continue
        reference.done()
        for metric in template.at("spec.metrics").each():
            _metric(draft, metric)
        for nested in template.at("spec.templates").each():
            draft.lost(nested, "a template that is made of others", "name those in the Rollout")
        template.done()


def _metric(draft: Draft, metric: Place) -> None:
    points = _points(metric)
    success = metric.at("successCondition") or metric.at("failureCondition")
    if points is not None and set_margin(draft, points, success, success.shown()):
        metric.done()  # how often, and after how many failures, is what the judge computes
        return
    provider = ", ".join(metric.at("provider").named()) or "no provider"
    name = metric.at("name").shown()
    query = metric.at(f"provider.{provider}.query")
    said = f": {query.shown()}" if query else ""
    draft.lost(metric, f"the metric {name} ({provider}{said})", TEST)


def _points(metric: Place) -> float | None:
    """The share of failed requests, in per cent, above which the metric fails; None for another metric."""
    query = metric.at("provider.prometheus.query").value
    found = SERVER_ERRORS.search(query) if isinstance(query, str) and "/" in query else None
    passes, fails = metric.at("successCondition"), metric.at("failureCondition")
    limit = LIMIT.fullmatch(str((passes or fails).value))
    if found is None or limit is None:
        return None
    share, least = float(limit[2]), limit[1] in (">=", ">")
    good = found[1] == "!~"
    # Good requests have to be many, bad ones few; a condition of failure says the opposite.
    if least != (good == bool(passes)):
        return None
    return round(100 * (1 - share if good else share), 6)
