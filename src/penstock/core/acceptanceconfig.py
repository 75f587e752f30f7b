"""What a service says under ``acceptance`` in ``penstock.yaml``: its tests in production.

Called by `config`, which reads it, and by the check `acceptance`. A field that an earlier release did not
have is None where it is not given: the bytes of images and journals of then stay what they are. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.errors import Invalid

#: Far more than one process can send, and a delivery should wait for.
MOST_PER_SECOND = 1000.0
MOST_SECONDS = 600.0
MOST_CONNECTIONS = 256
MOST_CASES = 1000
MOST_PATHS = 100
MOST_RULES = 50


@dataclass(frozen=True)
class LoadConfig:
    """A load test: *requests_per_second* for *seconds*, whatever the answers take, on at most *connections*.

    It fails if 95% or 99% of the requests take longer than *p95_ms* or *p99_ms*, or more than the share
    *error_rate* fails. *paths* are those of `AcceptanceConfig` unless they are given.
    """

    requests_per_second: float
    seconds: float = 20.0
    paths: tuple[str, ...] = ()
    p95_ms: float | None = None
    p99_ms: float | None = None
    error_rate: float = 0.0
    connections: int = 64

    def check(self, where: str) -> None:
        _within(self.requests_per_second, 0.1, MOST_PER_SECOND, f"{where}.requests_per_second")
        _within(self.seconds, 1, MOST_SECONDS, f"{where}.seconds")
        _within(self.connections, 1, MOST_CONNECTIONS, f"{where}.connections")
        _within(self.error_rate, 0, 1, f"{where}.error_rate")
        check_paths(self.paths, f"{where}.paths")
        for name, limit in (("p95_ms", self.p95_ms), ("p99_ms", self.p99_ms)):
            if limit is not None and not limit > 0:
                raise Invalid("a limit above 0 ms", where=f"{where}.{name}")


@dataclass(frozen=True)
class CompareConfig:
    """The stable and the dark release, response by response: *share* per cent of what users ask by GET, for
    *seconds*, and each of the service's own paths, go to both at the same moment.

    It fails if more than the share *max_different* of the pairs differ, or if the median latency of the dark
    release is more than *max_slower* times the stable one's. *ignore* are JSON pointers (``/items/*/at``),
    headers (``header: etag``) and regular expressions (``re: [0-9]+ ms``) of what may differ in texts.
    """

    share: float = 5.0
    seconds: float = 60.0
    ignore: tuple[str, ...] = ()
    max_different: float = 0.0
    max_slower: float | None = None

    def check(self, where: str) -> None:
        _within(self.share, 0, 100, f"{where}.share")
        _within(self.seconds, 0, MOST_SECONDS, f"{where}.seconds")
        _within(self.max_different, 0, 1, f"{where}.max_different")
        if self.max_slower is not None:
            _within(self.max_slower, 1, 1000, f"{where}.max_slower")
        if len(self.ignore) > MOST_RULES:
            raise Invalid(f"{len(self.ignore)} rules; at most {MOST_RULES}", where=f"{where}.ignore")
        for rule in self.ignore:
            if not re.fullmatch(r"/.*|header: *[A-Za-z0-9-]+|re: *\S.*", rule) or len(rule) > 500:
                raise Invalid(
                    f"{rule[:80]!r} is no rule",
                    where=f"{where}.ignore",
                    next_move="a JSON pointer (/items/*/at), 'header: NAME' or 're: PATTERN'",
                )


@dataclass(frozen=True)
class AcceptanceConfig:
    """Tests in production. *run* gets PENSTOCK_BASE_URL and PENSTOCK_PREVIEW_HEADERS.

    *paths* are requested by Penstock itself, *requests* times in all: one after another, or at
    *requests_per_second*; in turn, or as often as *weights* say (1 where they say nothing). Each answer must
    be below 500, and 95% of them must take at most *p95_ms* milliseconds. *openapi* is a file of the
    repository, or a path of the service that begins with a slash.
    """

    run: str | None = None
    junit: str | None = None
    paths: tuple[str, ...] = ("/",)
    requests: int = 100
    p95_ms: float = 1000.0
    seconds: float = 300.0
    requests_per_second: float | None = None
    weights: Mapping[str, float] | None = None
    openapi: str | None = None
    openapi_cases: int | None = None
    openapi_operations: tuple[str, ...] | None = None
    load: LoadConfig | None = None
    compare: CompareConfig | None = None

    def check(self, file: str) -> None:
        """Raise `Invalid`, with the place in *file*, if it makes no sense."""
        where = f"{file}: acceptance"
        stays_inside(self.junit, where)
        check_paths(self.paths, f"{where}.paths")
        if self.requests_per_second is not None:
            _within(self.requests_per_second, 0.1, MOST_PER_SECOND, f"{where}.requests_per_second")
        for path, weight in (self.weights or {}).items():
            if path not in self.paths:
                raise Invalid(f"{path!r} is not among acceptance.paths", where=f"{where}.weights")
            _within(weight, 0.001, 1e6, f"{where}.weights")
        self._check_openapi(where)
        if self.load is not None:
            self.load.check(f"{where}.load")
        if self.compare is not None:
            self.compare.check(f"{where}.compare")

    def _check_openapi(self, where: str) -> None:
        if self.openapi is None:
            if self.openapi_cases or self.openapi_operations:
                raise Invalid("openapi_cases and openapi_operations need openapi", where=where)
            return
        if self.openapi.startswith("/"):
            check_paths([self.openapi], f"{where}.openapi")
        else:
            stays_inside(self.openapi or "..", f"{where}.openapi")
        _within(self.openapi_cases or 0, 0, MOST_CASES, f"{where}.openapi_cases")
        for name in self.openapi_operations or ():
            if not re.fullmatch(r"(GET|HEAD|PUT|POST|PATCH|DELETE|OPTIONS) /\S*", name):
                problem = f"{name!r} is no operation such as 'POST /items'"
                raise Invalid(problem, where=f"{where}.openapi_operations")


def check_paths(paths: Iterable[str], where: str) -> None:
    """An address in place of a path would lead away from the release."""
    listed = tuple(paths)
    if len(listed) > MOST_PATHS:
        raise Invalid(f"{len(listed)} paths; at most {MOST_PATHS}", where=where)
    for path in listed:
        if not path.startswith("/") or path.startswith("//"):
            raise Invalid(f"{path!r} must begin with one slash", where=where)


def stays_inside(file: str | None, where: str) -> None:
    """A path of the repository must not lead out of it."""
    if file and (file.startswith("/") or ".." in file.split("/")):
        raise Invalid(f"{file!r} leaves the repository", where=where)


def _within(value: float, least: float, most: float, where: str) -> None:
    if not least <= value <= most:
        raise Invalid(f"from {least:g} to {most:g}, found {value:g}", where=where)
