"""The sandboxes of this machine, for the suites that need a real one."""

from __future__ import annotations

import os

import pytest

from penstock.adapters.bubblewrap import INSTALL, Bubblewrap
from penstock.errors import Unavailable


@pytest.fixture(scope="session")
def bubblewrap() -> Bubblewrap:
    """Bubblewrap if it works here; else the test is skipped, but never in CI."""
    try:
        return Bubblewrap.detect()
    except Unavailable:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"next: {INSTALL}")
