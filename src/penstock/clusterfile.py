"""``cluster.yaml``: reading where releases run instead of on this machine, with file and line in every error.

Called by ``penstock up --cluster``, which keeps what it says. The documented reference is
``cluster.reference.yaml`` beside this file: it is decoded here in the tests. Must not ask the cluster
anything.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from penstock.cluster import Cluster, Counts, Gateway, Place, Steps
from penstock.config import MAX_BYTES, line_of, parse
from penstock.core.environmentconfig import NAME
from penstock.errors import Invalid

REFERENCE = "the documented reference: penstock doctor --reference cluster"
#: As a cluster takes names.
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
#: As an artifact says what it was built for; and an image in full, with nothing about it that may change.
ABI = re.compile(r"[a-z]+[0-9]+")
BASE = re.compile(r"(?=localhost/|[^/]*\.|[^/]*:\d+/)[^\s/@]+/[^\s@]+@sha256:[0-9a-f]{64}")
#: What is filled in, and what must be told apart.
PLACES = ("service", "environment", "namespace")


def load_cluster(path: Path) -> Cluster:
    """What a file says, complete. `Invalid` with file and line."""
    try:
        with path.open("rb") as file:
            source = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Invalid(f"cannot be read: {error.strerror}", where=str(path), next_move=REFERENCE) from error
    given = parse(Cluster, source, path.name, REFERENCE)
    try:
        return _completed(_checked(given), path.absolute().parent)
    except Invalid as error:
        line = line_of(yaml.compose(source, Loader=yaml.SafeLoader), error.where)
        said = f"{error.where}: {error.what}"
        raise Invalid(said, where=f"{path.name}:{line}", next_move=error.next_move or REFERENCE) from error


def _checked(given: Cluster) -> Cluster:
    """The same; `Invalid` for what can be none."""
    _check_url("images.push", given.images.push)
    if "://" in given.images.pull:
        raise Invalid("a prefix as a node takes it has no scheme", where="images.pull")
    for abi, image in given.bases.items():
        _check_base(abi, image)
    _check_place(given, given)
    for name, place in given.environments.items():
        if not NAME.fullmatch(name):
            what = f"{name!r} is not a name (lower-case letters, digits, dashes)"
            raise Invalid(what, where=f"environments.{name}")
        try:
            _check_place(place, given)
        except Invalid as error:
            where = f"environments.{name}.{error.where}"
            raise Invalid(error.what, where=where, next_move=error.next_move) from error
        _check_reached(name, given)
    _check_apart(given)
    return given


def _check_place(place: Cluster | Place, whole: Cluster) -> None:
    """What a file says of a place, for all environments or for one."""
    if place.reach:
        _check_url("reach", place.reach)
    if place.metrics:
        _check_url("metrics.prometheus", place.metrics.prometheus)
    if place.context and not (place.kubeconfig or whole.kubeconfig):
        raise Invalid("a context of which file?", where="context", next_move="name it: kubeconfig: FILE")
    named = {"namespace": place.namespace}
    if place.gateway:
        named |= {"gateway.namespace": place.gateway.namespace, "gateway.name": place.gateway.name or "?"}
        _check_pattern("gateway.host", place.gateway.host, port=False)
    for where, name in named.items():
        if name and not LABEL.fullmatch(name):
            raise Invalid(f"{name!r} is not a name (lower-case letters, digits, dashes)", where=where)
    if place.neighbour:
        _check_pattern("neighbour", place.neighbour, port=True)
    if place.steps:
        _check_steps(place.steps)
        if not whole.steps:
            raise Invalid(
                "those of this environment alone cannot be Jobs: the file has no steps for all",
                where="steps",
                next_move="steps: {image: …} for all environments too, or for none",
            )


def _entrance(cluster: Cluster) -> tuple[str, str, str, str]:
    """Which gateway of which cluster its users come through, as far as a file can tell."""
    gateway = cluster.gateway
    return cluster.kubeconfig, cluster.context, gateway.namespace or cluster.namespace, gateway.name


def _check_reached(name: str, given: Cluster) -> None:
    """Tests that reach another gateway than users do would be tests of another release."""
    place = given.environments[name]
    if given.reach and not place.reach and _entrance(given.of(name)) != _entrance(given):
        raise Invalid(
            "it has another gateway, and reach is that of the file's",
            where=f"environments.{name}",
            next_move="reach: the URL at which Penstock finds the gateway of this environment",
        )


def _check_apart(given: Cluster) -> None:
    """Two environments whose users come by one name to one gateway would be given one another's releases."""
    there: dict[tuple[str, ...], str] = {}
    for name in ("", *sorted(given.environments)):
        cluster = given.of(name)
        # All that are not named are at the file's own place, each with its name filled in.
        host = cluster.gateway.host.replace("{environment}", name or "{environment}")
        host = host.replace("{namespace}", cluster.namespace or "{namespace}")
        first = there.setdefault((*_entrance(cluster), cluster.gateway.section, host), name)
        if first != name:
            others = f"environment {first}" if first else "every environment that is not named"
            gateway = cluster.gateway.name
            raise Invalid(
                f"its users come to {host} at the gateway {gateway}, and so do those of {others}",
                where=f"environments.{name}",
                next_move="put {environment} into gateway.host, or name a cluster or a gateway of its own",
            )


