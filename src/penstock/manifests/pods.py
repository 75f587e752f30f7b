"""A pod template to what ``penstock.yaml`` says of running: command, probes, limits, environment.

Called by `carry` for every workload. One container is the service; what stands beside it is told.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.core.scaleconfig import MOST_COPIES
from penstock.core.workload import MOST_DRAIN
from penstock.manifests.draft import Draft
from penstock.manifests.environment import set_environment
from penstock.manifests.place import Place

UNITS: dict[str, float] = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "m": 0.001}
#: `--api-token=…` among the words of a command.
PASSED = re.compile(r"(?i)(password|passwd|secret|token|api[-_]?key)[a-z_-]*=[^$]")
#: The probes' own defaults.
PERIOD, FAILURES, TIMEOUT = 10.0, 3.0, 1.0


@dataclass(frozen=True)
class Around:
    """What stands beside a workload: ConfigMaps by name, and which of the services a host name is."""

    configs: Mapping[str, Place] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)


def set_workload(draft: Draft, spec: Place, around: Around) -> None:
    """What the *spec* of a Deployment (or of a Rollout with a template of its own) says of running."""
    set_replicas(draft, spec.at("replicas"))
    for name in ("selector", "revisionHistoryLimit", "template.metadata.labels", "template.metadata.name"):
        spec.at(name).done()
    pod = spec.at("template.spec")
    for name in ("restartPolicy", "dnsPolicy", "schedulerName", "enableServiceLinks"):
        pod.at(name).done()
    grace = pod.at("terminationGracePeriodSeconds")
    if grace:
        draft.set("drain_seconds", min(grace.seconds(), MOST_DRAIN), grace)
        if grace.seconds() > MOST_DRAIN:
            draft.lost(grace, f"more than {MOST_DRAIN:g} s", "end what takes longer by asking for it again")
    containers = pod.at("containers").each()
    if not containers:
        draft.lost(spec, "no container, so nothing says how it runs", "write run: and health: yourself")
        return
    served = _serving(draft, containers)
    _set_container(draft, served, around)
    deadline = spec.at("progressDeadlineSeconds")
    if deadline:
        draft.set("start_seconds", max(1.0, deadline.seconds()), deadline)


def set_replicas(draft: Draft, place: Place) -> None:
    """How many copies, within what may be."""
    if not place:
        return
    asked = place.whole()
    draft.set("replicas", min(max(asked, 1), MOST_COPIES), place)
    if not 1 <= asked <= MOST_COPIES:
        draft.lost(place, f"{asked} copies; from 1 to {MOST_COPIES} may be", "replicas: 1 to 64")


def _serving(draft: Draft, containers: list[Place]) -> Place:
    """The container that is the service: named like it, else the first with a port, else the first."""
    named = [one for one in containers if one.at("name").value == draft.origin.at("metadata.name").value]
    with_ports = [one for one in containers if one.at("ports")]
    served = (named or with_ports or containers)[0]
    for other in containers:
        if other is not served:
            what = f"a second container, {other.at('name').shown()}; a release is one process tree"
            draft.lost(other, what, "make it a service of its own, or start it from run:")
    return served


def _set_container(draft: Draft, one: Place, around: Around) -> None:
    one.at("name").done()
    for name in ("imagePullPolicy", "terminationMessagePath", "terminationMessagePolicy"):
        one.at(name).done()
    what = f"the image {one.at('image').shown()}: Penstock builds its own, from the commit"
    draft.lost(one.at("image"), what, "keep this file at the root of the service's repository")
    _set_command(draft, one)
    port = _port(draft, one)
    set_environment(draft, one, around.configs, around.hosts)
    _set_limits(draft, one.at("resources"))
    _set_start(draft, one.at("startupProbe"))
    _set_ready(draft, one.at("readinessProbe"), port)
    _set_live(draft, one.at("livenessProbe"), port)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        for detail in ("initialDelaySeconds", "successThreshold", "terminationGracePeriodSeconds"):
            one.at(f"{probe}.{detail}").done()


def _set_command(draft: Draft, one: Place) -> None:
    command, arguments = one.at("command"), one.at("args")
    words = [word.text() for word in (*command.each(), *arguments.each())]
    if any("$(" in word for word in words):
        what = "$(NAME) is not filled in: the command is no shell"
        draft.lost(command or arguments, what, "run: sh -c '… \"$NAME\"', or read it in the program")
    if any(PASSED.search(word) for word in words):
        move = "read it from a variable that is secret: true; then write run:"
        draft.lost(command or arguments, "a command with what looks like a secret", move)
    elif not command:
        move = "write run:, or leave it to the builder (Procfile, [project.scripts], package.json)"
        draft.lost(arguments, "arguments of a command that only the image knows", move)
    elif any(word.strip() for word in words):
        draft.set("run", shlex.join(words), command)


def _port(draft: Draft, one: Place) -> Place:
    """The port that it serves at, as the container says; the first of several."""
    ports = one.at("ports").each()
    for extra in ports[1:]:
        move = "serve everything at $PORT; Penstock's telemetry needs no port"
        draft.lost(extra, "a second port; users and callers reach one", move)
    if not ports:
        return one.at("ports")
    first = ports[0]
    if first.at("protocol").value in ("UDP", "SCTP"):
        draft.lost(first, f"{first.at('protocol').value}: HTTP alone is led", "keep it where it is")
    elif not _reads_port(one):
        what = f"port {first.at('containerPort').shown()}: a copy is told its port, in PORT"
        draft.lost(first, what, "have the program listen on 127.0.0.1:$PORT")
    first.done()
    return first


def _reads_port(one: Place) -> bool:
    return any(entry.at("name").value == "PORT" for entry in one.at("env").each())


def _set_limits(draft: Draft, resources: Place) -> None:
    memory, cpu = resources.at("limits.memory"), resources.at("limits.cpu")
    if memory:
        draft.set("limits.memory_mb", max(16, round(_quantity(memory) / 2**20)), memory)
    if cpu:
        draft.set("limits.cpus", max(0.01, round(_quantity(cpu), 3)), cpu)
    move = "set limits: {memory_mb, cpus} if it must not have more"
    draft.lost(resources.at("requests"), "a request is for a scheduler; Penstock has limits alone", move)


def _quantity(place: Place) -> float:
    """``512Mi`` or ``250m`` as a number."""
    written = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(Ki|Mi|Gi|Ti|k|M|G|T|m|)", place.text())
    if written is None:
        raise place.wrong("a quantity such as 512Mi or 250m")
    return float(written[1]) * UNITS[written[2]]


def _set_start(draft: Draft, probe: Place) -> None:
    if not probe:
        return
    tries = probe.at("failureThreshold").number(FAILURES) * probe.at("periodSeconds").seconds(PERIOD)
    seconds = probe.at("initialDelaySeconds").seconds() + tries
    draft.set("start_seconds", max(1.0, seconds), probe)
    probe.done()


def _set_ready(draft: Draft, probe: Place, port: Place) -> None:
    path = _asked(draft, probe, port)
    if path:
        draft.set("health", path, probe)
    for detail in ("periodSeconds", "failureThreshold", "timeoutSeconds"):
        probe.at(detail).done()  # how often and for how long is the platform's to choose


def _set_live(draft: Draft, probe: Place, port: Place) -> None:
    path = _asked(draft, probe, port)
    if not path:
        return
    draft.set("liveness.path", path, probe)
    every, timeout = probe.at("periodSeconds"), probe.at("timeoutSeconds")
    draft.set("liveness.every", max(0.1, every.seconds(PERIOD)), probe)
    draft.set("liveness.timeout", max(0.1, timeout.seconds(TIMEOUT)), probe)
    draft.set("liveness.failures", max(1, probe.at("failureThreshold").whole(int(FAILURES))), probe)


def _asked(draft: Draft, probe: Place, port: Place) -> str:
    """The path that a probe asks for over HTTP; "" if it asks otherwise, which is told unless it is ours."""
    asks = probe.at("httpGet")
    if probe.at("grpc"):
        draft.set("protocol", "grpc", probe)
        probe.done()
        return ""
    if probe.at("tcpSocket"):
        probe.done()  # accepting a connection is what is asked without a path
        return ""
    move = "answer it at a path over HTTP, and name that: health, liveness.path"
    draft.lost(probe.at("exec"), "a command inside the container", move)
    if not asks:
        return ""
    at = asks.at("port").text()
    if at and port and at not in (port.at("name").text(), port.at("containerPort").text()):
        draft.lost(probe, f"asks at another port, {at}", "answer it at $PORT, and name the path")
        return ""
    asks.at("host").done()
    asks.at("scheme").done()
    path = asks.at("path").text() or "/"
    return path if path.startswith("/") else f"/{path}"
