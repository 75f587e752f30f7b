"""Real OpenSSH keys for tests, made by ssh-keygen."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def needs(program: str) -> None:
    """Skip where a program is missing, except in CI, where it has to be there."""
    if not shutil.which(program) and not os.environ.get("CI"):
        pytest.skip(f"{program} is not installed (Debian: apt install openssh-client)")


def make_key(folder: Path, name: str = "id", kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair: *folder*/*name* and *name*.pub; its comment is *name*."""
    needs("ssh-keygen")
    path = folder / name
    run("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", name, "-f", str(path))
    return path


def run(*command: str, given: bytes = b"", env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, input=given, env={**os.environ, **(env or {})}, capture_output=True, timeout=60, check=True
    )
    return done.stdout.decode()
