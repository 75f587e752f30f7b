"""A ledger for each test. Must not know what is tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.ledger.world import World
from penstock.ports import Store


@pytest.fixture
async def world(tmp_path: Path, store: Store) -> World:
    return await World.begin(tmp_path, store)
