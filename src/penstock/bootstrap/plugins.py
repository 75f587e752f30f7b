"""Finds adapters by entry-point name: ours like everyone's.

Called by the rest of bootstrap. An unknown name raises and lists the known ones.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from penstock.bootstrap.home import Home, PrometheusSettings
from penstock.errors import Invalid
from penstock.ports import Meter, Sandbox


def names(port: str) -> tuple[str, ...]:
    """The adapters that are installed for a port, in alphabetical order."""
    return tuple(sorted(_installed(port)))


def find(port: str, name: str) -> Any:
    """The adapter's class. Any, because each takes its own settings; bootstrap checks it into its port."""
    if (point := _installed(port).get(name)) is not None:
        return _load(port, point)
    known = ", ".join(names(port)) or "none"
    raise Invalid(f"no {port} adapter is called {name!r}; known: {known}")


@functools.cache
def _installed(port: str) -> Mapping[str, EntryPoint]:
    """Asked once: each answer is read from the metadata of every package that is installed."""
    return {point.name: point for point in entry_points(group=f"penstock.{port}")}


def _load(port: str, point: EntryPoint) -> Any:
    try:
        return point.load()
    except ImportError as error:
        raise Invalid(
            f"the {port} adapter {point.name!r} needs {error.name or error}, which is not installed",
            next_move=f'pip install "penstock[{point.name}]", or "penstock[local]" for one machine',
        ) from error


def open_issuer(home: Home) -> Any:
    """What vouches for this installation's services before its peers."""
    return find("issuer", "local")(home.keys)


def open_prometheus(settings: PrometheusSettings) -> Meter:
    """`Invalid` if its address is none. Whether it answers, the first question to it will tell."""
    token = Path(settings.token_file) if settings.token_file else None
    meter: Meter = find("meter", "prometheus")(settings.url, token)
    return meter


def open_sandbox(name: str) -> Sandbox:
    """The sandbox adapter with this name, tried once so that it does what it says."""
    sandbox: Sandbox = find("sandbox", name).detect()
    return sandbox
