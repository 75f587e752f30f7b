"""Build: make one immutable artifact of the change's commit, and its provenance.

Called by the engine, which has checked the commit out into ``task.tree``. The first builder that
recognises the tree makes the image. Must not change the tree: the checks that follow read it too.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.core.evidence import Statement, Subject
from penstock.core.pipeline import Made, State
from penstock.core.predicates import (
    BuildDefinition,
    BuilderId,
    BuildMetadata,
    Provenance,
    Resource,
    RunDetails,
)
from penstock.core.release import Artifact
from penstock.errors import Broken, Invalid
from penstock.ports import Builder, BuildRequest, Built, Outcome, Task

BUILD_TYPE = "urn:penstock:build:v1"


async def perform(task: Task, /, *, builders: Mapping[str, Builder]) -> Outcome:
    """Detect, then build. A build that fails is a result: the change is bad."""
    if task.source is None:
        raise Broken("a build without a source revision", where=task.delivery)
    name, builder = _choose(builders, task)
    epoch = task.source.committed_epoch
    given = (task.change, task.config, task.tree, task.work, task.log)
    request = BuildRequest(*given, epoch=epoch, fence=task.fence)
    try:
        built = await builder.build(request)
    except Invalid as error:
        return Outcome(State.FAILURE, str(error))
    artifact = Artifact(task.change.service, built.digest)
    statement = Statement((Subject(artifact.name, artifact.digest),), _provenance(task, name, built))
    return Outcome(State.SUCCESS, f"{name} → {built.digest}", (statement,), Made("made", artifact))


def _choose(builders: Mapping[str, Builder], task: Task) -> tuple[str, Builder]:
    for name, builder in builders.items():
        if builder.detect(task.tree, task.config) is not None:
            return name, builder
    raise Invalid(
        "nothing here looks like a service that can be built",
        where=task.change.repository,
        next_move=f"builders: {', '.join(builders)}; see docs/guides/ship-your-own.md",
    )


def _provenance(task: Task, name: str, built: Built) -> Provenance:
    change = task.change
    source = Resource(f"git+{change.repository}", {"gitCommit": change.revision})
    locked = tuple(Resource(f"pkg:{package}@{version}") for package, version in sorted(built.lock.items()))
    return Provenance(
        BuildDefinition(
            build_type=BUILD_TYPE,
            external_parameters={"repository": change.repository, "revision": change.revision},
            internal_parameters={
                "builder": name,
                "isolation": built.isolation.value,
                "network": "host" if built.network else "none",
            },
            resolved_dependencies=(source, *locked),
        ),
        RunDetails(BuilderId(built.builder), BuildMetadata(task.delivery)),
    )
