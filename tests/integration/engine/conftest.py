"""Somebody outside who is told what happens, for the tests of whatever tells."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fakes.receiver import ReceiverServer


@pytest.fixture
async def server() -> AsyncIterator[ReceiverServer]:
    made = ReceiverServer()
    await made.start()
    yield made
    await made.stop()
