"""The pipeline of a repository on this machine alone: build, tests, scan, and what the policies would say.

Called by ``penstock run``. The same verbs as in a delivery perform it, in the same sandbox, and the same pure
function signs off; only what production gives (acceptance, canary) and what people say is not there. Must not
write a ledger, deploy, or keep anything but what makes the next run quick: locks, installed dependencies,
mirrors, tools. The image is made, named by its digest, and thrown away.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.bootstrap import verdicts
from penstock.bootstrap.control import open_builders
from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import find, names, open_sandbox
from penstock.bootstrap.verdicts import Answer
from penstock.config import ServiceConfig, environment_data, load_service
from penstock.core.digest import digest
from penstock.core.evidence import Statement
from penstock.core.pipeline import GOOD, Begun, Intent, Made, Record, Stage, State
from penstock.core.policy import SHIPPING, PolicyDocument
from penstock.core.predicates import TestResult
from penstock.core.release import PRODUCTION, Artifact, EnvironmentData
from penstock.core.wording import plural
from penstock.engine.journal import Delivery, Header
from penstock.engine.performer import Engine
from penstock.engine.plans import plan, with_plan
from penstock.engine.ship import change_of, recognise
from penstock.errors import Invalid
from penstock.ports import Language, Outcome, Source

LOCAL = "local"
#: What needs no production, by verb, and the kinds of evidence that it gives.
VERBS: Mapping[str, tuple[str, ...]] = {
    "build": ("evidence.provenance",),
    "suite": ("evidence.tests", "evidence.coverage"),
    "scan": ("evidence.findings",),
}


@dataclass(frozen=True)
class Asked:
    """What to run. *stages* empty: all that can be. *unsandboxed*: without a sandbox, in so many words."""

    path: Path
    stages: tuple[str, ...] = ()
    dirty: bool = False
    unsandboxed: bool = False


@dataclass(frozen=True)
class Done:
    """A stage that was performed. *good*: it went well, and no test in it failed; *optional*: it need not."""

    stage: str
    good: bool
    says: str
    seconds: float
    optional: bool = False


@dataclass(frozen=True)
class Report:
    """What came of it. *dirty*: files as they are, which are no commit. *artifact* is "" if none was made."""

    service: str
    revision: str
    dirty: bool
    title: str
    artifact: str
    isolation: str
    stages: tuple[Done, ...]
    policies: tuple[Answer, ...]
    notes: tuple[str, ...]

    @property
    def good(self) -> bool:
        return all(done.good or done.optional for done in self.stages) and all(
            a.would != "fail" for a in self.policies
        )


@dataclass(frozen=True)
class Listener:
    """Told while it happens: a stage begins, a line of output, a stage has ended."""

    begins: Callable[[str], None]
    line: Callable[[str], None]
    ended: Callable[[Done], None]


async def run(home: Home, asked: Asked, policies: Sequence[PolicyDocument], listener: Listener) -> Report:
    """Perform the stages, then ask the policies. `Invalid` if there is nothing that could be shipped."""
    with tempfile.TemporaryDirectory(prefix="penstock-run-", ignore_cleanup_errors=True) as folder:
        bench = await _prepare(home, asked, Path(folder))
        wanted = _stages(bench, asked.stages)
        for stage in wanted:
            if not await bench.perform(stage, listener) and stage.verb == "build":
                break
        left_out = tuple(kind for stage in bench.stages if stage not in wanted for kind in VERBS[stage.verb])
        report = await asyncio.to_thread(_report, bench, policies, left_out, Path(folder))
        return replace(report, dirty=asked.dirty)


# --- what it is run with --------------------------------------------------------------------------------


class Bench:
    """A delivery that no journal knows: its records so far, and the engine that performs it."""

    def __init__(self, engine: Engine, header: Header, begun: Begun, isolation: str) -> None:
        now = time.time()
        first = Record(Intent("begin", "begin"), State.SUCCESS, now, now, detail=begun)
        self.delivery = Delivery(LOCAL, header, State.EXECUTING, "", "", "", 0, now, 0.0, (first,))
        self.pipeline = plan(self.delivery)
        self.stages = tuple(stage for stage in self.pipeline.stages if stage.verb in VERBS)
        self.isolation = isolation
        self.statements: list[Statement] = []
        self.done: list[Done] = []
        self.notes: list[str] = []
        self._engine = engine

    async def perform(self, stage: Stage, listener: Listener) -> bool:
        """One stage, its output told as it comes. Whether it went well."""
        listener.begins(stage.name)
        began = time.time()
        intent = Intent(stage.name, stage.verb, part=stage.part, target=stage.target)
        work = self._engine.perform(self.delivery, self.pipeline, intent)
        outcome = await _followed(work, self._engine.log_of(LOCAL, stage.name), listener.line)
        record = Record(intent, outcome.state, began, time.time(), outcome.reason, (), outcome.detail)
        self.delivery = replace(self.delivery, records=(*self.delivery.records, record))
        self.statements.extend(outcome.statements)
        done = Done(stage.name, _good(outcome), outcome.reason, record.ended - began, stage.optional)
        self.done.append(done)
        listener.ended(done)
        return done.good

    def stand_in(self, artifact: Artifact) -> None:
        """Something for evidence to be about where nothing is built."""
        record = Record(Intent("build", "build"), State.SKIP, 0.0, 0.0, detail=Made("made", artifact))
        self.delivery = replace(self.delivery, records=(*self.delivery.records, record))


def _good(outcome: Outcome) -> bool:
    """Failing tests are evidence and no error, and the policies decide; whoever runs them wants to know."""
    tests = [s.predicate for s in outcome.statements if isinstance(s.predicate, TestResult)]
    return outcome.state in GOOD and not any(result.failed for result in tests)


async def _prepare(home: Home, asked: Asked, folder: Path) -> Bench:
    path = asked.path.expanduser().absolute()
    source: Source = find("source", "worktree" if asked.dirty else "git")(home.cache / "git")
    sandbox = open_sandbox("none" if asked.unsandboxed else home.settings.sandbox_here)
    found = await source.resolve(str(path), "")
    tree = folder / "look"
    tree.mkdir()
    await source.checkout(found, tree)
    config = load_service(tree, path.name)
    builders = open_builders(_store(home, folder), sandbox)
    recognise(builders, tree, config, str(path))
    tools = find("tools", "project")(sandbox, home.cache)
    powers = {"sandbox": sandbox, "builders": builders, "tools": tools}
    engine = Engine(powers, source, folder / "work", folder / "log", "local")
    data, note = _data(config)
    header = with_plan(Header(change_of("code", config.service, PRODUCTION, found), config, found))
    bench = Bench(engine, header, Begun("begun", data), sandbox.isolation.value)
    bench.notes += [note] if note else []
    bench.notes += [] if asked.dirty else _uncommitted(path)
    return bench


def _store(home: Home, folder: Path) -> Path:
    """An artifact store that ends with the run, but for the locks and dependencies of the normal one.

    So what is resolved here is what a delivery on this machine would resolve.
    """
    store = folder / "artifacts"
    store.mkdir()
    for name in ("locks", "deps"):
        kept = home.artifacts / name
        for made in (home.path, home.artifacts, kept):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        (store / name).symlink_to(kept)
    return store


def _data(config: ServiceConfig) -> tuple[EnvironmentData, str]:
    """The defaults: what the organisation sets is not known here."""
    try:
        return environment_data(config, PRODUCTION, {}), ""
    except Invalid as error:
        return EnvironmentData(config.service, PRODUCTION), f"{error.what}: a delivery needs one"


def _uncommitted(path: Path) -> list[str]:
    """The most common surprise: what was just edited is not in the commit."""
    command = ("git", "-c", "core.fsmonitor=false", "-C", str(path), "status", "--porcelain")
    changed = len(subprocess.run(command, capture_output=True, check=False).stdout.splitlines())
    words = f"not in this commit, so not looked at: {plural(changed, 'file')}; --dirty does"
    return [words] if changed else []


def _stages(bench: Bench, wanted: Sequence[str]) -> tuple[Stage, ...]:
    """The stages to perform, in the pipeline's order."""
    known = {stage.name: stage for stage in bench.stages}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        what = f"no stage {unknown[0]!r} can be run here"
        raise Invalid(what, next_move=f"stages: {', '.join(known)}; the others need production")
    chosen = tuple(stage for name, stage in known.items() if not wanted or name in wanted)
    if all(stage.verb != "build" for stage in chosen):
        change = bench.delivery.header.change
        bench.stand_in(Artifact(change.service, digest(change.revision.encode())))
    return chosen


