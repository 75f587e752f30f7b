"""Commands as a user runs them, in this process, with what they said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.cli.main import main


class Shell:
    """Runs commands as a user would, and keeps what they said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.code = 0
        self.out = ""
        self.err = ""

    def __call__(self, *words: str) -> str:
        self._capsys.readouterr()
        self.code = main(words)
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err
        return self.out

    def ok(self, *words: str) -> str:
        """A command that must succeed."""
        out = self(*words)
        assert self.code == 0, self.err
        return out

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "-o", "json"))
