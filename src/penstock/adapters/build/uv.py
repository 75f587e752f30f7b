"""Python dependencies: resolved once, installed once, both kept by the digest of what went in.

Called by `python` and `tools`. A lock is a function of (requirements, interpreter), an installed folder
one of (lock, interpreter): neither can be changed by the code of some commit, because no commit's code
runs while they are made, and each has scratch space of its own. Both live beside the artifacts.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from penstock.adapters.build.common import APP, BESIDE, must
from penstock.adapters.build.project import Requirements
from penstock.core.digest import digest_of, hex_of
from penstock.core.fence import Fence
from penstock.core.image import MAX_FILE_BYTES
from penstock.core.workload import Mount, Step
from penstock.errors import Invalid, Unavailable
from penstock.ports import Sandbox
from penstock.treefile import read_plain

UV = f"{BESIDE}/bin/uv"
WORK = f"{BESIDE}/work"
OUT = f"{BESIDE}/deps"
PROBE = (
    "import json, os, sys; print(json.dumps({'abi': 'cp%d%d' % sys.version_info[:2], "
    "'path': os.environ.get('PATH', os.defpath)}))"
)
INSTALL = (
    "--link-mode",
    "copy",
    "--no-compile-bytecode",
    "--no-deps",
    "--python",
    "python3",
    "--target",
    OUT,
)
#: Written by the installer, differing from one run or folder to the next, read by no program.
VOLATILE = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"}
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Interpreter:
    """``python3`` as the sandbox has it: its ABI (``cp311``) and the PATH it was found on."""

    abi: str
    path: str


@dataclass(frozen=True)
class Scratch:
    """One build's own folder and log; *epoch* is the only clock a step sees, *fence* that of the work."""

    work: Path
    log: Path
    epoch: int
    fence: Fence | None = None


