"""One server for the tests of API and pages, with a history of deliveries that they leave as it is."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playhouse import Playhouse, Told, opened


@pytest.fixture(scope="session")
def house() -> Iterator[Playhouse]:
    with opened() as found:
        yield found


@pytest.fixture(scope="session")
def told(house: Playhouse) -> Told:
    return house.tell()


@pytest.fixture
def client(house: Playhouse, told: Told) -> Iterator[httpx.Client]:
    with house.client() as found:
        yield found
