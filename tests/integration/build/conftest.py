"""Real repositories and a real sandbox for the way from a commit to evidence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from building import Repository

from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.unsandboxed import Unsandboxed
from penstock.errors import Unavailable
from penstock.ports import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """Bubblewrap where it works; plain processes elsewhere, which run the same steps."""
    try:
        return Bubblewrap.detect()
    except Unavailable:
        if os.environ.get("CI") == "true":
            raise
        return Unsandboxed.detect()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    path = tmp_path / "shop"
    path.mkdir()
    found = Repository(path)
    found.git("init", "--quiet", "--initial-branch=main")
    return found
