"""The `Source` port over the git program: a repository, by path or URL, mirrored into a cache.

Called through the port by the engine (and by the server, to look at what is shipped). What it reads was
written by strangers, so git is told to run nothing of theirs: no hooks, no filters, no submodules, no
transport that is a command, no prompt. It must not touch the repository itself, and it never writes
through a symbolic link.

Security of a checkout, in order:
 1. location and revision cannot be options, and a URL cannot carry a password (it would be recorded);
 2. the commit is fetched into a bare mirror of our own, whose attributes switch every conversion off;
 3. no file is written below a link;
 4. every link is then followed once: one that leaves the tree refuses the whole commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import signal
import tarfile
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from penstock.adapters._archive import unpack
from penstock.adapters._signed import signing_key
from penstock.errors import Invalid, PenstockError, Unavailable
from penstock.ports import SourceRevision

SECONDS = 300.0
MAX_CLAIMS = 20
MAX_COMMIT = 16 * 1024**2

URL = re.compile(r"(?:https|ssh|git|file)://.+|[\w.-]+@[\w.-]+:.+")
OTHER_URL = re.compile(r"[a-z][a-z0-9+.-]*:(?://|:)", re.IGNORECASE)
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
HEAD = "refs/penstock/head"
BRANCHES = "+refs/heads/*:refs/heads/*"
TAGS = "+refs/tags/*:refs/tags/*"

#: Read after the user's own configuration, so these win. A file, because only a file reaches the
#: `git upload-pack` that serves a local path.
CONFIG = """\
[include]
    path = {own}
[safe]
    directory = *
[core]
    fsmonitor = false
    hooksPath = /dev/null
    symlinks = true
[protocol]
    allow = never
[protocol "https"]
    allow = always
[protocol "ssh"]
    allow = always
[protocol "git"]
    allow = always
[protocol "file"]
    allow = always
[protocol "ext"]
    allow = never
[submodule]
    recurse = false
[gc]
    auto = 0
[maintenance]
    auto = false
[tar]
    umask = 0022
"""
ATTRIBUTES = "* -export-ignore -export-subst -filter -ident -text !eol !working-tree-encoding\n"

FIELDS = ("%H", "%T", "%an <%ae>", "%s", "%aI", "%ct", "%(trailers:key=Reviewed-by,valueonly)")
WORK_ITEMS = "%(trailers:key=Refs,key=Closes,key=Issue,valueonly)"


@dataclass(frozen=True)
class _Ran:
    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode(errors="replace")

    @property
    def complaint(self) -> str:
        """The line of git's own words that says what is wrong."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        fatal = [line for line in lines if line.startswith(("fatal:", "error:", "ssh:"))]
        return (fatal or lines or [f"git ended with {self.code}"])[0].removeprefix("fatal: ")[:500]


