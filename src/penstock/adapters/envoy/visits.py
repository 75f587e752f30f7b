"""What users asked for lately, from the end of Envoy's access log.

Called by the driver, in a thread. The log holds no queries, addresses or headers (but, while places are kept,
the ticket of whoever asks), and none of that is in what is read of it here. Requests to dark releases are
nobody's, and copies are not in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from penstock.adapters.envoy.config import PREVIEW
from penstock.core.traffic import Visit

#: What is looked at: some ten thousand requests.
TAIL_BYTES = 2 * 1024 * 1024
MOST = 1000
#: Whatever else users send, an answer of so many must stay small.
PLAIN = re.compile(r"/[!-~]{0,999}")


def read_visits(log: Path, service: str, since: float) -> tuple[Visit, ...]:
    """The last `MOST` visits of a service (as the log names it) after *since*, oldest first."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).splitlines()
    except FileNotFoundError:
        return ()
    found = [visit for visit in _visits(lines, service) if visit.at > since]
    return tuple(sorted(found, key=lambda visit: visit.at)[-MOST:])


def _visits(lines: list[bytes], service: str) -> Iterator[Visit]:
    named = json.dumps(service).encode()
    for line in lines:
        if named not in line:
            continue
        try:
            entry = json.loads(line)
            at = datetime.fromisoformat(entry["time"]).timestamp()
        except (
            ValueError,
            KeyError,
            TypeError,
        ):  # the first line begins in its middle, the last may end there
            continue
        path, release = entry.get("path"), entry.get("release")
        user = isinstance(release, str) and not release.endswith(PREVIEW)
        ours = entry.get("service") == service and entry.get("method") == "GET" and user
        if ours and isinstance(path, str) and PLAIN.fullmatch(path):
            yield Visit(at, path)
