"""Puts a backup into an empty data folder, so that `penstock up` goes on where it was made.

Called by the CLI, while nothing runs there. Steps: 1. the whole archive is checked before anything is
written; 2. the folder must have no ledger, and nothing may run in it; 3. everything is unpacked beside its
place, and the store put into its own; 4. fences rise and leases end; 5. the ledger is verified, and must
begin with what the manifest says; 6. the rest moves to its place, ``trust.json`` last. Until then nothing can
be started there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from penstock.bootstrap.archive import Contents, check
from penstock.bootstrap.backup import exclusively
from penstock.bootstrap.control import open_store, store_place
from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import find, names
from penstock.bootstrap.processes import is_held, locked
from penstock.core.codec import decode
from penstock.engine import journal, prune, restored, schemas
from penstock.errors import Broken, Conflict, Invalid, PenstockError, Unavailable
from penstock.ledger import fsck
from penstock.ledger.log import Ledger
from penstock.ports import Restorer

T = TypeVar("T")
#: In this order; what decides that the folder has a ledger comes last.
PLACES = ("artifacts", "node", "keys", "settings.json", "trust.json")


@dataclass(frozen=True)
class Restored:
    """*deliveries* had not ended; *entries* and *root* are what was verified. *created* is the backup's
    time."""

    home: str
    release: str
    created: float
    entries: int
    root: str
    sign_offs: int
    deliveries: int
    artifacts: int
    keys: bool


async def restore(home: Home, file: Path) -> Restored:
    """See the module. `Invalid` and `Conflict` leave everything as it was."""
    kind, place = store_place(home)
    restorer: Restorer = find("restorer", kind)(place)
    with _opened(file) as contents:
        _check_fits(contents, kind)
        _check_unused(home)
        await restorer.vacant()
        with _staging(home, contents) as staging:
            return await _restore(home, contents, restorer, staging)


async def _restore(home: Home, contents: Contents, restorer: Restorer, staging: Path) -> Restored:
    for member in contents.manifest.members:
        contents.extract(member, staging / member.name)
    _move_paths(staging, contents.manifest.home, home)
    await restorer.restore(next(staging.glob("store.*")))
    try:
        deliveries, report = await _resumed(home, contents, staging)
    except BaseException:
        # What is there is ours: the place was vacant.
        await restorer.clear()
        raise
    for name in PLACES:
        for path in sorted(p for p in (staging / name, *(staging / name).rglob("*")) if p.is_file()):
            target = home.path / path.relative_to(staging)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.move(path, target)
    os.sync()
    return Restored(
        home=str(home.path),
        release=contents.manifest.release,
        created=contents.manifest.created,
        entries=report.entries,
        root=report.root,
        sign_offs=report.sign_offs,
        deliveries=deliveries,
        artifacts=sum("/blobs/" in name for name in contents.names),
        keys="keys" not in contents.manifest.without,
    )


async def _resumed(home: Home, contents: Contents, staging: Path) -> tuple[int, fsck.Report]:
    """Bring the tables to this release, raise the fences, and verify the ledger."""
    fences = _read(staging / "node/fences.json", dict[str, int]) or {}
    trust = _read(staging / "trust.json", fsck.Trust)
    store = open_store(home)
    try:
        schemas.refuse_newer(await schemas.versions(store), contents.where)
        await Ledger(store, (), contents.manifest.origin).migrate()
        await journal.Journal(store).migrate()
        await prune.migrate(store)
        async with store.transaction() as tx:
            deliveries = await restored.resume(tx, fences)
        languages = {name: find("language", name)() for name in names("language")}
        report = await fsck.verify(store, trust, languages, kept=contents.manifest.checkpoint)
    finally:
        await store.close()
    if not report.verified:
        raise Broken(
            "the ledger in this backup does not verify: "
            + "; ".join(report.problems[:3] or ("it is empty",)),
            where=contents.where,
            next_move="restore an older backup. Nothing was restored; the archive is a plain tar",
        )
    return deliveries, report


def _read(path: Path, hint: type[T]) -> T | None:
    """A document of the archive's; None if it is not in it."""
    try:
        return decode(hint, json.loads(path.read_bytes()), path.name) if path.exists() else None
    except (ValueError, RecursionError) as error:
        raise Invalid(f"not JSON: {error}", where=path.name) from error


# --- before anything is written ------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Contents]:
    if file.exists() and not file.is_file():
        raise Invalid("not a file", where=str(file))
    try:
        stream = file.open("rb")
    except OSError as error:
        raise Invalid(f"cannot be read: {error.strerror}", where=str(file)) from error
    with stream:
        yield check(stream, str(file))


