"""Helpers of this folder: a repository with moves, and the values that builders and checks take."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from penstock.config import ServiceConfig, load_service
from penstock.core.fence import Fence
from penstock.core.pipeline import Intent
from penstock.core.release import Artifact, Change
from penstock.ports import BuildRequest, SourceRevision, Task


@dataclass
class Repository:
    """A git repository whose next commit is one call away."""

    path: Path
    epoch: int = 1_700_000_000

    def git(self, *words: str) -> str:
        stamp = f"{self.epoch} +0200"
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "Bob",
            "GIT_COMMITTER_EMAIL": "bob@example.org",
            "GIT_AUTHOR_DATE": stamp,
            "GIT_COMMITTER_DATE": stamp,
        }
        done = subprocess.run(
            ["git", *words], cwd=self.path, env=env, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, str], message: str = "a change") -> str:
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        self.epoch += 60
        return self.git("rev-parse", "HEAD")


def change(service: str = "shop") -> Change:
    return Change(
        "code", service, "production", "/repositories/shop", "c0ffee" * 6 + "c0ff", "Ada", "a change"
    )


def write(tree: Path, files: dict[str, str]) -> Path:
    """A checked-out tree with these files."""
    tree.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tree


def request_for(tree: Path, work: Path, config: ServiceConfig | None = None) -> BuildRequest:
    work.mkdir(parents=True, exist_ok=True)
    return BuildRequest(
        change(), config or load_service(tree, "shop"), tree, work, work / "log", epoch=1_700_000_000
    )


def task_for(work: Path, config: ServiceConfig | None = None) -> Task:
    """A delivery's task; its tree is *work*/tree."""
    return Task(
        delivery="shop-1",
        intent=Intent("suite", "suite"),
        change=change(),
        config=config or load_service(work / "tree", "shop"),
        fence=Fence("shop/production", 1, "key"),
        work=work,
        log=work / "log",
        source=SourceRevision("/repositories/shop", "c0ffee", "", "Ada", "a change", "", 1_700_000_000),
        artifact=Artifact("shop", "sha256:" + "a" * 64),
    )
