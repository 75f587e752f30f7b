"""When a process was born: written down beside its pid, so that a reused pid is not taken for our process.

Shared by `processes` and `envoy`; not an adapter, and not for others. It is not a time of day: when somebody
sets the clock, psutil's time of creation moves with it, and every running process would look like a stranger.
"""

from __future__ import annotations

from pathlib import Path

import psutil

BOOT = Path("/proc/sys/kernel/random/boot_id")
#: Field 22 of ``/proc/PID/stat``, counted from behind the name, which may hold spaces and brackets.
START = 22 - 3


def birth_of(process: psutil.Process) -> str:
    """The same for as long as the process lives, and no other's; `psutil.Error` if it is gone."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_bytes()
        ticks = stat.rpartition(b")")[2].split()[START].decode()
        return f"{BOOT.read_text()[:8]}.{ticks}"
    except FileNotFoundError:
        return f"{process.create_time():.2f}"  # gone, or a system without /proc: psutil knows which


def is_same(process: psutil.Process, birth: str, created: float) -> bool:
    """Whether it is the one that was written down: with its *birth*, or once only when it was *created*."""
    return birth_of(process) == birth if birth else abs(process.create_time() - created) < 0.01
