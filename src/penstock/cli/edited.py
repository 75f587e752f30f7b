"""What somebody has edited and not committed, in a repository on this machine. Called by ``ship``."""

from __future__ import annotations

import subprocess
from pathlib import Path

#: So many names are told; the others are counted.
MOST = 5


def uncommitted(place: str) -> list[str]:
    """Names of the files that differ from the commit that is checked out; files that git never heard of are
    not told. Empty for whatever is no repository here: the server says what is wrong with it."""
    if not Path(place).is_dir():
        return []
    command = (
        "git",
        "-c",
        "core.fsmonitor=false",
        "-C",
        place,
        "diff",
        "--name-only",
        "--no-ext-diff",
        "HEAD",
        "--",
        ".",
    )
    try:
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:  # without git there is no repository either
        return []
    names = ran.stdout.splitlines() if ran.returncode == 0 else []
    more = [f"{len(names) - MOST} more"] if len(names) > MOST else []
    return names[:MOST] + more
