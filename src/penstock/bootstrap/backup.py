"""Makes a backup of a data folder: one file with the store, the artifacts, the keys, and what should run.

Called by the CLI, with or without a server at work. Must not change the folder. The order decides what a
copy may refer to:

1. the store first, with what the node says should run at the same moment;
2. then keys, trust and settings, then the artifacts. An artifact is written before anything refers to it, and
   nothing is removed meanwhile (`exclusively`), so all that the store refers to is there when its turn comes.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from penstock.bootstrap.archive import FORMAT, Manifest, Member, Writer
from penstock.bootstrap.control import open_store, store_place
from penstock.bootstrap.home import Home
from penstock.bootstrap.identity import ORIGIN
from penstock.bootstrap.processes import locked
from penstock.engine import schemas
from penstock.errors import Conflict, Invalid, PenstockError, Unavailable
from penstock.ledger.log import Ledger
from penstock.ports import Store

#: What names what should run, below ``node/``: fences and owners, placed releases, the proxy's plans.
NODE = ("fences.json", "scopes.json", "w/releases/*.json", "envoy/state.json", "envoy/[clr]ds*.json")
#: How often the store is copied again because traffic moved meanwhile, before writers have to wait.
TRIES = 3


@dataclass(frozen=True)
class Made:
    """*damaged* are blobs whose bytes are not those that their name says: they were copied as they are."""

    file: str
    bytes: int
    entries: int
    root: str
    artifacts: int
    keys: bool
    damaged: tuple[str, ...]


@contextlib.contextmanager
def exclusively(home: Home) -> Iterator[None]:
    """Nothing that copies or removes kept things at the same time: backup, restore, prune."""
    with locked(home.run / "keeping.lock", "a backup, restore or prune is at work here"):
        yield


async def back_up(home: Home, file: Path, *, keys: bool = True) -> Made:
    """Write the backup to a temporary name beside *file*, and rename it when all of it is on the disk."""
    kind, place = store_place(home)
    if not home.run.exists() or (isinstance(place, Path) and not place.exists()):
        raise Invalid("there is nothing to back up", where=str(home.path), next_move="set PENSTOCK_HOME")
    if file.exists():
        raise Conflict("there is a file already", where=str(file), next_move="give a new name")
    beside = file.absolute().parent
    with (
        exclusively(home),
        _on_disk(file),
        tempfile.TemporaryDirectory(prefix=".penstock-backup-", dir=beside) as folder,
    ):
        store = open_store(home)
        try:
            manifest = await _described(home, store, kind)
            copy = Path(folder) / ("store.db" if kind == "sqlite" else "store.dump")
            node = await copied(home, store, copy)
        finally:
            await store.close()
        part = Path(folder) / "archive"
        manifest = replace(manifest, without=() if keys else ("keys",))
        members = _write(home, part, copy, node, manifest)
        part.replace(file)
        _sync(beside)
    blobs = [member for member in members if "/blobs/" in member.name]
    return Made(
        file=str(file),
        bytes=file.stat().st_size,
        entries=manifest.size,
        root=manifest.root,
        artifacts=len(blobs),
        keys=keys,
        damaged=tuple(m.name for m in blobs if m.name.rpartition("/")[2] != m.sha256),
    )


async def _described(home: Home, store: Store, kind: str) -> Manifest:
    ledger = Ledger(store, (), ORIGIN)
    found = await schemas.versions(store)
    if "ledger" not in found:
        raise Invalid("there is no ledger to back up", where=str(home.path), next_move="set PENSTOCK_HOME")
    async with store.transaction(write=False) as tx:
        size, note = await ledger.head(tx)
        root = await ledger.root(tx, size)
    return Manifest(
        format=FORMAT,
        release=version("penstock"),
        created=time.time(),
        origin=ORIGIN,
        size=size,
        root=root.hex(),
        checkpoint=note,
        store=kind,
        schema=found,
        home=str(home.path),
    )


async def copied(home: Home, store: Store, copy: Path) -> dict[str, bytes]:
    """Copy the store, and return the node's records as they were while it was copied.

    They are compared before and after: a store that knows nothing of a promotion, beside a node that has
    removed what was there before it, could not go on. The last time, nobody may commit meanwhile; what was
    done to the world and not recorded yet is then what it is after a crash, and the engine knows how to go
    on.
    """
    for attempt in range(TRIES):
        before = _node(home)
        async with _quiet(store, attempt == TRIES - 1):
            copy.unlink(missing_ok=True)
            await store.backup(copy)
            after = _node(home)
        if before == after:
            break
    return after


@asynccontextmanager
async def _quiet(store: Store, needed: bool) -> AsyncIterator[None]:
    async with store.transaction() if needed else contextlib.nullcontext():
        yield


def _node(home: Home) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for pattern in NODE:
        for path in sorted(home.node.glob(pattern)):
            with contextlib.suppress(FileNotFoundError):  # removed between listing and reading
                found[f"node/{path.relative_to(home.node)}"] = path.read_bytes()
    return found


def _write(home: Home, part: Path, copy: Path, node: dict[str, bytes], manifest: Manifest) -> list[Member]:
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        writer = Writer(stream)
        writer.add_file(copy.name, copy)
        copy.unlink()  # the disk may be small
        for name, data in node.items():
            writer.add(name, data)
        for name in () if manifest.without else sorted(path.name for path in home.keys.glob("[!.]*")):
            writer.add_file(f"keys/{name}", home.keys / name)
        for name in ("trust.json", "settings.json"):
            if (home.path / name).exists():
                writer.add_file(name, home.path / name)
        _artifacts(home, writer)
        writer.end(lambda members: replace(manifest, members=members))
        stream.flush()
        os.fsync(stream.fileno())
    return writer.members


def _artifacts(home: Home, writer: Writer) -> None:
    # The list first: what it names is whole by then.
    for name in ("index.json", "oci-layout"):
        if (home.artifacts / name).exists():
            writer.add(f"artifacts/{name}", (home.artifacts / name).read_bytes())
    for path in sorted((home.artifacts / "blobs/sha256").glob("[!.]*")):
        writer.add_file(f"artifacts/blobs/sha256/{path.name}", path)


@contextlib.contextmanager
def _on_disk(file: Path) -> Iterator[None]:
    try:
        yield
    except PenstockError:
        raise
    except OSError as error:
        raise Unavailable(
            f"no backup was made: {error.strerror or error}",
            where=str(error.filename or file),
            next_move="free some space, or name a file on another disk",
        ) from error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
