"""Sandbox: none. Plain processes of the same user, told as ``isolation: none`` wherever it matters.

Found as ``penstock.sandbox: none``; used only when asked for by name (``--unsandboxed-workloads``). Mounts
cannot be made: a path under a mount's target is rewritten to its source in argv, cwd and env.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from penstock.adapters._commands import run_command
from penstock.core.workload import Isolation, Mount, Step, StepResult

KEPT = (
    "UV_",
    "PIP_",
    "NPM_CONFIG_",
    "npm_config_",
    "SSL_CERT_",
    "REQUESTS_CA_",
    "HTTP",
    "http",
    "NO_PROXY",
    "no_proxy",
)


class Unsandboxed:
    isolation = Isolation.NONE

    @classmethod
    def detect(cls) -> Unsandboxed:
        return cls()

    def enclose(self, step: Step, *, outlives_us: bool = False) -> tuple[str, ...]:
        env = [f"{name}={value}" for name, value in self._environment(step).items()]
        program = [_rewritten(word, step.mounts) for word in step.argv]
        cwd = _rewritten(step.cwd, step.mounts)
        # `env --chdir` is GNU's alone; the shell's cd is everywhere.
        return ("/usr/bin/env", "-i", *env, "/bin/sh", "-c", 'cd "$0" && exec "$@"', cwd, *program)

    async def run(self, step: Step, log: Path) -> StepResult:
        return await run_command(self.enclose(step), {}, step.seconds, log)

    def _environment(self, step: Step) -> dict[str, str]:
        python = str(Path(sys.base_prefix) / "bin")
        inherited = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
        base = {
            "PATH": f"{python}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        given = {name: _rewritten(value, step.mounts) for name, value in step.env.items()}
        return {**base, **(inherited if step.network else {}), **given}


def _rewritten(text: str, mounts: tuple[Mount, ...]) -> str:
    """*text* with every mount's target replaced by its source, at path boundaries, longest first."""
    for mount in sorted(mounts, key=lambda m: len(m.target), reverse=True):
        pattern = rf"(?<![\w./-]){re.escape(mount.target)}(?=/|$|[:\s'\"])"
        text = re.sub(pattern, lambda _, source=mount.source: source, text)  # type: ignore[misc]
    return text
