"""A real sandbox for all tests of real commands."""

from __future__ import annotations

import os

import pytest

from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.unsandboxed import Unsandboxed
from penstock.errors import Unavailable
from penstock.ports import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """Bubblewrap where it works; plain processes elsewhere, which run the same steps."""
    try:
        return Bubblewrap.detect()
    except Unavailable:
        if os.environ.get("CI") == "true":
            raise
        return Unsandboxed.detect()
