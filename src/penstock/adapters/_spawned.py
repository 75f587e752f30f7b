"""A process that was started for its output, and its end. Not an adapter, and not for others.

It does what `asyncio.subprocess` does, but by `posix_spawn` and without a transport, which saves most of what
a short command costs. Called by `_commands`.
"""

from __future__ import annotations

import asyncio
import os
import signal

#: What Python ignores, and programs expect not to be ignored.
DEFAULTED = (signal.SIGPIPE, signal.SIGXFSZ)
FOLDER = "/dev/fd"


class Spawned:
    """Waited for from the beginning: it is never left unreaped while the loop runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        try:
            descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):  # another system, an old kernel, a sandbox that forbids it
            waiting = self._loop.run_in_executor(None, os.waitpid, pid, 0)
            waiting.add_done_callback(lambda done: self._tell(done.result()[1]))
        else:
            self._loop.add_reader(descriptor, self._reap, descriptor)

    @classmethod
    def start(cls, command: tuple[str, ...], output: int, inherit: tuple[int, ...]) -> Spawned:
        """Start *command*, in a session of its own and without an environment, its output into the descriptor
        *output*. It gets the descriptors to *inherit*, and no other. `OSError` if that cannot be."""
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
            # Upon itself: then it is not closed by the program's start.
            *((os.POSIX_SPAWN_DUP2, descriptor, descriptor) for descriptor in inherit),
            *((os.POSIX_SPAWN_CLOSE, stray) for stray in _strays() if stray not in inherit),
        ]
        pid = os.posix_spawn(command[0], command, {}, file_actions=actions, setsid=True, setsigdef=DEFAULTED)
        return cls(pid)

    async def wait(self) -> int:
        """Its exit code once it has ended, below 0 for a signal."""
        return await asyncio.shield(self._ended)

    def _reap(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self._tell(os.waitpid(self.pid, 0)[1])

    def _tell(self, status: int) -> None:
        if not self._ended.done():
            self._ended.set_result(os.waitstatus_to_exitcode(status))


def _strays() -> list[int]:
    """Descriptors that whoever started us left open: Python's own are closed by the start of a program."""
    with os.scandir(FOLDER) as listed:
        numbers = [int(entry.name) for entry in listed]
    return [number for number in numbers if number > 2 and _stays(number)]


def _stays(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # it is closed by now; that of the listing is
        return False
