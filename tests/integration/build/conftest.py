"""Real repositories and a real sandbox for the way from a commit to evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
from building import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    path = tmp_path / "shop"
    path.mkdir()
    found = Repository(path)
    found.git("init", "--quiet", "--initial-branch=main")
    return found
