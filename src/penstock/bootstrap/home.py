"""The data folder: where everything that Penstock writes is kept. One table of names, nothing else.

Called by bootstrap and the CLI. Sockets live under it, so its path must be short.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from penstock.cluster import Cluster
from penstock.core.codec import decode, encode
from penstock.errors import Conflict, Invalid

#: A unix socket's whole path may have 104 bytes (macOS) to 108 (Linux); the longest name below needs 40.
LONGEST = 60


@dataclass(frozen=True)
class WitnessSettings:
    """A witness of the ledger: name, submission prefix, and verifier key (``name+hash+base64``)."""

    name: str
    url: str
    key: str


@dataclass(frozen=True)
class PrometheusSettings:
    """Where a Prometheus is, and the file that holds its bearer token ("": none)."""

    url: str
    token_file: str = ""


@dataclass(frozen=True)
class AdmissionSettings:
    """Where a cluster's API server may ask what it may let in: *port*, of every address, with the TLS
    *certificate* and *key* in these files. *also* names images that are let in unseen."""

    port: int
    certificate: str
    key: str
    also: tuple[str, ...] = ()


#: The sandbox of those that have builds and checks run in their cluster.
IN_CLUSTER = "kubernetes"


@dataclass(frozen=True)
class Settings:
    """Chosen at `penstock up`, kept for the next start. *sandbox* is an entry-point name.

    *workers* counts the control plane's own; the others are processes. *lease_seconds* is how long nobody
    takes over from a worker that is not heard of. Releases run in the *cluster*, or on this machine if there
    is none.
    """

    sandbox: str = "bubblewrap"
    port: int = 7070
    ingress_port: int = 8600
    workers: int = 1
    lease_seconds: float = 10.0
    witnesses: tuple[WitnessSettings, ...] = ()
    prometheus: PrometheusSettings | None = None
    cluster: Cluster | None = None
    admission: AdmissionSettings | None = None

    @property
    def sandbox_here(self) -> str:
        """What is run on this machine is kept apart by this one."""
        return "bubblewrap" if self.sandbox == IN_CLUSTER else self.sandbox


@dataclass(frozen=True)
class Home:
    path: Path

    @classmethod
    def find(cls) -> Home:
        """``PENSTOCK_HOME``, or ``~/.local/share/penstock``."""
        given = os.environ.get("PENSTOCK_HOME")
        return cls(Path(given).expanduser().absolute() if given else Path.home() / ".local/share/penstock")

    def create(self) -> None:
        """Make the folders, readable by their owner alone. `Invalid` if the path cannot hold sockets,
        `Conflict` if half a backup was restored there."""
        if len(os.fsencode(self.path)) > LONGEST:
            raise Invalid(
                f"the data folder's path is longer than {LONGEST} bytes, too long for unix sockets",
                where=str(self.path),
                next_move="set PENSTOCK_HOME to a shorter one",
            )
        if self.half_restored.exists():
            raise Conflict(
                "a restore did not come to its end here",
                where=str(self.path),
                next_move="penstock restore FILE, into an empty data folder",
            )
        for folder in (self.path, self.keys, self.artifacts, self.node, self.run, self.logs, self.work):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def store(self) -> Path:
        return self.path / "penstock.db"

    @property
    def trust(self) -> Path:
        return self.path / "trust.json"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def node(self) -> Path:
        return self.path / "node"

    @property
    def placed(self) -> bool:
        """Whether this machine has, or had, releases to run."""
        return any((self.node / "w/releases").glob("*.json"))

    @property
    def node_socket(self) -> Path:
        return self.node / "agent.sock"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    def worker_lock(self, name: str) -> Path:
        return self.run / f"worker-{name}.lock"

    @property
    def logs(self) -> Path:
        return self.path / "log"

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def half_restored(self) -> Path:
        """Where `restore` works; while it is there, nothing may start."""
        return self.path / "restore.partial"

    @property
    def settings(self) -> Settings:
        file = self.path / "settings.json"
        return decode(Settings, json.loads(file.read_text()), file.name) if file.exists() else Settings()

    def keep(self, settings: Settings) -> None:
        """For the next start. What is kept already is not written again: somebody else may read it now."""
        if settings == self.settings and (self.path / "settings.json").exists():
            return
        temporary = self.path / "settings.json.new"
        temporary.write_text(json.dumps(encode(settings)))
        temporary.replace(self.path / "settings.json")