class Git:
    """Reads commits. *cache* holds the mirrors; deleting it costs a download and nothing else."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    async def resolve(self, location: str, revision: str) -> SourceRevision:
        """See `Source.resolve`; a local path may be relative to this process's folder."""
        place = _place(location)
        if revision.startswith("-") or any(not c.isprintable() or c.isspace() for c in revision):
            raise Invalid(
                f"not a revision: {revision[:80]!r}",
                where=place,
                next_move="give a branch, a tag or a commit id",
            )
        mirror = self._mirror(place)
        async with _locked(mirror):
            heads = await self._fetch(place, mirror)
            commit = await self._commit(place, mirror, revision, heads)
            return await self._describe(place, mirror, commit)

    async def checkout(self, found: SourceRevision, destination: Path) -> None:
        """See `Source.checkout`; a tree with a link that leaves it is `Invalid`."""
        mirror = await self._held(found)
        with tempfile.TemporaryDirectory(dir=self._cache) as folder:
            archive = Path(folder) / "tree.tar"
            ran = await self._git(mirror, "archive", "--format=tar", f"--output={archive}", found.revision)
            if ran.code:
                raise Invalid(ran.complaint, where=found.location)
            await asyncio.to_thread(_unpack, archive, destination, found)

    async def touched(self, found: SourceRevision, path: str) -> SourceRevision:
        """See `Source.touched`; also `Invalid` where the history is cut off (a shallow clone)."""
        if not path.isprintable() or not set(path.split("/")).isdisjoint(("", ".", "..")):
            raise Invalid(f"not a path in a repository: {path[:80]!r}", where=found.location)
        mirror = await self._held(found)
        # rev-list, because the user's settings for `git log` (follow, for one) would count.
        last = ("rev-list", "--max-count=1", found.revision, "--", path)
        ran = await self._git(mirror, *last)
        commit = ran.out.strip()
        where = f"{found.location} at {found.revision[:12]}"
        if ran.code:
            raise Invalid(ran.complaint, where=where)
        if not commit:
            raise Invalid(f"no commit changed {path!r}", where=where, next_move="check the path")
        cut = mirror / "shallow"
        if cut.exists() and commit in cut.read_text().split():
            raise Invalid(
                f"the history ends before the commit that changed {path!r}",
                where=where,
                next_move="git fetch --unshallow in the repository, or give the URL of the whole one",
            )
        return await self._describe(found.location, mirror, commit)

    async def _held(self, found: SourceRevision) -> Path:
        """The mirror, with the commit in it."""
        if not COMMIT.fullmatch(found.revision):
            raise Invalid(f"not a commit id: {found.revision[:80]!r}", where=found.location)
        mirror = self._mirror(found.location)
        kind = await self._git(mirror, "cat-file", "-t", found.revision)
        if kind.out.strip() != "commit":
            await self.resolve(found.location, found.revision)  # the cache was emptied in between
        return mirror

    def _mirror(self, place: str) -> Path:
        return self._cache / (hashlib.sha256(place.encode()).hexdigest()[:32] + ".git")

    async def _fetch(self, place: str, mirror: Path) -> tuple[str, ...]:
        """Bring the mirror up to date and return the branch names; `Invalid` if there are no commits."""
        listed = await self._git(None, "ls-remote", "--", place)
        if listed.code:
            raise _unreachable(place, listed)
        refs = [line.split("\t", 1)[1] for line in listed.out.splitlines() if "\t" in line]
        heads = tuple(ref.removeprefix("refs/heads/") for ref in refs if ref.startswith("refs/heads/"))
        if not refs:
            raise Invalid(
                "the repository has no commits yet",
                where=place,
                next_move="git add . && git commit, then ship again",
            )
        if not (mirror / "HEAD").exists():
            ids = ("--object-format=sha256",) if len(listed.out.split("\t", 1)[0]) == 64 else ()
            await self._git(None, "init", "--quiet", "--bare", *ids, "--", str(mirror))
            await self._git(mirror, "symbolic-ref", "HEAD", HEAD)
        (mirror / "info").mkdir(exist_ok=True)
        (mirror / "info/attributes").write_text(ATTRIBUTES)
        wanted = [BRANCHES, TAGS, *([f"+HEAD:{HEAD}"] if "HEAD" in refs else [])]
        # A shallow clone is as good a source as any: only the commit's own tree is wanted.
        options = ("--quiet", "--prune", "--no-tags", "--update-shallow", "--no-recurse-submodules")
        fetched = await self._git(mirror, "fetch", *options, "--no-write-fetch-head", "--", place, *wanted)
        if fetched.code:
            raise _unreachable(place, fetched)
        return heads

    async def _commit(self, place: str, mirror: Path, revision: str, heads: tuple[str, ...]) -> str:
        name = f"{revision or HEAD}^{{commit}}"
        arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", name)
        ran = await self._git(mirror, *arguments)
        if ran.code and COMMIT.fullmatch(revision):
            await self._git(mirror, "fetch", "--quiet", "--no-tags", "--", place, revision)
            ran = await self._git(mirror, *arguments)
        if ran.code == 0:
            return ran.out.strip()
        known = ", ".join(heads[:8]) + (" …" if len(heads) > 8 else "")
        what = f"no commit is called {revision!r}" if revision else "its default branch has no commits"
        raise Invalid(
            what, where=place, next_move=f"name a branch, tag or commit; branches: {known or 'none'}"
        )

    async def _describe(self, place: str, mirror: Path, commit: str) -> SourceRevision:
        form = "%x00".join((*FIELDS, WORK_ITEMS))
        options = ("--no-walk", "--no-mailmap", "--no-show-signature", "--no-color", "--encoding=UTF-8")
        ran = await self._git(mirror, "log", *options, f"--format={form}", commit, "--")
        fields = ran.out.rstrip("\n").split("\0")
        if ran.code or len(fields) != len(FIELDS) + 1:
            raise Invalid(f"commit {commit} cannot be read: {ran.complaint}", where=place)
        revision, tree, author, title, authored_at, committed, reviewers, items = fields
        return SourceRevision(
            location=place,
            revision=revision,
            tree_digest=tree,
            author=_author(author),
            title=title[:200],
            authored_at=authored_at,
            committed_epoch=max(0, int(committed)),
            reviewers=_claims(reviewers.splitlines()),
            work_items=_claims(re.split(r"[,\s]+", items)),
            signing_key=await self._signing_key(place, mirror, revision),
        )

    async def _signing_key(self, place: str, mirror: Path, commit: str) -> str:
        where = f"{place} at {commit[:12]}"
        size = await self._git(mirror, "cat-file", "-s", commit)
        if size.code or int(size.out) > MAX_COMMIT:
            raise Invalid("the commit object is too large to read", where=where)
        ran = await self._git(mirror, "cat-file", "commit", commit)
        return signing_key(ran.raw, where)

    async def _git(self, mirror: Path | None, *arguments: str) -> _Ran:
        self._cache.mkdir(parents=True, exist_ok=True)
        where = ("--git-dir", str(mirror), "--literal-pathspecs") if mirror else ()
        try:
            process = await asyncio.create_subprocess_exec(
                "git",
                *where,
                *arguments,
                cwd=self._cache,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise Unavailable(
                "the git program is not installed",
                next_move="install it (Debian: apt install git; macOS: xcode-select --install)",
            ) from error
        try:
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate()
        except TimeoutError as error:
            raise Unavailable(f"git {arguments[0]} took longer than {SECONDS:.0f} s") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return _Ran(process.returncode or 0, out, err.decode(errors="replace"))

    def _environment(self) -> dict[str, str]:
        own = os.environ.get("GIT_CONFIG_GLOBAL") or str(Path.home() / ".gitconfig")
        config = self._cache / "config"
        text = CONFIG.format(own=own)
        if not config.exists() or config.read_text() != text:
            fresh = config.with_suffix(f".{os.getpid()}")
            fresh.write_text(text)
            fresh.replace(config)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GIT_") or name.startswith(("GIT_SSL_", "GIT_SSH"))
        }
        return {
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
            **kept,
            "GIT_CONFIG_GLOBAL": str(config),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "LC_ALL": "C",
        }


