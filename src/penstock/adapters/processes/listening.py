"""Finds where an instance listens that never became ready: often it is the wrong address or port.

Called by the driver when it gives an instance up. Linux tells it for a process in any network namespace; on
other systems, and without the right to ask, nothing is said.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from penstock.core.traffic import HTTP2
from penstock.core.workload import Workload

LISTENS = "0A"
#: Told at most, of a program that listens everywhere.
MOST = 5


def not_ready(workload: Workload, port: int, pids: Iterable[int]) -> str:
    """Why an instance with these processes was given up, in words for its author; *port* is what it was
    told."""
    late = f"not ready after {workload.start_seconds:g} s"
    found = sorted({address for pid in pids for address in listeners(pid)})
    accepting = {f"127.0.0.1:{port}", f"0.0.0.0:{port}", f"[::]:{port}"}
    if accepting.intersection(found):
        greeted = f"no answer below 500 came from {workload.health_path or '/'}"
        return f"{late}: {'it does not greet as HTTP/2 does' if workload.protocol in HTTP2 else greeted}"
    where = f"it listened on {', '.join(found[:MOST])}" if found else "it was not seen to listen anywhere"
    return f"{late}: it must listen on 127.0.0.1:$PORT (here {port}), and {where}"


def listeners(pid: int, proc: Path = Path("/proc")) -> Iterator[str]:
    """The TCP addresses that a process listens on, as people write them."""
    with contextlib.suppress(OSError, ValueError):
        own = {inode for file in (proc / str(pid) / "fd").iterdir() if (inode := _inode(file))}
        for table in ("tcp", "tcp6"):
            for line in (proc / str(pid) / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENS and fields[9] in own:
                    yield _address(fields[1])


def _inode(file: Path) -> str:
    with contextlib.suppress(OSError):  # closed meanwhile
        found = re.fullmatch(r"socket:\[(\d+)\]", str(file.readlink()))
        return found[1] if found else ""
    return ""


def _address(written: str) -> str:
    """``0100007F:1F90`` is ``127.0.0.1:8080``: words of four bytes, each the wrong way round."""
    host, _, port = written.partition(":")
    raw = bytes.fromhex(host)
    found = ipaddress.ip_address(b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4)))
    return f"[{found}]:{int(port, 16)}" if found.version == 6 else f"{found}:{int(port, 16)}"
