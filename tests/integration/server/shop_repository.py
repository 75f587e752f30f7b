"""A git repository with a service in it, as small as one can be."""

from __future__ import annotations

import subprocess
from pathlib import Path

#: A value that no page and no answer may show.
PAYMENT = "pay-5a1c9e"

PENSTOCK_YAML = f"""
service: shop
run: serve
environment:
  CURRENCY: {{type: string, default: EUR}}
  PAYMENT_KEY: {{type: string, default: {PAYMENT}, secret: true}}
canary: {{steps: [5, 50], seconds_per_step: 0.02, look_every: 0.01, patience: 0.02}}
"""


def new_repository(path: Path) -> Path:
    """A git repository with a service in it."""
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main")
    (path / "penstock.yaml").write_text(PENSTOCK_YAML)
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message", "nothing yet")
    return path


def git(path: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Ada <b>", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(path), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
