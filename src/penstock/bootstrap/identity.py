"""Keys, and the first entries of a new ledger: who may do what, and which policies hold.

Called once by the server's first start. Every key is made here and
stays in ``keys/`` (0600); a workload's sandbox cannot see that folder.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import find
from penstock.core import authority
from penstock.core.authority import ADMINISTRATOR, DEPLOYER, SOURCE
from penstock.core.codec import encode
from penstock.core.evidence import Envelope
from penstock.core.people import By, Genesis, KeyGrant, PolicyVersion, Said
from penstock.core.saying import spoken, statement_of
from penstock.errors import Conflict
from penstock.ledger.fsck import Trust
from penstock.ledger.log import Ledger, attest
from penstock.policyfile import parse_policy
from penstock.ports import Signer, Store, Transaction

ORIGIN = "penstock"
OPERATOR = "operator"
WORKER = "worker"
SERVER = "server"
LEADS = authority.LEADS
#: What the operator holds at first.
ROLES = (ADMINISTRATOR, *LEADS, DEPLOYER, SOURCE)


@dataclass(frozen=True)
class Keys:
    """*logs* sign checkpoints (the newest last); *operator* is the first administrator's own key; *worker*
    signs machine evidence; *server* attests logins, once an administrator has granted it that."""

    logs: tuple[Signer, ...]
    operator: Signer
    worker: Signer
    server: Signer


def load_keys(home: Home, worker: str = WORKER) -> Keys:
    """The keys of this data folder, made where they are missing; *worker* names the worker's."""
    if home.trust.exists() and not (home.keys / "log.key").exists():
        raise Conflict(
            "the log's key is not there: without it the ledger can be read, not continued",
            where=str(home.keys),
            next_move="put back log.key and the other keys, with mode 600",
        )
    later = sorted(home.keys.glob("log-*.key"))
    logs = (key(home, "log"), *(key(home, path.stem) for path in later))
    return Keys(logs, key(home, OPERATOR), key(home, worker), key(home, SERVER))


def key(home: Home, name: str) -> Signer:
    """One identity's key, made at first use."""
    ed25519: Any = find("signer", "ed25519")
    path = home.keys / f"{name}.key"
    signer: Signer = ed25519.load(path) if path.exists() else ed25519.create(path)
    return signer


def next_log_key(home: Home, used: Collection[bytes]) -> Signer:
    """The log's next key, kept beside the earlier ones; one that was never used is not made twice."""
    for number in itertools.count(2):
        signer = key(home, f"log-{number:04}")
        if signer.public_key not in used:
            return signer
    raise AssertionError("numbers do not end")


async def found(store: Store, ledger: Ledger, keys: Keys, home: Home, worker: str = WORKER) -> None:
    """Write the first entries of an empty ledger, and ``trust.json`` beside it; *worker* names the worker's
    key there.

    `Conflict` if the store and the data folder do not belong together.
    """
    async with store.transaction() as tx:
        if await ledger.size(tx):
            first = await _founding(ledger, tx, keys, home)
        elif home.trust.exists():
            raise _strangers("this data folder knows a ledger, and the store's is empty", home)
        else:
            first = await _found(ledger, tx, keys, worker)
    if not home.trust.exists():
        trust = Trust(ORIGIN, keys.logs[0].public_key.hex(), first.digest)
        home.trust.write_text(json.dumps(encode(trust), indent=2) + "\n")


async def grant_worker(store: Store, ledger: Ledger, keys: Keys, name: str) -> None:
    """Let a worker's own key sign machine evidence, if it may not yet: the operator's key grants it."""
    async with store.transaction() as tx:
        known = await ledger.authority(tx)
        if keys.worker.keyid in known.keys:
            return
        grant = KeyGrant(By(OPERATOR), name, keys.worker.public_key.hex(), "worker")
        # Strictly later than what the operator said last: two workers may join in the same instant.
        now = max(await tx.now(), known.latest.get(OPERATOR, 0.0) + 0.001)
        await ledger.append(tx, [attest(keys.operator, statement_of(spoken(grant, now)))])


async def _found(ledger: Ledger, tx: Transaction, keys: Keys, name: str) -> Envelope:
    log_key, operator = keys.logs[0].public_key.hex(), keys.operator.public_key.hex()
    genesis = Genesis(ORIGIN, log_key, OPERATOR, operator, tuple(ROLES))
    worker = KeyGrant(By(OPERATOR), name, keys.worker.public_key.hex(), "worker")
    said: list[Said] = [genesis, worker, *(publication(text, By(OPERATOR)) for text in shipped_policies())]
    now = await tx.now()
    entries = [
        attest(keys.operator, statement_of(spoken(item, now + number / 1000)))
        for number, item in enumerate(said)
    ]
    await ledger.append(tx, entries)
    return entries[0]


async def _founding(ledger: Ledger, tx: Transaction, keys: Keys, home: Home) -> Envelope:
    """The first entry of a ledger that is there, if it was this data folder that founded it."""
    entry = await ledger.entry(tx, 0)
    genesis = entry.statement.predicate
    if not isinstance(genesis, Genesis) or genesis.log_key != keys.logs[0].public_key.hex():
        raise _strangers("another data folder founded the store's ledger", home)
    return entry.envelope


def _strangers(what: str, home: Home) -> Conflict:
    return Conflict(
        what,
        where=str(home.path),
        next_move="set PENSTOCK_STORE and PENSTOCK_HOME to what they were, or choose new ones for both",
    )


def publication(source: str, by: By, name: str = "policy.yaml") -> PolicyVersion:
    """What publishes a policy's text. `Invalid` if the text is not a policy."""
    document = parse_policy(source.encode(), name)
    return PolicyVersion(by, document.policy, document.owner, document.scope, source)


def shipped_policies() -> tuple[str, ...]:
    """The texts of the policies that come with Penstock."""
    folder = files("penstock") / "policies"
    return tuple(folder.joinpath(f"{lead}.yaml").read_text(encoding="utf-8") for lead in LEADS)
