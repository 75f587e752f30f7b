"""What both builders do alike: read a tree, run a build step, find the declared start command.

Called by the files beside it. Must not follow a link: the tree is other people's.
"""

from __future__ import annotations

import functools
import itertools
import os
import platform
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.config import FILE, ServiceConfig
from penstock.core.digest import canonical
from penstock.core.image import (
    ABI_LABEL,
    BASE_LABEL,
    CONFIG_LABEL,
    CONTRACT_LABEL,
    REVISION_LABEL,
    SERVICE_LABEL,
    File,
    Held,
    Recipe,
)
from penstock.core.workload import Step
from penstock.errors import Invalid
from penstock.ports import BuildRequest, Sandbox
from penstock.treefile import read_inside, read_plain

APP = "/app"
BESIDE = "/penstock"  # where a step finds what is not the project's: tools, caches, results

SHELL = re.compile(r"[$&|;<>()`*?~\n]|^\s*\w+=")
COMPOUND = re.compile(r"[;&|()`\n]|^\s*exec\b")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

EXAMPLE = f"""\
write {FILE}:
    service: shop
    run: python3 app.py        # listens on 127.0.0.1:$PORT
    health: /health            # answered when it is ready
    replicas: 1
    checks:
      unit:
        run: python3 -m pytest -q --junitxml=report.xml
        junit: report.xml
    environment:
      GREETING: {{type: string, default: hello}}"""


#: Where installed programs are, relative to /app: a start command that needs a shell finds them there.
PROGRAMS = "$PWD/.penstock/deps/bin:$PWD/node_modules/.bin"


@dataclass(frozen=True)
class Start:
    """How the service is started, and where that was *found*, in words."""

    command: tuple[str, ...]
    found: str


def declared(tree: Path, config: ServiceConfig) -> Start | None:
    """The start command that the project itself names: ``run:``, or a Procfile's ``web:``."""
    if config.run:
        return Start(words_of(config.run), f"run: in {FILE}")
    procfile = tree / "Procfile"
    if procfile.is_file():
        for line in read_text(tree, procfile.name).splitlines():
            kind, colon, command = line.partition(":")
            if colon and kind.strip() == "web" and command.strip():
                return Start(words_of(command), "Procfile")
    return None


def words_of(text: str) -> tuple[str, ...]:
    """The command as argv; one that needs a shell gets it."""
    # Commands say `python`, which Debian does not have.
    text = re.sub(r"^python(?=\s)", "python3", text.strip())
    if SHELL.search(text):
        return in_shell(text)
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise Invalid(f"cannot be split into words: {error}", where=text[:200]) from error
    if not words:
        raise Invalid("an empty start command", where=text[:200])
    return words


def in_shell(text: str) -> tuple[str, ...]:
    """The command as a shell's, which finds what was installed with the service."""
    # A shell that stays would keep a request to stop from the service: let it be replaced where it can.
    text = text if COMPOUND.search(text) else f"exec env {text}"
    return ("sh", "-c", f'PATH="{PROGRAMS}:$PATH"; {text}')


def read_text(tree: Path, name: str, limit: int = 1024 * 1024) -> str:
    """A file of the project as text; `Invalid` as of `read_inside`, or if it is not UTF-8."""
    try:
        return read_inside(tree, name, limit).decode()
    except UnicodeDecodeError as error:
        raise Invalid("not UTF-8 text", where=name) from error


def files_of(folder: Path, prefix: str = "") -> Iterator[File]:
    """The folder as entries of an image, links as links. Git's own metadata is left out.

    What a file holds is read when it is packed: by then it is known that all of it fits an image.
    """
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git"]
        links = [name for name in folders if (Path(where) / name).is_symlink()]
        for name in (*names, *links):
            path = Path(where) / name
            inside = prefix + path.relative_to(folder).as_posix()
            if path.is_symlink():
                yield File(inside, link=path.readlink().as_posix())
            elif path.is_file():
                seen = path.stat()
                held = Held(seen.st_size, functools.partial(read_plain, path, seen.st_size, inside))
                yield File(inside, held, executable=bool(seen.st_mode & 0o100))


async def must(sandbox: Sandbox, step: Step, log: Path, doing: str) -> str:
    """Run a build step; one that fails is `Invalid` with the last lines it wrote. Returns those lines."""
    result = await sandbox.run(step, log)
    if result.timed_out:
        raise Invalid(f"{doing}: not done after {step.seconds:.0f} s\n{last_lines(result.tail)}")
    if result.exit_code:
        raise Invalid(f"{doing}: failed with {result.exit_code}\n{last_lines(result.tail)}")
    return result.tail


def last_lines(text: str, count: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


#: What is put into an image for each callee, in bytes.
MAX_CONTRACT = 256 * 1024


def contracts(request: BuildRequest) -> dict[str, str]:
    """What the service needs of those that it calls, as its repository says: by callee, OpenAPI documents."""
    found = {}
    for callee, kind in itertools.product(request.config.calls, ("yaml", "yml", "json")):
        name = f"contracts/{callee}.openapi.{kind}"
        path = request.tree / name
        # A link out would put a secret into the image.
        inside = path.resolve().is_relative_to(request.tree.resolve())
        if path.is_file() and inside and callee not in found:
            found[callee] = read_text(request.tree, name, MAX_CONTRACT)
    return found


def recipe(
    request: BuildRequest, command: tuple[str, ...], abi: str, base: str, env: dict[str, str]
) -> Recipe:
    """What the image says of itself. Its configuration is in it, so the digest covers that too."""
    machine = platform.machine()
    return Recipe(
        command=command,
        env=env,
        labels={
            SERVICE_LABEL: request.config.service,
            ABI_LABEL: abi,
            BASE_LABEL: base,
            REVISION_LABEL: request.change.revision,
            CONFIG_LABEL: canonical(request.config).decode(),
            **{CONTRACT_LABEL + callee: text for callee, text in contracts(request).items()},
        },
        platform=f"linux/{ARCHITECTURES.get(machine, machine)}",
        epoch=request.epoch,
    )
