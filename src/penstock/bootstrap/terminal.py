"""A terminal of our own around a command, so that other people's code never holds the user's.

Called by `bootstrap.shell`. Whoever holds a terminal can put words into its input (TIOCSTI), which the
user's shell would run afterwards; kernels from 6.2 on can be told to refuse that (dev.tty.legacy_tiocsti),
and not all are. So the sandbox keeps its session of its own, the command gets a pseudo-terminal that nobody
else reads, and only bytes are copied between the two. Must not pass on the user's terminal, nor leave it in
another mode.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator, Sequence

#: Run inside, in the command's place: it takes the terminal as its own, so that job control works.
TAKE = (
    "import contextlib, fcntl, os, sys, termios\n"
    "with contextlib.suppress(PermissionError):\n"
    "    os.setsid()\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "try:\n"
    "    os.execvp(sys.argv[1], sys.argv[1:])\n"
    "except OSError as error:\n"
    "    print(f'{sys.argv[1]}: {error.strerror}')\n"
    "    sys.exit(127)\n"
)
CHUNK = 1 << 16
#: How long a command may take to end when its terminal is gone.
SECONDS = 5.0


def taking(python: str, command: Sequence[str]) -> tuple[str, ...]:
    """The command line for inside: *command*, once it has the terminal on its standard input for its own."""
    return (python, "-I", "-c", TAKE, *command)


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def run(command: Sequence[str]) -> int:
    """Run a host command on a terminal of its own, joined to the user's, and give its exit code."""
    ours, its = os.openpty()
    try:
        _resize(ours)
        process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True)
    finally:
        os.close(its)
    try:
        with _raw(), _following_size(ours), _leaving():
            _copy(ours)
    finally:
        os.close(ours)  # whoever is still inside is told that nobody is here any more
        code = _ended(process)
    return code


def _ended(process: subprocess.Popen[bytes]) -> int:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(timeout=SECONDS)
    process.kill()
    return process.wait()


def _copy(ours: int) -> None:
    """Both ways, until nobody holds the other end."""
    user_in, user_out = sys.stdin.fileno(), sys.stdout.fileno()
    watched = [ours, user_in]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if user_in in ready:
            typed = _read(user_in)
            if not typed:  # the user's terminal is gone: hang up
                return
            _write(ours, typed)
        if ours in ready:
            said = _read(ours)
            if not said:
                return
            _write(user_out, said)


def _read(file: int) -> bytes:
    """What is there; nothing if it has ended, which Linux tells of terminals by an error."""
    try:
        return os.read(file, CHUNK)
    except OSError:
        return b""


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Every key goes to the command. Afterwards all is as it was; what nobody has read is dropped."""
    user_in = sys.stdin.fileno()
    before = termios.tcgetattr(user_in)
    try:
        tty.setraw(user_in)
        yield
    finally:
        with contextlib.suppress(termios.error):  # it may be gone
            termios.tcsetattr(user_in, termios.TCSAFLUSH, before)


@contextlib.contextmanager
def _following_size(ours: int) -> Iterator[None]:
    before = signal.signal(signal.SIGWINCH, lambda *_: _resize(ours))
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextlib.contextmanager
def _leaving() -> Iterator[None]:
    """A closed window or a request to end leaves through the front door: nothing stays behind."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _resize(ours: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(sys.stdin.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(ours, termios.TIOCSWINSZ, size)
