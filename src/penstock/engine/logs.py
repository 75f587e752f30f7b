"""Reads the output of stages by range, and compresses it once its stage has finished.

Called by the performer around every intent, and by the server. A reader takes no lock and holds nobody up:
what is removed under its hands is looked for again. Must not write while a step does; see `keeping`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.core.steplog import (
    BLOCK,
    KEPT,
    WORTH_COMPRESSING,
    Bounds,
    Extent,
    Index,
    blocks_of,
    compress,
    cut,
    decompress,
    index_bytes,
    left_out,
    read_index,
    segment_name,
    write_index,
)
from penstock.errors import Broken

say = logging.getLogger(__name__)

#: A log that changes its form while it is read is read again, at most so often.
ATTEMPTS = 20
#: An index is never longer.
INDEX_BYTES = 64 * 1024

#: Gives the kept bytes from the first number to the second.
Get = Callable[[int, int], Iterator[bytes]]


@dataclass(frozen=True)
class Piece:
    """Bytes *begin* to *next* of *total*. *data* is they, or says in a line which of them are not kept."""

    begin: int
    next: int
    total: int
    data: bytes


def read(log: Path, offset: int | None, limit: int) -> Piece:
    """At most *limit* bytes from *offset*; the last ones if it is None. Nothing if there is no log (yet)."""
    for _ in range(ATTEMPTS):
        try:
            extent, get = _open(log)
            at = max(0, extent.total - limit) if offset is None else offset
            found = cut(extent, at, limit)
            data = b"".join(get(*found.before)) + found.note.encode() + b"".join(get(*found.after))
        except FileNotFoundError:
            continue
        return Piece(found.begin, found.next, extent.total, data)
    raise Broken("the log changed whenever it was read", where=str(log))


def make_room(log: Path) -> None:
    """The folder for *log*. Without it the stage is performed all the same, and says so."""
    with contextlib.suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)


@contextlib.asynccontextmanager
async def keeping(log: Path) -> AsyncIterator[None]:
    """Around whatever may append to *log*: opened again if it was compressed, compressed when it is over."""
    if _finished(log).exists():
        await asyncio.to_thread(_quietly, reopen, log)
    try:
        yield
    finally:
        if _worth_compressing(log):
            await asyncio.to_thread(_quietly, finish, log)


def _worth_compressing(log: Path) -> bool:
    try:
        return log.stat().st_size >= WORTH_COMPRESSING or _tail(log).exists()
    except FileNotFoundError:
        return False


def _quietly(change: Callable[[Path], None], log: Path) -> None:
    """The form of a log is not worth a delivery: whatever stands in the way is told, and put aside."""
    try:
        change(log)
    except (OSError, Broken) as error:
        say.warning("%s: %s", log, error)
        with contextlib.suppress(OSError):
            _draft(log).unlink(missing_ok=True)
            if isinstance(error, Broken):
                _finished(log).rename(log.with_name(log.name + ".damaged"))


def finish(log: Path) -> None:
    """Compress, unless it is small, or somebody still writes: this may be a worker that lost its delivery."""
    try:
        with log.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _worth_compressing(log):
                _compress(log)
    except (FileNotFoundError, BlockingIOError):
        return


def _compress(log: Path) -> None:
    """The live form stays until the compressed one is whole."""
    extent, get = _live(log)
    blocks = blocks_of(extent)
    draft, found = _draft(log), []
    with draft.open("wb") as file:
        file.seek(index_bytes(len(blocks)))
        for begin, end in blocks:
            if begin == extent.gap_end > 0:
                file.write(compress(left_out(extent).encode()))  # for whoever reads it with zcat
            found.append((begin, file.tell()))
            file.write(compress(b"".join(get(begin, end))))
        file.seek(0)
        file.write(write_index(Index(extent, tuple(found))))
    draft.replace(_finished(log))
    log.unlink()
    shutil.rmtree(_tail(log), ignore_errors=True)


def reopen(log: Path, bounds: Bounds = KEPT) -> None:
    """Give a compressed log its live form back, so that a step can append to it."""
    if not _finished(log).exists():
        return
    if not log.exists():
        extent, get = _compressed(_finished(log))
        head = extent.gap_begin if extent.gap_end else min(extent.total, bounds.head)
        draft = _draft(log)
        shutil.rmtree(_tail(log), ignore_errors=True)
        for begin in range(extent.gap_end or head, extent.total, bounds.segment):
            _tail(log).mkdir(exist_ok=True)
            with (_tail(log) / segment_name(begin)).open("wb") as file:
                file.writelines(get(begin, min(begin + bounds.segment, extent.total)))
        with draft.open("wb") as file:
            file.writelines(get(0, head))
        draft.replace(log)
    _finished(log).unlink()


def _open(log: Path) -> tuple[Extent, Get]:
    """Whichever form there is; the live one is whole whenever its first file is there."""
    try:
        return _live(log)
    except FileNotFoundError:
        if _finished(log).exists():
            return _compressed(_finished(log))
        if log.exists():
            raise
        return Extent(0), lambda *_: iter(())


def _live(log: Path) -> tuple[Extent, Get]:
    # The order matters: the first file is removed before the others, so these were all there.
    segments = sorted(_tail(log).glob("[0-9]*")) if _tail(log).exists() else []
    last = segments[-1].stat().st_size if segments else 0
    head = log.stat().st_size
    starts = [int(path.name) for path in segments]
    total = starts[-1] + last if starts else head
    gap = (head, starts[0]) if starts and starts[0] > head else (0, 0)
    files = [(0, head, log)]
    for path, begin, end in zip(segments, starts, [*starts[1:], total], strict=False):
        files.append((begin, end, path))

    def get(begin: int, end: int) -> Iterator[bytes]:
        for first, last, path in files:
            low, high = max(begin, first), min(end, last)
            if low < high:
                with path.open("rb") as file:
                    file.seek(low - first)
                    yield file.read(high - low)

    return Extent(total, *gap), get


def _compressed(path: Path) -> tuple[Extent, Get]:
    with path.open("rb") as file:
        index = read_index(file.read(INDEX_BYTES))
    places = [where for _, where in index.blocks]
    ends = dict(zip(places, [*places[1:], path.stat().st_size], strict=True))

    def get(begin: int, end: int) -> Iterator[bytes]:
        with path.open("rb") as file:
            for first, where in index.blocks:
                if begin < first + BLOCK and first < end:
                    file.seek(where)
                    block = decompress(file.read(ends[where] - where))
                    yield block[max(0, begin - first) : max(0, end - first)]

    return index.extent, get


def _tail(log: Path) -> Path:
    return log.with_name(log.name + ".tail")


def _finished(log: Path) -> Path:
    return log.with_name(log.name + ".gz")


def _draft(log: Path) -> Path:
    return log.with_name(log.name + ".draft")
