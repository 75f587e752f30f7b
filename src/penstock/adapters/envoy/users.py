"""The users of an experiment, one by one, from Envoy's access log: who came, and who reached the goal.

Called by the driver, for whoever asks, and at least once a second while an experiment runs, so that no log is
rotated away unread. What a line says twice is counted once: reading a part of the log again changes nothing,
so that what was read since the last line of our own file need not be known after a crash. Of a user there is
a hash of his ticket, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from penstock.core.codec import decode, encode
from penstock.core.experiment import MOST_USERS, Goal, Seen, Users
from penstock.errors import Invalid

#: Seconds between two readings at which nobody asks.
EVERY = 1.0
#: Bytes of the log that are read at once.
CHUNK = 4 * 1024 * 1024
#: A log that was rotated is at its end once nobody has written to it for so long.
SETTLED = 1.0
LOST = "the access log was rotated away before it was read: requests are missing"
#: What is known of a user beside the release, by number, that answered him first.
REACHED, MOVED, BITS = 1, 2, 2


@dataclass
class Batch:
    """One line of our own file: how far the log is read, and what is new since the line before."""

    log: int
    offset: int
    new: dict[str, list[str]] = field(default_factory=dict)
    reached: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    lost: str = ""

    @property
    def says(self) -> bool:
        return bool(self.new or self.reached or self.moved or self.lost)


@dataclass(frozen=True)
class Head:
    """The first line: which experiment this is of."""

    epoch: str
    salt: str
    goal: Goal


class Fold:
    """The users of one experiment. Not for two threads at once."""

    def __init__(self, file: Path, log: Path, service: str, head: Head) -> None:
        self.head = head
        self._file = file
        self._log = log
        self._service = service
        self._named = json.dumps(head.salt)[1:-1].encode()
        self._releases: list[str] = []
        self._users: dict[int, int] = {}
        self._at = Batch(*_end(log))

    @classmethod
    def begun(cls, file: Path, log: Path, service: str, salt: str, goal: Goal) -> Fold:
        """A new one, from the present end of the log on, in place of whatever was there."""
        fold = cls(file, log, service, Head(secrets.token_hex(4), salt, goal))
        temporary = file.with_name(f"{file.name}.new")
        temporary.write_text(_line(encode(fold.head)) + _line(vars(fold._at)))
        temporary.chmod(0o600)
        temporary.replace(file)
        return fold

    @classmethod
    def found(cls, file: Path, log: Path, service: str) -> Fold | None:
        """The one that was kept; None if there is none, or nobody can read it."""
        try:
            first, *rest = file.read_bytes().splitlines(keepends=True)
            fold = cls(file, log, service, decode(Head, json.loads(first)))
            for line in rest:
                if line.endswith(b"\n"):  # else it was being written when somebody died
                    fold._take(Batch(**json.loads(line)))
        except (OSError, ValueError, TypeError, Invalid):
            return None
        with file.open("r+b") as kept:
            kept.truncate(sum(len(line) for line in (first, *rest) if line.endswith(b"\n")))
        return fold

    def _take(self, batch: Batch) -> None:
        for release, hashes in batch.new.items():
            number = self._number(release)
            self._users.update((int(text, 16), number << BITS) for text in hashes)
        for flag, hashes in ((REACHED, batch.reached), (MOVED, batch.moved)):
            for text in hashes:
                self._users[int(text, 16)] |= flag
        self._at = Batch(batch.log, batch.offset, lost=batch.lost or self._at.lost)

    def _number(self, release: str) -> int:
        if release not in self._releases:
            self._releases.append(release)
        return self._releases.index(release)

    def advance(self) -> None:
        """Read what Envoy has written since, and keep what is new."""
        for data in self._unread():
            batch = Batch(self._at.log, self._at.offset)
            for line in data.splitlines():
                if self._named in line:
                    self._note(line, batch)
            self._keep(batch)

    def _unread(self) -> Iterator[bytes]:
        """Whole lines of the log, and before them of the one that was rotated; `_at` goes with them."""
        while True:
            known = (path for path in (self._log, _old(self._log)) if self._at.log)
            path = next((path for path in known if _identity(path) == self._at.log), None)
            if path is None and not _identity(self._log):
                return
            if path is None:
                first = self._at.log == 0  # nobody had written any when this began
                self._at = Batch(_identity(self._log), 0, lost=self._at.lost or ("" if first else LOST))
                self._keep(self._at)
                continue
            with path.open("rb") as file:
                file.seek(self._at.offset)
                data = file.read(CHUNK)  # what is written now is read next time
                quiet = time.time() - os.fstat(file.fileno()).st_mtime > SETTLED
            whole = data[: data.rfind(b"\n") + 1]
            if whole:
                self._at = Batch(self._at.log, self._at.offset + len(whole), lost=self._at.lost)
                yield whole
            elif path != self._log and quiet and _identity(self._log):
                self._at = Batch(_identity(self._log), 0, lost=self._at.lost)
            else:
                return

    def _note(self, line: bytes, batch: Batch) -> None:
        try:
            entry: Any = json.loads(line)
            salt, _, ticket = entry["ticket"].rpartition(":")
            release, method, path = (str(entry[name]) for name in ("release", "method", "path"))
            mine = (salt, entry["service"]) == (self.head.salt, self._service)
            reached = self.head.goal.met(method, path, int(entry["status"]))
        except (ValueError, KeyError, TypeError, AttributeError):  # nobody's request, or no line of ours
            return
        if not mine or entry["release"] is None:
            return
        text = blake2b(ticket.encode(), digest_size=8).hexdigest()
        known = self._users.get(int(text, 16))
        if known is None:
            if len(self._users) >= MOST_USERS:
                return
            known = self._number(release) << BITS
            batch.new.setdefault(release, []).append(text)
        flags = 0
        if self._releases[known >> BITS] != release and not known & MOVED:
            flags |= MOVED
            batch.moved.append(text)
        elif reached and not known & (REACHED | MOVED):
            flags |= REACHED
            batch.reached.append(text)
        self._users[int(text, 16)] = known | flags

    def _keep(self, batch: Batch) -> None:
        if batch.says:
            batch.log, batch.offset = self._at.log, self._at.offset
            with self._file.open("a") as file:
                file.write(_line(vars(batch)))

    def users(self) -> Users:
        seen = {release: [0, 0] for release in self._releases}
        moved = 0
        for known in self._users.values():
            one = seen[self._releases[known >> BITS]]
            one[0] += 1
            one[1] += known & REACHED
            moved += bool(known & MOVED)
        counted = {release: Seen(*numbers) for release, numbers in seen.items()}
        full = len(self._users) >= MOST_USERS
        return Users(time.time(), self.head.epoch, counted, moved, full, self._at.lost)


class Folds:
    """Those of all services, each with a file of its own in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = asyncio.Lock()
        self._folds: dict[str, Fold | None] = {}
        self._read = 0.0

    async def users(self, service: str, salt: str, goal: Goal) -> Users:
        """Those of *service* (as the log names it); counting begins if it has not."""
        async with self._lock:
            return await asyncio.to_thread(self._users, service, salt, goal)

    def _users(self, service: str, salt: str, goal: Goal) -> Users:
        fold = self._known(service)
        if fold is None or (fold.head.salt, fold.head.goal) != (salt, goal):
            fold = Fold.begun(self._file(service), self._log, service, salt, goal)
            self._folds[service] = fold
        fold.advance()
        return fold.users()

    async def follow(self, salts: Mapping[str, str]) -> None:
        """Read on, for the services whose present experiment (by service; "" for none) is counted."""
        if time.monotonic() < self._read + EVERY or self._lock.locked():
            return
        self._read = time.monotonic()
        async with self._lock:
            for service, salt in salts.items():
                fold = self._known(service) if salt else None
                if fold is not None and fold.head.salt == salt:
                    await asyncio.to_thread(fold.advance)

    def _known(self, service: str) -> Fold | None:
        if service not in self._folds:
            self._folds[service] = Fold.found(self._file(service), self._log, service)
        return self._folds[service]

    def _file(self, service: str) -> Path:
        return self._folder / f"users-{service}.jsonl"

    @property
    def _log(self) -> Path:
        return self._folder / "access.log"


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"


def _old(log: Path) -> Path:
    return log.with_suffix(".log.1")


def _identity(log: Path) -> int:
    """Tells files apart that had the same name, or even the same inode: by their first line, which holds a
    request's id. 0 where there is none yet."""
    try:
        with log.open("rb") as file:
            first = file.readline(CHUNK)
    except FileNotFoundError:
        return 0
    return int.from_bytes(blake2b(first, digest_size=6).digest()) if first.endswith(b"\n") else 0


def _end(log: Path) -> tuple[int, int]:
    """Which file the log is, and how long."""
    identity = _identity(log)
    return identity, log.stat().st_size if identity else 0
