"""Fixtures and settings for every test. Must not know what is tested."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fakes.postgres import PostgresServer
from penstock.adapters.postgres import PostgresStore
from penstock.adapters.sqlite import SqliteStore
from penstock.ports import Store

# A busy machine is not a defect: no test may fail because it was slow.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


#: Files whose tests mostly wait, for a canary say: one of them among so many others. What lasts longest is
#: in the first folder: begun last, it would be what everybody waits for.
WAITING = ("fault", "e2e")
AMONG = 5


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mix the files that wait with those that work: side by side they fill the processors, and none of them
    is left for the end. It counts where files are dealt out in this order (``--no-loadscope-reorder``)."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting = [path for folder in WAITING for path in files if path.parent.name == folder]
    working = [path for path in files if path.parent.name not in WAITING]
    order: list[Path] = []
    while waiting or working:
        order += [*waiting[:1], *working[:AMONG]]
        del waiting[:1], working[:AMONG]
    items[:] = [item for path in order for item in files[path]]


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """An empty folder with a path short enough for unix sockets in it, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ps-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests, if there is one here; else they are skipped, but never in CI."""
    try:
        server = PostgresServer()
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, short_tmp: Path) -> AsyncIterator[Store]:
    """An empty store, of each kind that there is."""
    async with AsyncExitStack() as stack:
        made: Store
        if request.param == "sqlite":
            made = SqliteStore(short_tmp / "penstock.db")
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            made = PostgresStore(server.url(server.schema()))
        stack.push_async_callback(made.close)
        yield made
