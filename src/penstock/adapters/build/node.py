"""The `Builder` port for Node services.

Called through the port by the build action. The image holds the tree and ``node_modules`` as ``npm ci``
makes them of the lock: the project's own, or one that was resolved once and kept beside the artifacts.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

from penstock.adapters.build.common import (
    APP,
    BESIDE,
    EXAMPLE,
    Start,
    declared,
    files_of,
    in_shell,
    must,
    read_text,
    recipe,
    words_of,
)
from penstock.adapters.build.layout import Layout
from penstock.config import ServiceConfig
from penstock.core.codec import Json
from penstock.core.digest import digest_of, hex_of
from penstock.core.image import assemble
from penstock.core.workload import Mount, Step
from penstock.errors import Invalid, Unavailable
from penstock.ports import BuildRequest, Built, Sandbox
from penstock.treefile import read_inside

BUILDER = "urn:penstock:builder:node:v1"
WORK = f"{BESIDE}/work"
PACKAGE_LOCK = "package-lock.json"
#: As npm: where both are, the first counts and the other is not read.
LOCKS = ("npm-shrinkwrap.json", PACKAGE_LOCK)
#: In bytes; a lock of thousands of packages has a tenth of it.
MAX_LOCK = 64 * 1024**2
NPM = ("npm", "--no-audit", "--no-fund", "--no-update-notifier")


class NodeBuilder:
    """*artifacts* is the artifact store's folder; locks are kept in it too."""

    def __init__(self, sandbox: Sandbox, artifacts: Path) -> None:
        self._sandbox = sandbox
        self._artifacts = artifacts
        self._layout = Layout(artifacts)

    def detect(self, tree: Path, config: ServiceConfig) -> str | None:
        """See `Builder.detect`."""
        start = _start(tree, config) if (tree / "package.json").is_file() else None
        return f"Node, {start.found}" if start else None

    async def build(self, request: BuildRequest) -> Built:
        """See `Builder.build`."""
        start = _start(request.tree, request.config)
        if start is None:
            raise Invalid(
                "package.json has no start script, and there is no server.js",
                where=request.change.repository,
                next_move=EXAMPLE,
            )
        abi = await self._abi(request)
        source = request.work / "build/source"
        shutil.rmtree(source, ignore_errors=True)
        await asyncio.to_thread(shutil.copytree, request.tree, source, symlinks=True)
        needed = bool(_package(source).get("dependencies"))
        lock = await self._install(source, abi, request) if needed else {}
        made = recipe(request, start.command, abi, abi, {})
        # Packing takes as long as the project is large; the worker's leases are renewed meanwhile.
        blobs = await asyncio.to_thread(lambda: assemble(files_of(source), made))
        return Built(
            digest=self._layout.put(blobs, request.config.service),
            builder=BUILDER,
            isolation=self._sandbox.isolation,
            lock=lock,
            network=needed,
        )

    async def _abi(self, request: BuildRequest) -> str:
        step = Step(("node", "--version"), "/", seconds=30.0, fence=request.fence)
        result = await self._sandbox.run(step, request.log)
        version = re.search(r"^v(\d+)\.", result.tail, re.MULTILINE)
        if result.exit_code or version is None:
            raise Unavailable(
                "this is a Node project, and the sandbox has no node",
                next_move="install Node 20 or newer (Debian: apt install nodejs npm)",
            )
        return f"node{version[1]}"

    async def _install(self, source: Path, abi: str, request: BuildRequest) -> dict[str, str]:
        """``npm ci`` in the writable copy *source*, with the lock that was used the first time.

        Returns what the lock names.
        """
        work = request.work / "build/npm"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        if not any((source / name).is_file() for name in LOCKS):
            package = _package(source)
            wanted = {
                name: package.get(name) for name in ("dependencies", "optionalDependencies", "overrides")
            }
            kept = self._artifacts / "locks" / f"{hex_of(digest_of({'node': abi, 'wanted': wanted}))}.json"
            if not kept.exists():
                resolve = ("install", "--package-lock-only", "--ignore-scripts", "--omit=dev")
                await self._npm(resolve, source, work, request, "resolving the Node dependencies")
                kept.parent.mkdir(parents=True, exist_ok=True)
                fresh = kept.with_suffix(f".{request.change.revision}")
                shutil.copyfile(source / PACKAGE_LOCK, fresh)
                fresh.replace(kept)
            shutil.copyfile(kept, source / PACKAGE_LOCK)
        lock = _versions(source)  # before scripts of packages run, which may leave anything in its place
        await self._npm(("ci", "--omit=dev"), source, work, request, "installing the Node dependencies")
        return lock

    async def _npm(
        self, words: tuple[str, ...], source: Path, work: Path, request: BuildRequest, doing: str
    ) -> None:
        mounts = (Mount(str(source), APP, writable=True), Mount(str(work), WORK, writable=True))
        env = {
            "HOME": WORK,
            "npm_config_cache": f"{WORK}/cache",
            "npm_config_omit_lockfile_registry_resolved": "true",
            "SOURCE_DATE_EPOCH": str(request.epoch),
        }
        step = Step((*NPM, *words), APP, mounts, env, network=True, fence=request.fence)
        await must(self._sandbox, step, request.log, doing)


def _start(tree: Path, config: ServiceConfig) -> Start | None:
    found = declared(tree, config)
    if found is not None:
        return found
    scripts = _package(tree).get("scripts", {})
    script = scripts.get("start") if isinstance(scripts, dict) else None
    if isinstance(script, str) and script.strip():
        return Start(_script(script.strip()), "package.json start script")
    return Start(("node", "server.js"), "server.js") if (tree / "server.js").is_file() else None


def _script(text: str) -> tuple[str, ...]:
    """A start script as argv: node itself if it names node, else a shell that finds packages' programs."""
    words = words_of(text)
    return words if words[0] in ("node", "sh") else in_shell(text)


def _package(tree: Path) -> dict[str, Json]:
    try:
        value = json.loads(read_text(tree, "package.json"))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"not valid JSON: {error}", where="package.json") from error
    if not isinstance(value, dict):
        raise Invalid("must be a JSON object", where="package.json")
    return value


def _versions(source: Path) -> dict[str, str]:
    """What the lock names, as package URLs without their scheme: ``npm/left-pad`` → ``1.3.0``."""
    for name in LOCKS:
        if (source / name).is_file():
            try:
                packages = json.loads(read_inside(source, name, MAX_LOCK)).get("packages", {})
                return {
                    f"npm/{path.rpartition('node_modules/')[2]}": str(entry.get("version", "?"))
                    for path, entry in packages.items()
                    if path and not entry.get("dev")
                }
            except (ValueError, AttributeError, RecursionError) as error:
                raise Invalid("not a lock of npm", where=name, next_move="npm install") from error
    return {}
