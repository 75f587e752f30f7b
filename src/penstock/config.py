"""``penstock.yaml`` and ``environments/*.yaml``: reading them, with file and line in every error.

Called by the server when something is shipped, and by builders and checks, which receive the values.
The documented reference is ``penstock.reference.yaml`` beside this file: it is decoded by these very
classes in the tests, so it cannot drift. Must not look at the rest of the repository.
"""

from __future__ import annotations

import re
import shlex
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml

from penstock.core.acceptanceconfig import AcceptanceConfig as AcceptanceConfig
from penstock.core.acceptanceconfig import stays_inside
from penstock.core.canaryconfig import CanaryConfig
from penstock.core.codec import decode
from penstock.core.decide import UNDO
from penstock.core.digest import canonical
from penstock.core.environmentconfig import NAME, EnvironmentConfig
from penstock.core.mesh import Mesh
from penstock.core.pipeline import NO_CANARY
from penstock.core.release import EnvironmentData, Value, Variable
from penstock.core.scaleconfig import KEPT_WARM, WarmConfig, check_scaling
from penstock.core.stages import rollback, standard
from penstock.core.traffic import HTTP1, AppProtocol
from penstock.core.trafficconfig import TrafficConfig
from penstock.core.workload import (
    MOST_DRAIN,
    NO_LIMITS,
    NO_SCALING,
    PROCESS_LIVES,
    Limits,
    Liveness,
    Scaling,
)
from penstock.errors import Invalid
from penstock.yamltext import documents
from penstock.yamltext import line_of as line_of

T = TypeVar("T")

FILE = "penstock.yaml"
REFERENCE = "the documented reference: penstock doctor --reference"
#: Far more than anybody writes by hand. Reading takes a second for every twenty thousand of it.
MAX_BYTES = 64 * 1024
#: Stages that are there without being asked for; a check's stage has the check's name.
STAGES = {
    stage.name
    for plan in (standard(NO_CANARY, (), objectives=True), rollback(NO_CANARY))
    for stage in plan.stages
}
MOST_TARGETS = 20
TRUST = "paste what penstock mesh trust prints on the peer"


@dataclass(frozen=True)
class SuiteConfig:
    """A command of the project's own that writes reports; paths are relative to the repository.

    It runs beside the others, or *after* the checks that it names. If it is *optional*, that it cannot be
    run is recorded and passed over; what it reports counts like any report. For each target in *each* it
    runs once, with PENSTOCK_TARGET set.
    """

    run: str
    after: tuple[str, ...] = ()
    optional: bool = False
    each: tuple[str, ...] = ()
    junit: str | None = None
    coverage: str | None = None
    sarif: str | None = None
    seconds: float = 600.0


@dataclass(frozen=True)
class ServiceConfig:
    """All of ``penstock.yaml``; every field may be absent.

    If *supersede*, a newer commit ends older deliveries of the service that wait.
    """

    service: str = ""
    team: str | None = None
    run: str | None = None
    health: str = ""
    replicas: int = 1
    start_seconds: float = 30.0
    liveness: Liveness = PROCESS_LIVES
    protocol: AppProtocol = HTTP1
    drain_seconds: float = 30.0
    limits: Limits = NO_LIMITS
    calls: tuple[str, ...] = ()
    environment: Mapping[str, Variable] = field(default_factory=dict)
    checks: Mapping[str, SuiteConfig] = field(default_factory=dict)
    acceptance: AcceptanceConfig = field(default_factory=AcceptanceConfig)
    canary: CanaryConfig = field(default_factory=CanaryConfig)
    traffic: TrafficConfig = field(default_factory=TrafficConfig)
    scaling: Scaling = NO_SCALING
    warm: WarmConfig = KEPT_WARM
    supersede: bool = True

    @property
    def command(self) -> tuple[str, ...] | None:
        """*run* as words, or None where a builder must find the start command."""
        return tuple(shlex.split(self.run)) if self.run else None


def load_service(tree: Path, fallback_name: str) -> ServiceConfig:
    """The configuration of a checked-out repository; defaults if it has no ``penstock.yaml``.

    *fallback_name* names the service if the file does not. Raises `Invalid` with file and line.
    """
    path = tree / FILE
    config = load(ServiceConfig, path) if path.is_file() else ServiceConfig()
    named = ServiceConfig(**{**vars(config), "service": config.service or _slug(fallback_name)})
    try:
        check_service(named)
    except Invalid as error:
        raise Invalid(error.what, where=error.where, next_move=error.next_move or REFERENCE) from error
    return named


