"""Signing what somebody says: with a key of one's own, or by a login that the server attests; and sending it.

Called by the verbs of `people` and `policies`. The key never leaves this machine: the server gets the
signed statement.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import Any

from penstock.bootstrap.home import Home
from penstock.bootstrap.identity import OPERATOR
from penstock.bootstrap.plugins import find
from penstock.cli.client import Client
from penstock.core.codec import encode
from penstock.core.people import By, Said
from penstock.engine.door import own
from penstock.errors import Invalid
from penstock.ledger.log import attest
from penstock.ports import Signer

#: Filled in when it is known who signs.
NOBODY = By("", 0.0)


def add_options(command: argparse.ArgumentParser) -> None:
    """The ways to sign, the same for every verb that says something."""
    ways = command.add_argument_group("who signs (default: PENSTOCK_KEY, else this data folder's operator)")
    one = ways.add_mutually_exclusive_group()
    one.add_argument("--key", type=Path, help="an ed25519 key of yours: OpenSSH's format, or Penstock's")
    one.add_argument(
        "--ssh-agent", nargs="?", const="", metavar="WHICH", help="a key in the agent: comment or fingerprint"
    )
    one.add_argument("--ssh-keygen", type=Path, metavar="KEY", help="have ssh-keygen -Y sign with it")
    one.add_argument(
        "--login", action="store_true", help="no key: the server attests your login, where that is allowed"
    )


def say(given: argparse.Namespace, client: Client, said: Said) -> Any:
    """Sign and send; the answer names the ledger's entry."""
    if given.login:
        predicate = {name: value for name, value in encode(said).items() if name != "by"}
        who = client.get("/v1/whoami")
        answer = client.post("/v1/say", {"type": said.TYPE, "predicate": predicate})
        return {**answer, "identity": who["identity"], "addresses": who["addresses"]}
    return say_with(client, _signer(given), said)


def say_with(client: Client, signer: Signer, said: Said) -> Any:
    """Sign with a key, as whoever the server knows it to be, by the server's clock; and send."""
    who = client.get("/v1/whoami", keyid=signer.keyid)
    envelope = attest(signer, own(said, who["identity"], who["now"]))
    answer = client.send("/v1/statements", envelope.raw)
    return {**answer, "identity": who["identity"], "addresses": who["addresses"]}


def _signer(given: argparse.Namespace) -> Signer:
    if given.ssh_agent is not None:
        signer: Signer = find("signer", "ssh-agent").load(given.ssh_agent)
        return signer
    if given.ssh_keygen is not None:
        return find("signer", "ssh-keygen").load(given.ssh_keygen)  # type: ignore[no-any-return]
    named = os.environ.get("PENSTOCK_KEY")
    path = given.key or (Path(named) if named else Home.find().keys / f"{OPERATOR}.key")
    if not path.exists():
        raise Invalid(
            "there is no key to sign with",
            where=str(path),
            next_move="--key FILE, --ssh-agent, or --login where the organisation allows it",
        )
    return _load(path)


def _load(path: Path) -> Signer:
    """A key file: OpenSSH's own format (asking for its passphrase), or a seed in hex."""
    if b"OPENSSH PRIVATE KEY" not in path.read_bytes()[:200]:
        return find("signer", "ed25519").load(path)  # type: ignore[no-any-return]
    openssh = find("signer", "openssh")
    try:
        signer: Signer = openssh.load(path)
    except Invalid as error:
        if "has a passphrase" not in error.what or not sys.stdin.isatty():
            raise
        signer = openssh.load(path, getpass.getpass(f"passphrase of {path}: ").encode())
    return signer
