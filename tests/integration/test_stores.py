"""Which store `PENSTOCK_STORE` names, and that a store and a data folder belong together."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fakes.postgres import PostgresServer
from penstock.adapters.postgres import PostgresStore
from penstock.adapters.sqlite import SqliteStore
from penstock.bootstrap.control import open_store
from penstock.bootstrap.home import Home, Settings
from penstock.bootstrap.identity import ORIGIN, found, load_keys
from penstock.errors import Conflict, Invalid
from penstock.ledger.log import Ledger
from penstock.ports import Store


@pytest.fixture
def home(short_tmp: Path) -> Home:
    made = Home(short_tmp / "home")
    made.create()
    return made


@pytest.mark.parametrize(
    ("given", "file"), [("", "home/penstock.db"), ("sqlite:{folder}/other.db", "other.db")]
)
async def test_sqlite_is_a_file_in_the_data_folder_or_where_it_is_told(
    home: Home, short_tmp: Path, monkeypatch: pytest.MonkeyPatch, given: str, file: str
) -> None:
    monkeypatch.setenv("PENSTOCK_STORE", given.format(folder=short_tmp))
    store = open_store(home)
    assert isinstance(store, SqliteStore)
    assert (short_tmp / file).exists()
    await store.close()


async def test_postgres_is_chosen_by_its_url(
    home: Home, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = postgres.schema()
    monkeypatch.setenv("PENSTOCK_STORE", postgres.url(schema))
    store = open_store(home)
    assert isinstance(store, PostgresStore)
    await store.migrate("x", ("CREATE TABLE x (a TEXT)",))
    await store.close()
    assert postgres.run(f"SELECT * FROM {schema}.x") == []
    assert not home.store.exists()


@pytest.mark.parametrize("given", ["mysql://u:hidden@h/d", "penstock.db", "sqlite:"])
def test_any_other_place_is_invalid_and_not_repeated(
    home: Home, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("PENSTOCK_STORE", given)
    with pytest.raises(Invalid) as caught:
        open_store(home)
    assert "postgresql://" in caught.value.next_move
    assert "hidden" not in str(caught.value)


async def start(store: Store, home: Home) -> Ledger:
    keys = load_keys(home)
    ledger = Ledger(store, keys.logs, ORIGIN)
    await ledger.migrate()
    await found(store, ledger, keys, home)
    return ledger


async def test_a_ledger_is_founded_once_and_its_trust_file_is_made_again(store: Store, home: Home) -> None:
    ledger = await start(store, home)
    trust = home.trust.read_text()
    home.trust.unlink()  # as if it had stopped before it was written
    await start(store, home)
    assert home.trust.read_text() == trust
    async with store.transaction(write=False) as tx:
        assert await ledger.size(tx) == 6


async def test_half_a_trust_file_is_never_kept(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            await start(store, home)
    assert not home.trust.exists()
    await start(store, home)
    assert ORIGIN in home.trust.read_text()


def test_two_that_keep_settings_at_once_do_not_take_one_anothers_file(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def second(path: Path, target: Path) -> Path:
        monkeypatch.undo()
        home.keep(Settings(port=2))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", second)
    home.keep(Settings(port=1))
    assert home.settings.port == 1
    assert [path.name for path in home.path.iterdir() if "settings" in path.name] == ["settings.json"]


async def test_another_folders_ledger_is_refused_and_left_alone(
    store: Store, home: Home, short_tmp: Path
) -> None:
    ledger = await start(store, home)
    other = Home(short_tmp / "other")
    other.create()
    with pytest.raises(Conflict, match="another data folder") as caught:
        await start(store, other)
    assert "PENSTOCK_STORE" in caught.value.next_move
    assert not other.trust.exists()
    async with store.transaction(write=False) as tx:
        assert await ledger.size(tx) == 6


async def test_an_empty_store_for_a_folder_that_has_a_ledger_is_refused(store: Store, home: Home) -> None:
    load_keys(home)
    home.trust.write_text("{}")
    with pytest.raises(Conflict, match="is empty"):
        await start(store, home)
    assert home.trust.read_text() == "{}"


def test_a_log_key_that_is_gone_is_not_made_anew(home: Home) -> None:
    home.trust.write_text("{}")
    with pytest.raises(Conflict, match="key is not there") as caught:
        load_keys(home)
    assert "log.key" in caught.value.next_move
    assert list(home.keys.iterdir()) == []