def load_environments(tree: Path) -> tuple[EnvironmentConfig, ...]:
    """Every environment document of an organisation repository; empty if it has none."""
    found = sorted((tree / "environments").glob("*.yaml"))
    reference = f"{REFERENCE} environment"
    return tuple(with_authorities(load(EnvironmentConfig, path, reference), path.name) for path in found)


def with_authorities(document: EnvironmentConfig, name: str) -> EnvironmentConfig:
    """The same. `Invalid` if what peers are to be believed by is no authority: nobody would be."""
    for peer, given in document.mesh.peers.items() if document.mesh else ():
        where = f"{name}: mesh.peers.{peer}.trust"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=given.trust)
            kinds = context.cert_store_stats()
        except (ssl.SSLError, ValueError, TypeError) as error:
            raise Invalid("not certificates (PEM)", where=where, next_move=TRUST) from error
        if not kinds["x509"] == kinds["x509_ca"] > 0:
            raise Invalid("a certificate that vouches for nobody else", where=where, next_move=TRUST)
    return document


def load(kind: type[T], path: Path, reference: str = REFERENCE) -> T:
    """Read one YAML file as *kind*. Raises `Invalid`: file, line, what was expected."""
    with path.open("rb") as file:
        return parse(kind, file.read(MAX_BYTES + 1), path.name, reference)


def _only(data: bytes, name: str) -> tuple[yaml.Node | None, Any]:
    found = list(islice(documents(data, name, MAX_BYTES), 2))
    if len(found) > 1:
        line = found[1][0].start_mark.line + 1
        what = "not valid YAML: expected one document, found another"
        raise Invalid(what, where=f"{name}:{line}", next_move="leave one of them")
    return found[0] if found else (None, None)


def parse(kind: type[T], data: bytes, name: str, reference: str = REFERENCE) -> T:
    """Decode YAML bytes as *kind*. Errors name the file *name*, and *reference* for its fields."""
    node, value = _only(data, name)
    try:
        return decode(kind, {} if value is None else value)
    except Invalid as error:
        line = line_of(node, error.where)
        raise Invalid(
            f"{error.where + ': ' if error.where else ''}{error.what}",
            where=f"{name}:{line}",
            next_move=reference,
        ) from error


def environment_data(
    config: ServiceConfig, environment: str, given: Mapping[str, Value], mesh: Mesh | None = None
) -> EnvironmentData:
    """The typed document for one release: defaults filled in, every value checked against its type."""
    values: dict[str, Value] = {}
    for name, variable in sorted(config.environment.items()):
        value = given.get(name, variable.default)
        if value is None:
            raise Invalid(
                f"{name} has no value in {environment} and no default",
                where=f"environment of {config.service}",
                next_move=f"set it in environments/{environment}.yaml, or give {FILE} a default",
            )
        values[name] = variable.check(name, value)
    for name in given:
        if name not in config.environment:
            known = ", ".join(sorted(config.environment)) or "none"
            raise Invalid(
                f"{name} is not declared by {config.service} (declared: {known})",
                where=f"environments/{environment}.yaml",
            )
    for callee in mesh.calls if mesh else ():
        if callee not in config.calls:
            called = ", ".join(config.calls) or "nobody"
            raise Invalid(
                f"{config.service} does not call {callee} (it calls: {called})",
                where=f"environments/{environment}.yaml",
            )
    secret = tuple(name for name, variable in sorted(config.environment.items()) if variable.secret)
    data = EnvironmentData(config.service, environment, values, secret=secret or None, mesh=mesh)
    canonical(data)  # what has no canonical form has no digest: say so now
    return data


