"""Keys, and the first entries of a new ledger: who may do what, and which policies hold.

Called once by the server's first start. Every key is made here and
stays in ``keys/`` (0600); a workload's sandbox cannot see that folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import find
from penstock.config import parse_policy
from penstock.core.codec import encode
from penstock.core.digest import digest
from penstock.core.evidence import Envelope, Statement, Subject
from penstock.core.predicates import Genesis, KeyGrant, PolicyVersion, Predicate
from penstock.errors import Conflict
from penstock.ledger.fsck import Trust
from penstock.ledger.log import Ledger, attest
from penstock.ports import Signer, Store, Transaction

ORIGIN = "penstock"
OPERATOR = "operator"
WORKER = "worker"
LEADS = ("development-lead", "test-lead", "security-lead", "operations-lead")
ROLES = ("administrator", *LEADS)


@dataclass(frozen=True)
class Keys:
    """*log* signs checkpoints, *operator* grants and publishes, *worker* signs machine evidence."""

    log: Signer
    operator: Signer
    worker: Signer


def load_keys(home: Home) -> Keys:
    """The keys of this data folder, made where they are missing."""
    return Keys(key(home, "log"), key(home, OPERATOR), key(home, WORKER))


def key(home: Home, name: str) -> Signer:
    """One identity's key, made at first use."""
    ed25519: Any = find("signer", "ed25519")
    path = home.keys / f"{name}.key"
    signer: Signer = ed25519.load(path) if path.exists() else ed25519.create(path)
    return signer


async def found(store: Store, ledger: Ledger, keys: Keys, home: Home) -> None:
    """Write the first entries of an empty ledger, and ``trust.json`` beside it.

    `Conflict` if the store and the data folder do not belong together.
    """
    async with store.transaction() as tx:
        if await ledger.size(tx):
            first = await _founding(ledger, tx, keys, home)
        elif home.trust.exists():
            raise _strangers("this data folder knows a ledger, and the store's is empty", home)
        else:
            first = await _found(ledger, tx, keys)
    if not home.trust.exists():
        trust = Trust(ORIGIN, keys.log.public_key.hex(), first.digest)
        home.trust.write_text(json.dumps(encode(trust), indent=2) + "\n")


async def _found(ledger: Ledger, tx: Transaction, keys: Keys) -> Envelope:
    roles = tuple(ROLES)
    genesis = Genesis(ORIGIN, keys.log.public_key.hex(), OPERATOR, keys.operator.public_key.hex(), roles)
    first = attest(keys.operator, about(ORIGIN, genesis))
    granted = KeyGrant(WORKER, keys.worker.public_key.hex(), "worker")
    entries = [first, attest(keys.operator, about(WORKER, granted))]
    entries += [publication(keys.operator, source) for source in shipped_policies()]
    await ledger.append(tx, entries)
    return first


async def _founding(ledger: Ledger, tx: Transaction, keys: Keys, home: Home) -> Envelope:
    """The first entry of a ledger that is there, if it was this data folder that founded it."""
    entry = await ledger.entry(tx, 0)
    genesis = entry.statement.predicate
    if not isinstance(genesis, Genesis) or genesis.log_key != keys.log.public_key.hex():
        raise _strangers("another data folder founded the store's ledger", home)
    return entry.envelope


def _strangers(what: str, home: Home) -> Conflict:
    return Conflict(
        what,
        where=str(home.path),
        next_move="set PENSTOCK_STORE and PENSTOCK_HOME to what they were, or choose new ones for both",
    )


def publication(signer: Signer, source: str, name: str = "policy.yaml") -> Envelope:
    """The signed statement that publishes a policy's text. `Invalid` if the text is not a policy."""
    document = parse_policy(source.encode(), name)
    version = PolicyVersion(document.policy, document.owner, source)
    subject = Subject(document.policy, digest(source.encode()))
    return attest(signer, Statement((subject,), version))


def about(name: str, predicate: Predicate) -> Statement:
    """A statement about something that has a name but no content of its own."""
    return Statement((Subject(name, digest(name.encode())),), predicate)


def shipped_policies() -> tuple[str, ...]:
    """The texts of the policies that come with Penstock."""
    folder = files("penstock") / "policies"
    return tuple(folder.joinpath(f"{lead}.yaml").read_text(encoding="utf-8") for lead in LEADS)
