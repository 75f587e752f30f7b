"""The `Tools` port: what a project's tests need, installed once per lock and mounted read-only.

Called through the port by checks. Nothing that a test run writes is kept: the next one starts clean.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock.adapters.build.common import APP, BESIDE
from penstock.adapters.build.project import Project, Requirements, is_python, read_project
from penstock.adapters.build.uv import Scratch, Uv
from penstock.config import ServiceConfig
from penstock.core.workload import Mount
from penstock.ports import Prepared, Sandbox, Task

TOOLS = f"{BESIDE}/tools"


class ProjectTools:
    """*cache* may be deleted at any time; what it held is then resolved and installed again."""

    def __init__(self, sandbox: Sandbox, cache: Path) -> None:
        self._cache = cache
        self._turn = asyncio.Lock()
        self._uv = Uv(sandbox, cache / "python")

    async def prepare(self, task: Task) -> Prepared:
        """See `Tools.prepare`. A project of another language needs nothing that is kept here."""
        if not is_python(task.tree):
            return Prepared()
        async with self._turn:  # checks of one delivery run side by side, and share its scratch folder
            return await self._prepare(task)

    async def _prepare(self, task: Task) -> Prepared:
        project = read_project(task.tree, task.config)
        epoch = task.source.committed_epoch if task.source else 0
        scratch = Scratch(task.work / "tools", task.log, epoch, task.fence)
        sources = [APP, *([f"{APP}/src"] if (task.tree / "src").is_dir() else [])]
        wanted = _wanted(project, task.config)
        if not wanted:
            return Prepared(env={"PYTHONPATH": ":".join(sources)})
        python = await self._uv.interpreter(scratch)
        lock = await self._uv.lock(wanted, task.tree, python, scratch)
        folder = await self._uv.install(lock, task.tree, python, scratch)
        env = {"PYTHONPATH": ":".join([TOOLS, *sources]), "PATH": f"{TOOLS}/bin:{python.path}"}
        return Prepared((Mount(str(folder), TOOLS),), env)

    def cache(self, name: str) -> Path:
        """See `Tools.cache`."""
        folder = self._cache / "tools" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _wanted(project: Project, config: ServiceConfig) -> Requirements:
    """Everything the tests may import; pytest too where it is used and nobody asked for it."""
    wanted = project.requires + project.dev_requires
    commands = [suite.run for suite in config.checks.values()] + [config.acceptance.run or ""]
    uses_pytest = not config.checks or any("pytest" in command for command in commands)
    return wanted + Requirements(("pytest",)) if uses_pytest and not wanted.name("pytest") else wanted
