"""A ledger for each test. Must not know what is tested."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from integration.ledger.world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = await World.begin(tmp_path)
    yield found
    await found.store.close()