class Uv:
    """*store* keeps locks and installed folders between deliveries."""

    def __init__(self, sandbox: Sandbox, store: Path) -> None:
        self._sandbox = sandbox
        self._store = store

    async def interpreter(self, scratch: Scratch) -> Interpreter:
        """The interpreter that will run the service here; `Invalid` if there is none."""
        step = Step(("python3", "-c", PROBE), "/", seconds=30.0, fence=scratch.fence)
        said = await must(self._sandbox, step, scratch.log, "looking for python3 in the sandbox")
        lines = [line for line in said.splitlines() if line.startswith('{"abi"')]
        if not lines:
            raise Invalid(f"python3 in the sandbox does not answer: {said[-300:]!r}")
        found = json.loads(lines[-1])
        return Interpreter(found["abi"], found["path"])

    async def lock(self, wanted: Requirements, tree: Path, python: Interpreter, scratch: Scratch) -> str:
        """Exact versions with hashes for *wanted*: an earlier resolution if there was one."""
        key = digest_of({"requirements": wanted, "python": python.abi})
        kept = self._store / "locks" / f"{hex_of(key)}.txt"
        if kept.exists():
            return kept.read_text()
        work = _fresh(scratch.work / "resolve")
        (work / "requirements.in").write_text("\n".join(wanted.lines) + "\n")
        (work / "constraints.in").write_text("\n".join(wanted.constraints) + "\n")
        options = ["--quiet", "--no-header", "--no-annotate", "--generate-hashes", "--python", "python3"]
        if wanted.names_an_index:
            options.append("--emit-index-url")
        argv = (UV, "pip", "compile", *options, "--constraint", f"{WORK}/constraints.in")
        argv = (*argv, "--output-file", f"{WORK}/lock.txt", f"{WORK}/requirements.in")
        step = self._step(argv, scratch, Mount(str(tree), APP), Mount(str(work), WORK, writable=True))
        await must(self._sandbox, step, scratch.log, "resolving the Python dependencies")
        text = (work / "lock.txt").read_text()
        kept.parent.mkdir(parents=True, exist_ok=True)
        (work / "lock.txt").replace(kept)
        return text

    async def install(self, lock: str, tree: Path, python: Interpreter, scratch: Scratch) -> Path:
        """The folder that holds what *lock* names: to be put on PYTHONPATH, read-only for everybody."""
        kept = self._store / "deps" / hex_of(digest_of({"lock": lock, "python": python.abi}))
        if kept.exists():
            return kept
        kept.parent.mkdir(parents=True, exist_ok=True)
        work = _fresh(scratch.work / "install")
        (work / "lock.txt").write_text(lock)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".new-") as folder:
            fresh = Path(folder) / "deps"
            fresh.mkdir()
            mounts = (Mount(str(work), WORK, writable=True), Mount(str(fresh), OUT, writable=True))
            argv = (UV, "pip", "install", "--quiet", *INSTALL, "-r", f"{WORK}/lock.txt")
            step = self._step(argv, scratch, Mount(str(tree), APP), *mounts)
            await must(self._sandbox, step, scratch.log, "installing the Python dependencies")
            settle(fresh)
            # Somebody else may have put the same there meanwhile: theirs is as good as ours.
            with contextlib.suppress(OSError):
                fresh.rename(kept)
        return kept

    async def install_project(self, source: Path, constraints: str, scratch: Scratch) -> Path:
        """Build and install the package in the writable folder *source*. Its code runs: nothing is kept."""
        work, out = _fresh(scratch.work / "package"), _fresh(scratch.work / "own")
        (work / "build.txt").write_text(constraints)
        mounts = (
            Mount(str(source), APP, writable=True),
            Mount(str(work), WORK, writable=True),
            Mount(str(out), OUT, writable=True),
        )
        argv = (UV, "pip", "install", "--quiet", *INSTALL, "--build-constraints", f"{WORK}/build.txt", APP)
        await must(self._sandbox, self._step(argv, scratch, *mounts), scratch.log, "building the package")
        settle(out)
        return out

    def _step(self, argv: tuple[str, ...], scratch: Scratch, *mounts: Mount) -> Step:
        env = {
            "HOME": WORK,
            "UV_CACHE_DIR": f"{WORK}/cache",
            "UV_NO_CONFIG": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "SOURCE_DATE_EPOCH": str(scratch.epoch),
        }
        every = (*mounts, Mount(find_uv(), UV))
        return Step(argv, APP, every, env, network=True, seconds=600.0, fence=scratch.fence)


def versions(lock: str) -> dict[str, str]:
    """What a lock names, as package URLs without their scheme: ``pypi/idna`` → ``3.10``."""
    return {f"pypi/{name.lower()}": version for name, version in PINNED.findall(lock)}


def find_uv() -> str:
    """The uv program: from its wheel, or the system's."""
    try:
        import uv  # an optional extra, wanted only by projects that have dependencies

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise Unavailable(
            "Python dependencies need uv, which is not installed", next_move='pip install "penstock[build]"'
        )
    return found


def settle(folder: Path) -> None:
    """Make an installed folder the same wherever and whenever it was installed."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_symlink() or not path.exists():
            continue
        if path.name == "__pycache__":
            shutil.rmtree(path)
        elif path.parent.name.endswith(".dist-info") and path.name in VOLATILE:
            path.unlink()
        elif path.parent == folder / "bin" and path.is_file():
            path.write_bytes(_portable(read_plain(path, MAX_FILE_BYTES, f"bin/{path.name}")))
    (folder / ".lock").unlink(missing_ok=True)


def _portable(script: bytes) -> bytes:
    """A console script that finds its interpreter on PATH instead of where it was installed."""
    first, newline, rest = script.partition(b"\n")
    if not first.startswith(b"#!"):
        return script
    if rest.startswith(b"'''exec'"):  # the form for long paths: sh, exec, and the end of a text
        return b"#!/usr/bin/env python3\n" + rest.split(b"\n", 2)[2]
    return b"#!/usr/bin/env python3" + newline + rest if b"python" in first else script


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