def _check_fits(contents: Contents, kind: str) -> None:
    manifest, where = contents.manifest, contents.where
    schemas.refuse_newer(manifest.schema, where)
    if manifest.store != kind:
        raise Conflict(
            f"a backup of a store in {manifest.store}, and PENSTOCK_STORE names one in {kind}",
            where=where,
            next_move="restore it into a store of its own kind",
        )
    if ("store.db" if kind == "sqlite" else "store.dump") not in contents.names:
        raise Invalid("the store is not in it", where=where)
    keys = [name for name in contents.names if name.startswith("keys/")]
    if bool(keys) == ("keys" in manifest.without):
        raise Invalid("not as its manifest says: the keys", where=where)


def _check_unused(home: Home, ours: tuple[str, ...] = ()) -> None:
    """`Conflict` if something runs in the folder, or it has a ledger, releases or artifacts of its own."""
    locks = (*sorted(home.run.glob("*.lock")), home.node / "agent.lock")
    held = [lock.stem for lock in locks if lock.stem not in ours and is_held(lock)]
    if held:
        raise Conflict(
            f"something runs here ({', '.join(held)})", where=str(home.path), next_move="penstock down"
        )
    if home.trust.exists() or home.placed or (home.artifacts / "index.json").exists():
        raise Conflict(
            "this data folder has a ledger already; it was left as it is",
            where=str(home.path),
            next_move="set PENSTOCK_HOME to an empty folder, or move this one away",
        )


@contextlib.contextmanager
def _staging(home: Home, contents: Contents) -> Iterator[Path]:
    """The folder to unpack into, removed on the way out. While it is there nothing else starts
    (`Home.create`)."""
    try:
        home.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(home.run / "up.lock", "`penstock up` is at work here"), exclusively(home):
            _check_unused(home, ours=("up", "keeping"))
            shutil.rmtree(home.half_restored, ignore_errors=True)
            home.create()
            _check_keys(home, contents)
            _check_room(home, contents)
            home.half_restored.mkdir(mode=0o700)
            try:
                yield home.half_restored
            finally:
                shutil.rmtree(home.half_restored, ignore_errors=True)
    except PenstockError:
        raise
    except OSError as error:
        raise Unavailable(
            f"nothing was restored: {error.strerror or error}",
            where=str(error.filename or home.path),
            next_move="free some space, then restore again",
        ) from error


def _check_keys(home: Home, contents: Contents) -> None:
    present = {f"keys/{path.name}" for path in home.keys.iterdir()} & set(contents.names)
    if present:
        raise Conflict(
            f"there are keys already ({', '.join(sorted(present))}); they were left as they are",
            where=str(home.path),
            next_move="set PENSTOCK_HOME to an empty folder, or move them away",
        )


def _check_room(home: Home, contents: Contents) -> None:
    # The store is there twice for a moment.
    needed = contents.bytes + sum(m.size for m in contents.manifest.members if m.name.startswith("store."))
    free = shutil.disk_usage(home.path).free
    if needed > free:
        raise Unavailable(
            f"the backup needs {needed >> 20} MiB, and {free >> 20} MiB are free",
            where=str(home.path),
            next_move="free some space, or set PENSTOCK_HOME to another disk",
        )


# --- what the node should run, in another folder --------------------------------------------------------


def _move_paths(staging: Path, old: str, home: Home) -> None:
    """Let the node's records name this folder, and no process: those of the copied folder are not ours."""
    for path in sorted((staging / "node").rglob("*.json")):
        try:
            document = _renamed(json.loads(path.read_bytes()), f"{old}/", f"{home.path}/")
            if path.parent.name == "releases":
                document = _not_running(document)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise Invalid(f"not a record of the node's: {error}", where=path.name) from error
        path.write_text(json.dumps(document))


def _renamed(value: Any, old: str, new: str) -> Any:
    """A JSON document with another folder in all of its strings."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, list):
        return [_renamed(item, old, new) for item in value]
    if isinstance(value, Mapping):
        return {name: _renamed(item, old, new) for name, item in value.items()}
    return value


def _not_running(release: dict[str, Any]) -> dict[str, Any]:
    """A release's record in which no instance has a process: on another machine, or beside the folder that
    it was copied from, the same pid is somebody else's."""
    kept = ("id", "port", "served")
    instances = [{name: one[name] for name in kept if name in one} for one in release.get("instances", ())]
    return {**release, "instances": instances}
