"""What a step writes, on its way to the disk: known secrets masked, its beginning and its end kept.

Shared by the sandboxes through `_commands`; not an adapter, and not for others. The shape of the files is
`core.steplog`'s. Must not stop reading: a step waits for whoever reads its output.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from penstock.core.masking import SHORTEST, Masker
from penstock.core.steplog import KEPT, Bounds, segment_name
from penstock.core.tail import LIMIT, tail

#: ``user:password@`` in an address.
CREDENTIALS = re.compile(r"://([^/?#@\s]+)@")


class Output:
    """One step's output: to the end of *log*, its last words at hand. Unless closed, its end is lost."""

    def __init__(self, log: Path, secrets: Iterable[bytes], bounds: Bounds = KEPT) -> None:
        self.log = log
        self._masker = Masker(secrets)
        self._file: _Rolling | None = None
        self._end = b""
        self._trouble = ""
        self._closed = False
        try:
            self._file = _Rolling(log, bounds)
        except OSError as error:
            self._give_up(error)

    def write(self, data: bytes) -> None:
        self._keep(self._masker.feed(data))

    def close(self) -> None:
        """Nothing more comes: what was held back is written, without the beginning of a secret."""
        if self._closed:
            return
        self._closed = True
        self._keep(self._masker.finish())
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    @property
    def last_words(self) -> str:
        return tail(self._end) + self._trouble

    def _keep(self, data: bytes) -> None:
        self._end = (self._end + data)[-4 * LIMIT :] if len(data) < 4 * LIMIT else data[-4 * LIMIT :]
        if self._trouble or self._file is None:
            return
        try:
            self._file.append(data)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """The step goes on: what it does is worth more than its words."""
        self._trouble = f"\n(its log ends early: {error.strerror})"


class _Rolling:
    """The files. Where they were left is read off them, so that the next step of a stage goes on there."""

    def __init__(self, log: Path, bounds: Bounds) -> None:
        self._bounds = bounds
        self._folder = log.with_name(log.name + ".tail")
        self._segments = sorted(self._folder.glob("[0-9]*")) if self._folder.exists() else []
        # Held until the end: the log of a stage is not compressed under the hands of whoever writes it.
        self._lock = _held(log)
        self._file = self._lock
        self._total = os.fstat(self._file.fileno()).st_size
        self._room = max(0, bounds.head - self._total)
        if self._segments:
            self._resume(self._segments[-1])

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view):
            if not self._room:
                self._next()
            part = view[: self._room]
            self._file.write(part)
            self._room -= len(part)
            self._total += len(part)
            view = view[len(part) :]
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        self._lock.close()

    def _resume(self, last: Path) -> None:
        self._file = last.open("ab")
        size = self._file.seek(0, os.SEEK_END)
        self._total, self._room = int(last.name) + size, max(0, self._bounds.segment - size)

    def _next(self) -> None:
        """A new segment; the oldest goes once the others are enough."""
        if self._file is not self._lock:
            self._file.close()
        self._folder.mkdir(exist_ok=True)
        path = self._folder / segment_name(self._total)
        self._file = path.open("ab")
        self._segments.append(path)
        self._room = self._bounds.segment
        while len(self._segments) > self._bounds.tail // self._bounds.segment + 1:
            self._segments.pop(0).unlink(missing_ok=True)


def _held(log: Path) -> BinaryIO:
    """The log, locked. Whoever was about to remove it has then done so, and it is made anew."""
    while True:
        file = log.open("ab")
        fcntl.flock(file, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()


def known_secrets(given: Iterable[str], settings: Mapping[str, str]) -> tuple[set[bytes], list[str]]:
    """What must not be in a log: *given*, our own token, and the credentials in addresses among *settings*.

    Those of the last two that are too short to be masked are left out, and told in lines for the log.
    """
    found = {secret.encode() for secret in given if secret}
    told = []
    ours = {"PENSTOCK_TOKEN": [os.environ.get("PENSTOCK_TOKEN", "").encode()]}
    for name, values in {**ours, **{name: _credentials(text) for name, text in settings.items()}}.items():
        for value in filter(None, values):
            if len(value) < SHORTEST:
                told.append(f"(a secret in {name} has fewer than {SHORTEST} bytes: it is not masked)\n")
            else:
                found.add(value)
    return found, sorted(set(told))


def _credentials(text: str) -> list[bytes]:
    """The passwords in addresses, as written and as meant; a user without a password is one."""
    words = []
    for pair in CREDENTIALS.findall(text):
        user, colon, password = pair.partition(":")
        word = password if colon else user
        words += [word.encode(), unquote_to_bytes(word)]
    return words
