"""Sandbox: none. Plain processes of the same user, told as ``isolation: none`` wherever it matters.

Found as ``penstock.sandbox: none``; used only when asked for by name (``--unsandboxed-workloads``). Mounts
cannot be made: a path under a mount's target is rewritten to its source in argv, cwd and env.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from penstock.adapters._commands import inherited, run_command
from penstock.core.workload import Isolation, Mount, Step, StepResult
from penstock.ports import Hand


class Unsandboxed:
    isolation = Isolation.NONE

    @classmethod
    def detect(cls) -> Unsandboxed:
        return cls()

    def enclose(self, step: Step, *, outlives_us: bool = False, hand: Hand | None = None) -> tuple[str, ...]:
        # `env` is gone from the list of processes as soon as it has started the program.
        env = [f"{name}={value}" for name, value in self._environment(step).items()]
        program = [_rewritten(word, step.mounts) for word in step.argv]
        cwd = _rewritten(step.cwd, step.mounts)
        # `env --chdir` is GNU's alone; the shell's cd is everywhere.
        return ("/usr/bin/env", "-i", *env, "/bin/sh", "-c", 'cd "$0" && exec "$@"', cwd, *program)

    async def run(self, step: Step, log: Path) -> StepResult:
        return await run_command(step, self.enclose(step), log)

    def _environment(self, step: Step) -> dict[str, str]:
        python = str(Path(sys.base_prefix) / "bin")
        base = {
            "PATH": f"{python}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        given = {name: _rewritten(value, step.mounts) for name, value in step.env.items()}
        return {**base, **(inherited() if step.network else {}), **given}


def _rewritten(text: str, mounts: tuple[Mount, ...]) -> str:
    """*text* with every mount's target replaced by its source, at path boundaries, longest first.

    In one pass: a source may itself begin like another mount's target.
    """
    if not mounts:
        return text
    sources = {mount.target: mount.source for mount in mounts}
    targets = "|".join(re.escape(target) for target in sorted(sources, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({targets})(?=/|$|[:\s'\"])", lambda found: sources[found[1]], text)