def check_service(config: ServiceConfig) -> None:
    """Raise `Invalid`, naming the field, for what no service can be."""
    for name in (config.service, *config.calls):
        if not NAME.fullmatch(name):
            raise Invalid(
                f"{name!r} is not a service name",
                where=FILE,
                next_move="lower-case letters, digits and dashes, at most 40, beginning with a letter",
            )
    for name, variable in config.environment.items():
        if variable.secret and variable.type != "string":
            raise Invalid(f"{name} is secret, and so must be a string", where=f"{FILE}: environment")
    config.canary.check()
    config.traffic.check()
    check_scaling(config.replicas, config.scaling, config.limits)
    config.warm.check()
    _check_liveness(config.liveness)
    if config.protocol == "grpc" and config.health:
        move = "leave health out: it is ready once it greets as HTTP/2 does"
        raise Invalid("a gRPC server has no path to be asked for", where=f"{FILE}: health", next_move=move)
    _check_limits(config.limits)
    if not 0 <= config.drain_seconds <= MOST_DRAIN:
        raise Invalid(f"drain_seconds must be from 0 to {MOST_DRAIN:g}", where=FILE)
    for name, suite in config.checks.items():
        _check_suite(name, suite)
    checks_in_order(config.checks)
    _check_stage_names(config.checks)
    config.acceptance.check(FILE)
    for text in (config.run, *(suite.run for suite in config.checks.values())):
        _check_command(text)


def _check_limits(limits: Limits) -> None:
    # Less than this, and not even an interpreter starts.
    least = {"memory_mb": 16, "cpus": 0.01, "open_files": 64}
    for name, fewest in least.items():
        if getattr(limits, name) and getattr(limits, name) < fewest:
            raise Invalid(f"limits.{name} must be {fewest} or more, or 0 for none", where=FILE)


def _check_liveness(liveness: Liveness) -> None:
    where = f"{FILE}: liveness"
    if liveness.path and not liveness.path.startswith("/"):
        raise Invalid(f"{liveness.path!r} must begin with a slash", where=where)
    if not (liveness.every >= 0.1 and liveness.timeout >= 0.1 and liveness.failures >= 1):
        raise Invalid("every and timeout must be 0.1 s or more, failures 1 or more", where=where)


def checks_in_order(checks: Mapping[str, SuiteConfig]) -> list[tuple[str, SuiteConfig]]:
    """Every check after those that it names. `Invalid` if one names a check that is not there, or itself."""
    for name, suite in checks.items():
        unknown = [earlier for earlier in suite.after if earlier not in checks]
        if unknown:
            raise Invalid(
                f"after {unknown[0]!r}, which is no check (there are: {', '.join(checks)})",
                where=f"{FILE}: checks.{name}",
            )
    try:
        order = TopologicalSorter({name: suite.after for name, suite in checks.items()}).static_order()
        return [(name, checks[name]) for name in order]
    except CycleError as error:
        circle = " after ".join(reversed(error.args[1]))
        raise Invalid(f"checks in a circle: {circle}", where=f"{FILE}: checks") from error


def stage_names(check: str, suite: SuiteConfig) -> tuple[str, ...]:
    """The stages of a check: one, or one for each of its targets."""
    return tuple(f"{check}-{number}" for number in range(1, len(suite.each) + 1)) or (check,)


def _check_stage_names(checks: Mapping[str, SuiteConfig]) -> None:
    seen: dict[str, str] = {}
    for check, suite in checks.items():
        for stage in stage_names(check, suite):
            if stage in seen:
                problem = f"the stage {stage!r} would be that of {seen[stage]} too; rename one of them"
                raise Invalid(problem, where=f"{FILE}: checks.{check}")
            seen[stage] = check


def _check_suite(name: str, suite: SuiteConfig) -> None:
    where = f"{FILE}: checks.{name}"
    if not NAME.fullmatch(name):  # it becomes the name of a folder
        what = f"{name!r} is not a name (lower-case letters, digits, dashes)"
        raise Invalid(what, where=f"{FILE}: checks")
    if name in STAGES or name == UNDO.stage:
        raise Invalid(f"{name!r} is the name of a stage of Penstock's own", where=where)
    if len(suite.each) != len(set(suite.each)) or len(suite.each) > MOST_TARGETS or "" in suite.each:
        raise Invalid(f"each: up to {MOST_TARGETS} targets, none empty, none twice", where=where)
    for report in (suite.junit, suite.coverage, suite.sarif):
        stays_inside(report, where)


def _check_command(text: str | None) -> None:
    try:
        words = shlex.split(text) if text is not None else ["."]
    except ValueError as error:
        raise Invalid(f"cannot be split into words: {error}", where=f"{FILE}: {text!r}") from error
    if not words:
        raise Invalid("an empty command", where=FILE)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-0123456789")[:40] or "service"
