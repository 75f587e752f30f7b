"""Policies and SLOs from a git repository: another way to the same door.

Called by the server. A file counts only if CODEOWNERS gives it to the role that owns the policy (for an SLO:
the operations lead), and if the last commit that changed it is signed by somebody who holds that role now.
The server attests it, and the statement names the commit.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.core.authority import ADMINISTRATOR, Authority, InForce
from penstock.core.codeowners import owners
from penstock.core.evidence import Entry
from penstock.core.objectives import OWNER, SloInForce
from penstock.core.people import By, PolicyVersion, SloVersion
from penstock.engine.door import Door, Login
from penstock.errors import Conflict, Invalid, Refused
from penstock.ledger.log import Ledger
from penstock.policyfile import parse_policy
from penstock.ports import Source, SourceRevision, Store
from penstock.slofile import parse_slo

FOLDER, OBJECTIVES = "policies", "slos"
NOBODY = By("")
#: Where CODEOWNERS may lie, in the order in which it is looked for.
CODEOWNERS = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")
#: Far more than the policies of an organisation need; hostile patterns stay short work.
MAX_CODEOWNERS = 64 * 1024
LOGIN = re.compile(r"signed commit [0-9a-f]{40,64} of (\d+)")


#: What a file publishes; whose word it is, is known later.
Version = PolicyVersion | SloVersion


@dataclass(frozen=True)
class Synced:
    """One file: what became of it, by whose commit, and the entry that published it. *policy* is the name of
    the policy or SLO."""

    file: str
    policy: str
    what: str
    commit: str = ""
    identity: str = ""
    index: int | None = None


class PolicyRepository:
    def __init__(self, store: Store, ledger: Ledger, source: Source, door: Door) -> None:
        self._store = store
        self._ledger = ledger
        self._source = source
        self._door = door

    async def sync(self, location: str, revision: str, caller: str) -> tuple[Synced, ...]:
        """Publish every policy and SLO of the repository that differs from what is in force.

        All files are checked before anything is published. What is in force and has no file here stays in
        force: retiring it is a decision of its own. *caller* has to be an administrator, or to hold
        the roles that own what changes: people sign drafts too, and which repository counts is a decision.
        """
        async with self._store.transaction(write=False) as tx:
            if not (await self._ledger.authority(tx)).roles.get(caller):
                raise _not_for(caller, ADMINISTRATOR)  # before anything is fetched
        found = await self._source.resolve(location, revision)
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            tree = Path(folder)
            await self._source.checkout(found, tree)
            versions = await asyncio.to_thread(_versions, tree, location)
            ownership = _ownership(tree, location)
        async with self._store.transaction(write=False) as tx:
            authority = await self._ledger.authority(tx)
            held = {path: _held(authority, version) for path, version in versions.items()}
            present = {path: await self._ledger.entry(tx, one.index) for path, one in held.items() if one}
        plans = [
            _unchanged(path, version)
            if path in present and _text(present[path]) == version.source
            else await self._plan(found, path, version, ownership, authority, present.get(path))
            for path, version in versions.items()
        ]
        for plan, version in zip(plans, versions.values(), strict=True):
            owner, scope = _role(version)
            allowed = authority.covers(caller, ADMINISTRATOR, scope) or authority.covers(caller, owner, scope)
            if plan.identity and not allowed:
                raise _not_for(caller, owner)
        return tuple(
            [
                await self._publish(plan, version)
                for plan, version in zip(plans, versions.values(), strict=True)
            ]
        )

    async def _plan(
        self,
        found: SourceRevision,
        path: str,
        version: Version,
        ownership: str,
        authority: Authority,
        present: Entry | None,
    ) -> Synced:
        await asyncio.to_thread(_owned, path, _role(version)[0], ownership)
        commit = await self._source.touched(found, path)
        identity = _signer(commit, authority, path)
        if present is not None and commit.committed_epoch <= _since(present):
            raise Conflict(
                f"commit {commit.revision[:12]} is not newer than what is in force (entry {present.index})",
                where=path,
                next_move="sync the newest revision, or commit the change again",
            )
        login = f"signed commit {commit.revision} of {commit.committed_epoch}"
        return replace(_unchanged(path, version), what=login, commit=commit.revision, identity=identity)

    async def _publish(self, plan: Synced, version: Version) -> Synced:
        if not plan.identity:
            return plan
        said = replace(version, by=By(plan.identity))
        entry = await self._door.attest(said, Login(plan.identity, plan.what))
        return replace(plan, what="published", index=entry.index)


def _unchanged(path: str, version: Version) -> Synced:
    return Synced(path.removeprefix(f"{FOLDER}/"), version.name, "unchanged")


def _held(authority: Authority, version: Version) -> InForce | SloInForce | None:
    """What is in force under the name of what a file would publish."""
    if isinstance(version, SloVersion):
        return authority.slos.get((version.service, version.name))
    return authority.policies.get(version.name)


def _role(version: Version) -> tuple[str, str]:
    """The role that says it, and for which scope."""
    if isinstance(version, SloVersion):
        return OWNER, f"service/{version.service}"
    return version.owner, version.scope


def _not_for(caller: str, role: str) -> Refused:
    what = f"{caller} may not publish what a repository holds: it takes the role {role}"
    return Refused(what, next_move=f"ask an administrator, or a holder of {role}: penstock identity list")


def _versions(tree: Path, location: str) -> dict[str, Version]:
    """What the files would publish, by path."""
    files = sorted([*tree.glob(f"{FOLDER}/*.yaml"), *tree.glob(f"{OBJECTIVES}/*.yaml")])
    for path in (tree / FOLDER, tree / OBJECTIVES, *files):
        # Git does not look through links: the last commit that changed the path says nothing about the text.
        if path.is_symlink():
            what = "a link, whose signature would not be that of the text behind it"
            raise Invalid(
                what, where=f"{location}: {path.relative_to(tree)}", next_move="commit the file itself"
            )
    found = {
        str(file.relative_to(tree)): _version(file, str(file.relative_to(tree)))
        for file in files
        if not file.name.endswith(".test.yaml") and file.is_file()
    }
    if not found:
        raise Invalid(f"no {FOLDER}/*.yaml or {OBJECTIVES}/*.yaml here", where=location)
    return found


def _version(file: Path, path: str) -> Version:
    text = file.read_bytes()
    if path.startswith(f"{OBJECTIVES}/"):
        slo = parse_slo(text, path)
        return SloVersion(NOBODY, slo.service, slo.name, slo.source)
    policy = parse_policy(text, path)
    return PolicyVersion(NOBODY, policy.policy, policy.owner, policy.scope, policy.source)


def _ownership(tree: Path, location: str) -> str:
    for file in (tree / place for place in CODEOWNERS):
        if file.is_file():
            if file.stat().st_size > MAX_CODEOWNERS:
                raise Invalid(f"larger than {MAX_CODEOWNERS} bytes", where=f"{location}: {file.name}")
            return file.read_text(encoding="utf-8", errors="replace")
    raise Invalid(
        "no CODEOWNERS says whose these policies are",
        where=location,
        next_move=f"add {CODEOWNERS[1]} with lines like: /{FOLDER}/security-lead.yaml @security-lead",
    )


def _owned(path: str, owner: str, ownership: str) -> None:
    """CODEOWNERS names the owning role, with or without an organisation before it."""
    named = owners(ownership, path)
    if owner in {name.removeprefix("@").rpartition("/")[2] for name in named}:
        return
    whose = ", ".join(named) or "nobody"
    raise Refused(
        f"CODEOWNERS gives this file to {whose}; its owner is {owner}",
        where=path,
        next_move=f"add to CODEOWNERS: /{path} @{owner}",
    )


def _signer(commit: SourceRevision, authority: Authority, path: str) -> str:
    keys = [key for key in authority.keys.values() if key.purpose == "person"]
    found = [key.identity for key in keys if key.public_key.hex() == commit.signing_key]
    if found:
        return found[0]
    how = "signed with a key that nobody here has" if commit.signing_key else "not signed with an ssh key"
    raise Refused(
        f"the last commit that changed this file ({commit.revision[:12]}) is {how}",
        where=path,
        next_move="git config gpg.format ssh; git commit -S, with a key that penstock identity list knows",
    )


def _since(entry: Entry) -> float:
    """When the version in force was made: its commit's time, or when it was signed."""
    said = entry.statement.predicate
    assert isinstance(said, Version)
    commit = LOGIN.fullmatch(said.by.login or "")
    return float(commit.group(1)) if commit else said.by.at


def _text(entry: Entry) -> str:
    said = entry.statement.predicate
    assert isinstance(said, Version)
    return said.source