# --- what is told ---------------------------------------------------------------------------------------


async def _followed(work: Awaitable[Outcome], log: Path, line: Callable[[str], None]) -> Outcome:
    """Await *work* while telling the lines of its log as they are written."""
    task = asyncio.ensure_future(work)
    rest, place = b"", 0
    try:
        while True:
            ended = bool((await asyncio.wait({task}, timeout=0.1))[0])
            if log.exists():
                with log.open("rb") as file:
                    file.seek(place)
                    read = file.read()
                place += len(read)
                *lines, rest = (rest + read).split(b"\n")
                for text in [*lines, *([rest] if ended and rest else [])]:
                    line(text.decode(errors="replace"))
            if ended:
                return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _report(
    bench: Bench, policies: Sequence[PolicyDocument], left_out: tuple[str, ...], folder: Path
) -> Report:
    header, facts = bench.delivery.header, bench.delivery.facts
    made = any(record.intent.verb == "build" and record.state in GOOD for record in bench.delivery.records)
    answers: tuple[Answer, ...] = ()
    if made:
        languages: dict[str, Language] = {name: find("language", name)() for name in names("language")}
        signer = find("signer", "ed25519").create(folder / "once.key")
        case = verdicts.Case(header, facts, tuple(bench.statements), left_out)
        answers = verdicts.answers(case, policies, languages, signer)
        idle = [action for action in SHIPPING if all(answer.action != action for answer in answers)]
        bench.notes += [f"no policy guards {action}: a delivery would be refused there" for action in idle]
    else:
        bench.notes.append("the policies were not asked: there is no artifact")
    built = any(record.intent.verb == "build" and record.state is State.SUCCESS for record in facts.records)
    return Report(
        service=header.change.service,
        revision=header.change.revision,
        dirty=False,
        title=header.change.title,
        artifact=facts.artifact.digest if built and facts.artifact else "",
        isolation=bench.isolation,
        stages=tuple(bench.done),
        policies=answers,
        notes=tuple(bench.notes),
    )