def _author(text: str) -> str:
    """At most 200 characters, the name cut before the address: by it, people are told from authors."""
    name, bracket, address = text.rpartition(" <")
    return f"{name[: max(0, 198 - len(address))]}{bracket}{address}"[:200]


def _place(location: str) -> str:
    """The location as git may be given it: a URL as it is, or an absolute path."""
    if not location or location.startswith("-") or not location.isprintable():
        raise Invalid(f"not a repository location: {location[:80]!r}", next_move="give a path or a URL")
    if URL.fullmatch(location):
        if re.match(r"https://[^/]*:[^/]*@", location):
            raise Invalid(
                "the URL carries a password, which would be recorded for ever",
                where=re.sub(r"//[^/]*@", "//…@", location),
                next_move="leave it out, and give git a credential helper",
            )
        return location
    if OTHER_URL.match(location) and not Path(location).exists():
        raise Invalid(
            f"cannot fetch from {location.split(':', 1)[0]}:",
            where=location[:200],
            next_move="use https://, ssh://, git://, file:// or a local path",
        )
    path = Path(location).expanduser().absolute()
    if not path.exists():
        raise Invalid(
            "no such path", where=str(path), next_move="give the path or the URL of a git repository"
        )
    return str(path.resolve())


def _unreachable(place: str, ran: _Ran) -> PenstockError:
    absent = ("not a git repository", "does not appear to be a git repository", "not found", "does not exist")
    if any(words in ran.err for words in absent):
        move = "git init && git add . && git commit" if Path(place).is_dir() else "check the path or URL"
        return Invalid("not a git repository", where=place, next_move=move)
    return Unavailable(f"the repository cannot be read: {ran.complaint}", where=place)


def _claims(found: list[str]) -> tuple[str, ...]:
    texts = (text.strip()[:200] for text in found)
    return tuple(dict.fromkeys(text for text in texts if text))[:MAX_CLAIMS]


@contextlib.asynccontextmanager
async def _locked(mirror: Path) -> AsyncIterator[None]:
    """One fetch at a time per mirror, across processes."""
    mirror.parent.mkdir(parents=True, exist_ok=True)
    with mirror.with_suffix(".lock").open("ab") as lock:
        for _ in range(int(SECONDS / 0.05)):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.05)
        else:
            raise Unavailable("another fetch of this repository does not end", where=str(mirror))
        yield


def _unpack(archive: Path, destination: Path, found: SourceRevision) -> None:
    where = f"{found.location} at {found.revision[:12]}"
    with tarfile.open(archive) as tar:
        links = [member for member in tar.getmembers() if member.issym()]
        unpack(tar, destination)
    root = destination.resolve()
    # One link at a time stays inside; through one another they may not.
    for link in links:
        if not Path(os.path.realpath(destination / link.name)).is_relative_to(root):
            raise Invalid(
                f"the link {link.name} → {link.linkname} leaves the repository",
                where=where,
                next_move="replace it with the file itself, or a relative link inside the repository",
            )
