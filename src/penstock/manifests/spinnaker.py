"""Spinnaker: a pipeline's stages. The manifests in them are read like files; what else they do is told.

Called by `carry`. A pipeline is JSON, as ``spin pipeline get`` prints it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from penstock.manifests.draft import Draft
from penstock.manifests.place import Place
from penstock.manifests.rollout import PERSON, TEST
from penstock.manifests.steps import DEFAULT

SHIP = "penstock ship PATH_OR_URL, or a source that tells of commits"
#: Types of stages: why each is none of ours, and what to do instead.
STAGES = {
    "manualJudgment": ("waits for a person", PERSON),
    "wait": ("waits", "canary.seconds_per_step; Penstock waits for evidence, not for time"),
    "kayentaCanary": ("Kayenta's scores", "canary: its judge compares both releases under the same traffic"),
    "webhook": (
        "asks somebody else",
        "make it a check (docs/guides/pipelines.md), or penstock webhook add URL",
    ),
    "runJobManifest": ("a job", "make it a check: docs/guides/pipelines.md"),
    "jenkins": ("a Jenkins job", "make it a check, or bring its reports: docs/guides/bring-evidence.md"),
    "pipeline": ("another pipeline", "penstock ship A B --together delivers several services as one"),
    "bakeManifest": ("manifests that are rendered later", "import what helm template or kustomize prints"),
    "undoRolloutManifest": ("takes back", "a failed canary is rolled back by itself"),
    "rollingRestartManifest": ("restarts copies", "liveness restarts what hangs"),
    "checkPreconditions": ("a condition", "a policy: docs/guides/policies-and-people.md"),
    "evaluateVariables": ("values worked out on the way", "environment, and environments/*.yaml"),
}
WEIGHTS = ("disableManifest", "enableManifest", "deleteManifest", "scaleManifest", "patchManifest")
PROMOTE = (
    "moves users or copies by hand",
    "Penstock deploys dark, moves users by canary.steps, and tidies up",
)


def is_pipeline(place: Place) -> bool:
    """Whether a document that is no Kubernetes object is a pipeline."""
    return isinstance(place.value, dict) and isinstance(place.at("stages").value, list)


def manifests(pipeline: Place) -> Iterator[Place]:
    """The Kubernetes objects that stands in its stages."""
    for stage in pipeline.at("stages").each():
        if stage.at("type").value == "deployManifest" and stage.at("manifests").value:
            yield from stage.at("manifests").each()


def set_pipeline(draft: Draft, pipeline: Place) -> None:
    """What a pipeline says of the one service that it deploys."""
    for name in ("name", "application", "id", "index", "schema", "updateTs", "lastModifiedBy", "locked"):
        pipeline.at(name).done()
    for name in ("keepWaitingPipelines", "limitConcurrent", "spelEvaluator", "parallel", "description"):
        pipeline.at(name).done()  # Penstock delivers one commit of a service at a time
    for trigger in pipeline.at("triggers").each():
        draft.lost(trigger, f"starts by {trigger.at('type').shown()}", SHIP)
    for told in pipeline.at("notifications").each():
        draft.lost(told, "somebody is told", "penstock webhook add URL: docs/guides/telemetry.md")
    for given in pipeline.at("parameterConfig").each():
        draft.lost(given, f"the parameter {given.at('name').shown()}", "environment: values by environment")
    pipeline.at("expectedArtifacts").done()  # the image is Penstock's own
    for stage in pipeline.at("stages").each():
        _stage(draft, stage)


def _stage(draft: Draft, stage: Place) -> None:
    kind = stage.at("type").text()
    if kind == "deployManifest":
        _deploy(draft, stage)
        return
    if kind == "kayentaCanary":
        _canary(draft, stage)
    why, move = PROMOTE if kind in WEIGHTS else STAGES.get(kind, (f"a stage of type {kind[:40]}", TEST))
    draft.lost(stage, f"{stage.at('name').shown()}: {why}" if stage.at("name") else why, move)


def _deploy(draft: Draft, stage: Place) -> None:
    traffic = stage.at("trafficManagement")
    if traffic.at("enabled").flag():
        strategy = traffic.at("options.strategy").shown() if traffic.at("options.strategy") else "none"
        what = f"the strategy {strategy}: here users move by steps, under a judge"
        draft.lost(traffic, what, "canary: {steps: […], seconds_per_step: …}")
    if stage.at("source").value == "artifact":
        move = "import the file that it deploys, or what its bake stage prints"
        draft.lost(stage, "manifests that are kept elsewhere", move)
    for name, part in stage.named().items():
        if name != "manifests":
            part.done()


def _canary(draft: Draft, stage: Place) -> None:
    """How long it lasts and how often it looks are ours to take over; its scores are not."""
    config = stage.at("canaryConfig")
    lasts = re.fullmatch(r"PT(?:([0-9]{1,3})H)?(?:([0-9]{1,4})M)?", str(config.at("lifetimeDuration").value))
    every = config.at("canaryAnalysisIntervalMins")
    if lasts and any(lasts.groups()):
        seconds = 3600 * int(lasts[1] or 0) + 60 * int(lasts[2] or 0)
        draft.set("canary.seconds_per_step", seconds / len(DEFAULT.steps), config.at("lifetimeDuration"))
        if seconds / 400 > DEFAULT.look_every:
            draft.set("canary.look_every", seconds / 400, config.at("lifetimeDuration"))
    if every:
        every.done()
