"""``penstock mesh``: what other installations know this one by, and how that is changed.

Called by `main`. It works on the data folder itself, with or without a server: the node agent, which makes
certificates, sees what has changed there.
"""

from __future__ import annotations

import argparse
from typing import Any

from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import open_issuer
from penstock.cli.show import document, say


def parsers(verb: Any) -> None:
    """*verb* adds one verb to ``penstock mesh``."""
    what = "print the certificates by which peers know this installation's services; they are no secret"
    verb("trust", trust, what, "penstock mesh trust > west.pem")
    what = (
        "make the authority that signs next; with --switch, have it sign from now on and forget the old one"
    )
    command = verb("rotate", rotate, what, "penstock mesh rotate")
    command.add_argument("--switch", action="store_true", help="once every peer trusts both")


def trust(given: argparse.Namespace) -> int:
    text = _issuer().trust()
    if given.format == "json":
        document({"trust": text})
    else:
        say(text.rstrip())
    return 0


def rotate(given: argparse.Namespace) -> int:
    issuer = _issuer()
    name = issuer.switch() if given.switch else issuer.prepare()
    if given.format == "json":
        document({"authority": name, "signs": given.switch})
    elif given.switch:
        say(f"✓ {name} signs from now on, and certificates are being renewed")
        say("  next: peers may trust it alone: penstock mesh trust")
    else:
        say(f"✓ {name} is there, and signs nothing yet")
        say("  next: have every peer trust all of `penstock mesh trust`; then penstock mesh rotate --switch")
    return 0


def _issuer() -> Any:
    home = Home.find()
    home.create()
    return open_issuer(home)
