"""One server for the tests of API and pages, with a history of deliveries that they leave as it is.

A file whose tests change what is live has a `house` of its own; `sh` and `office` are then of that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from office import Office
from playhouse import Playhouse, Told, opened
from shell import Shell


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


@pytest.fixture
def sh(house: Playhouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command, as somebody uses it beside the server."""
    monkeypatch.setenv("PENSTOCK_HOME", str(house.home.path))
    for name in ("PENSTOCK_URL", "PENSTOCK_TOKEN", "PENSTOCK_KEY"):
        monkeypatch.delenv(name, raising=False)
    return Shell(capsys)


@pytest.fixture
def office(house: Playhouse, sh: Shell, tmp_path: Path) -> Office:
    return Office(house, sh, tmp_path)
