"""The example versions, laid over one another as their ``order`` files say.

Called by the demo and by tests. The examples live beside the package in a checkout, not in it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from penstock.errors import Invalid

#: What running a version by hand leaves behind.
LEFT_BEHIND = shutil.ignore_patterns("__pycache__", ".pytest_cache", "reports", ".coverage")
FOLDER = Path(__file__).resolve().parents[3] / "examples" / "01-two-services"


def materialise(name: str, version: str, destination: Path, examples: Path = FOLDER) -> None:
    """Write a version of ``catalog``, ``storefront`` or ``environments`` into a folder.

    Raises `Invalid` if there is no such example or version, or no checkout.
    """
    if not examples.is_dir():
        raise Invalid(
            "the examples are not here",
            where=str(examples),
            next_move="run the demo from a checkout: make demo",
        )
    known = sorted(order.parent.name for order in examples.glob("*/order"))
    if name not in known:
        raise Invalid(f"no example {name!r}; there are: {', '.join(known)}", where=str(examples))
    for layer in _layers(examples / name, version):
        # With times of their own: git takes a file of the same size and time for one that did not change.
        shutil.copytree(layer, destination, dirs_exist_ok=True, ignore=LEFT_BEHIND, copy_function=shutil.copy)


def _layers(folder: Path, version: str) -> list[Path]:
    """The folders to copy, the lowest first."""
    lines = (line.split() for line in (folder / "order").read_text().splitlines())
    below = {words[0]: words[1:] for words in lines if words and words[0] != "#"}
    if version not in below:
        raise Invalid(f"no version {version!r}; there are: {', '.join(below)}", where=str(folder))
    return [*(layer for base in below[version] for layer in _layers(folder, base)), folder / version]
