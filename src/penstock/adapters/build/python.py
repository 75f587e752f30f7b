"""The `Builder` port for Python services.

Called through the port by the build action. The image holds the tree and, under ``.penstock/deps``,
its dependencies (and itself, if it is a package), ready for the ``python3`` of the base that its label
names. Nothing of the project runs outside the sandbox.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path

from penstock.adapters.build.common import APP, EXAMPLE, declared, files_of, recipe
from penstock.adapters.build.layout import Layout
from penstock.adapters.build.project import ENTRY_FILES, Project, is_python, read_project
from penstock.adapters.build.uv import Interpreter, Scratch, Uv, versions
from penstock.config import ServiceConfig
from penstock.core.image import MAX_FILE_BYTES, File, assemble
from penstock.errors import Invalid
from penstock.ports import BuildRequest, Built, Sandbox
from penstock.treefile import read_inside

BUILDER = "urn:penstock:builder:python:v1"
DEPS = ".penstock/deps"
NODE = ("node", "npm", "npx")


class PythonBuilder:
    """*artifacts* is the artifact store's folder; locks and installed dependencies are kept in it too."""

    def __init__(self, sandbox: Sandbox, artifacts: Path) -> None:
        self._sandbox = sandbox
        self._layout = Layout(artifacts)
        self._uv = Uv(sandbox, artifacts)

    def detect(self, tree: Path, config: ServiceConfig) -> str | None:
        """See `Builder.detect`. A tree of no language but with a start command is taken as well."""
        plain = declared(tree, config)
        if (tree / "package.json").exists() and (not is_python(tree) or (plain and plain.command[0] in NODE)):
            return None
        if not is_python(tree):
            return f"a command, {plain.found}" if plain else None
        start = read_project(tree, config).start
        return f"Python, {start.found}" if start else None

    async def build(self, request: BuildRequest) -> Built:
        """See `Builder.build`."""
        project = read_project(request.tree, request.config)
        if project.start is None:
            raise Invalid(
                "nothing here says how to start the service (looked for: run: in penstock.yaml, web: in "
                f"Procfile, [project.scripts], {', '.join(ENTRY_FILES)})",
                where=request.change.repository,
                next_move=EXAMPLE,
            )
        scratch = Scratch(request.work / "build", request.log, request.epoch, request.fence)
        python = await self._uv.interpreter(scratch)
        lock, folders = await self._dependencies(project, request, python, scratch)
        command = _command(project.start.command, folders)
        wanted = {f"{APP}/{DEPS}": bool(folders), f"{APP}/src": (request.tree / "src").is_dir()}
        paths = [path for path, there in wanted.items() if there]
        env = {"PYTHONPATH": ":".join(paths)} if paths else {}
        made = recipe(request, command, python.abi, f"python3 ({python.abi})", env)
        # Packing takes as long as the project is large; the worker's leases are renewed meanwhile.
        blobs = await asyncio.to_thread(lambda: assemble(_files(request.tree, folders), made))
        return Built(
            digest=self._layout.put(blobs, request.config.service),
            builder=BUILDER,
            isolation=self._sandbox.isolation,
            lock=versions(lock),
            network=bool(folders),
        )

    async def _dependencies(
        self, project: Project, request: BuildRequest, python: Interpreter, scratch: Scratch
    ) -> tuple[str, tuple[Path, ...]]:
        """What was resolved, and the folders to lay over one another: the dependencies, then itself."""
        lock, folders = "", []
        if project.requires:
            lock = await self._uv.lock(project.requires, request.tree, python, scratch)
            folders.append(await self._uv.install(lock, request.tree, python, scratch))
        if project.build_requires is not None:
            tools = ""
            if project.build_requires:
                tools = await self._uv.lock(project.build_requires, request.tree, python, scratch)
            source = scratch.work / "source"
            shutil.rmtree(source, ignore_errors=True)
            await asyncio.to_thread(shutil.copytree, request.tree, source, symlinks=True)
            folders.append(await self._uv.install_project(source, tools, scratch))
        return lock, tuple(folders)


def _files(tree: Path, folders: tuple[Path, ...]) -> Iterable[File]:
    """The tree and what was installed; of a file that is in several, the last one counts."""
    found = {file.path: file for file in files_of(tree) if not file.path.startswith(".penstock/")}
    for folder in folders:
        found |= {file.path: file for file in files_of(folder, f"{DEPS}/")}
    return found.values()


def _command(words: tuple[str, ...], folders: tuple[Path, ...]) -> tuple[str, ...]:
    """The start command; a console script that was installed is run by the interpreter."""
    for folder in folders:
        script = folder / "bin" / words[0]
        if "/" not in words[0] and script.is_file():
            given = (f"{DEPS}/bin/{words[0]}", *words[1:])
            data = read_inside(folder, f"bin/{words[0]}", MAX_FILE_BYTES)
            return ("python3", *given) if data.startswith(b"#!/usr/bin/env python3") else given
    return words