def _check_url(where: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise Invalid(f"{url!r} is no http or https URL", where=where)
    if parts.username or parts.password:
        raise Invalid("a password has no place in it", where=where)


def _check_steps(steps: Steps) -> None:
    _check_image("steps.image", steps.image)
    if steps.namespace and not LABEL.fullmatch(steps.namespace):
        what = f"{steps.namespace!r} is not a name (lower-case letters, digits, dashes)"
        raise Invalid(what, where="steps.namespace")
    for name, value, least in (("memory_mb", steps.memory_mb, 16), ("cpus", steps.cpus, 0.01)):
        if value and value < least:
            raise Invalid(
                f"{value} is too little; at least {least}, or 0 for no limit", where=f"steps.{name}"
            )


def _check_base(abi: str, image: str) -> None:
    if not ABI.fullmatch(abi):
        move = "name what artifacts are built for: cp311 is Python 3.11, node22 is Node 22"
        raise Invalid(f"no artifact is built for {abi!r}", where=f"bases.{abi}", next_move=move)
    _check_image(f"bases.{abi}", image)


def _check_image(where: str, image: str) -> None:
    if not BASE.fullmatch(image):
        move = "write REGISTRY/NAME@sha256:…, as docker buildx imagetools inspect tells it"
        raise Invalid(f"{image!r} is not an image by digest", where=where, next_move=move)


def _check_pattern(where: str, pattern: str, *, port: bool) -> None:
    """A host name with ``{service}`` in it; two services must not have one name."""
    filled = pattern
    for name in PLACES:
        filled = filled.replace(f"{{{name}}}", name)
    host, colon, number = filled.partition(":")
    if "{service}" not in pattern:
        raise Invalid("every service would have the same one", where=where, next_move="put {service} into it")
    if not all(LABEL.fullmatch(part) for part in host.split(".")):
        raise Invalid(f"{pattern!r} is no host name", where=where)
    if port != (bool(colon) and number.isdecimal() and 0 < int(number) < 65536):
        what = "HOST:PORT" if port else "a host name, without a port"
        raise Invalid(f"{pattern!r} is not {what}", where=where)


def _completed(given: Cluster, folder: Path) -> Cluster:
    """With what follows from the rest, and whole paths."""

    def whole(path: str) -> str:
        return str((folder / Path(path).expanduser()).absolute()) if path else ""

    def counts(said: Counts) -> Counts:
        return replace(said, token_file=whole(said.token_file))

    def beside(said: Gateway) -> str:
        return given.neighbour or f"{said.host}:80"

    def placed(place: Place) -> Place:
        return replace(
            place,
            kubeconfig=whole(place.kubeconfig),
            metrics=place.metrics and counts(place.metrics),
            neighbour=place.neighbour or (beside(place.gateway) if place.gateway else ""),
        )

    images = given.images
    push = urlsplit(images.push)
    pull = images.pull or f"{push.netloc}{push.path}".rstrip("/")
    return replace(
        given,
        images=replace(images, pull=pull, auth=whole(images.auth)),
        metrics=counts(given.metrics),
        kubeconfig=whole(given.kubeconfig),
        neighbour=beside(given.gateway),
        environments={name: placed(place) for name, place in given.environments.items()},
    )
