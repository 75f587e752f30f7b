"""Asks an independent library about what we made: `ask` runs `script.py` in an environment of its own.

The library needs a newer Python than the product does. On a user's machine without one the tests that ask are
skipped; never in CI.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

ROOT = Path(__file__).parents[2]
NEWEST, OLDEST = 19, 12
TELL = "import sys; print(sys.version_info[:2] >= (3, 12))"
INSTALL = "next: install Python 3.12 or newer beside this one"


@dataclass(frozen=True)
class Oracle:
    """An environment that holds the library."""

    python: Path

    def ask(self, question: str, **given: Any) -> Any:
        """What `script.py` answers to a question."""
        script = Path(__file__).with_name("script.py")
        done = subprocess.run(
            [self.python, "-I", script, question],
            input=json.dumps(given).encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)


def open_oracle(folder: Path) -> Oracle:
    """Install the library into *folder*; skips the test if there is no Python for it."""
    newer = next((python for python in _pythons() if _is_new(python)), None)
    if newer is None:
        if os.environ.get("CI") == "true":
            raise RuntimeError(INSTALL)
        pytest.skip(INSTALL)
    uv, environment = find_uv_bin(), {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy"}
    python = folder / "venv/bin/python"
    lock = str(ROOT / "requirements/oracle.txt")
    for command in (
        [uv, "venv", "--quiet", "--python", newer, str(folder / "venv")],
        [uv, "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", lock],
    ):
        subprocess.run(command, check=True, env=environment)
    return Oracle(python)


def _pythons() -> Iterator[str]:
    """This one, those on the path, and those of pyenv (whose shims on the path may lead nowhere)."""
    yield sys.executable
    for minor in range(NEWEST, OLDEST - 1, -1):
        if found := shutil.which(f"python3.{minor}"):
            yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from (str(path) for path in sorted(pyenv.glob("versions/3.*/bin/python3")))


def _is_new(python: str) -> bool:
    done = subprocess.run([python, "-c", TELL], capture_output=True, check=False)
    return done.stdout.strip() == b"True"
