"""Warns about names that look misspelt: a grant to a name that nobody has is valid, but helps nobody.

Called by `people` once the statement is recorded, and by `policies`. It only warns: any name may be new.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.cli.client import Client
from penstock.cli.show import complain
from penstock.core.authority import ADMINISTRATOR, DEPLOYER, LEADS, SOURCE
from penstock.core.digest import digest
from penstock.core.nearest import did_you_mean, nearest
from penstock.core.people import KeyRevocation
from penstock.core.release import PRODUCTION
from penstock.errors import PenstockError

SHIPPED = (ADMINISTRATOR, DEPLOYER, SOURCE, *LEADS)


def warn_of_grant(client: Client, identity: str, role: str, scope: str) -> None:
    """Who, what and where, if each is unlike all that is known here."""
    view = client.get("/v1/identities")
    known = view["identities"]
    # The grant itself made its names known: what nobody else has is what could be a slip.
    others = [one for one in known if one["identity"] != identity]
    mine = [one for one in known if one["identity"] == identity]
    if not any(one["keys"] or one["addresses"] or len(one["roles"]) > 1 for one in mine):
        meant = nearest(identity, (one["identity"] for one in others))
        words = f"; did you mean {meant}?" if meant else ""
        complain(f"! {identity} has no key and no address here yet{words}")
    owners = (policy["owner"] for policy in client.get("/v1/policies")["policies"])
    roles = {*SHIPPED, *owners, *(held["role"] for one in others for held in one["roles"])}
    _warn("role", role, roles)
    kind, _, team = scope.partition("/")
    if kind == "team":
        _warn("team", team, set(view["teams"].values()))


def warn_of_binding(client: Client, service: str, team: str, before: Iterable[str]) -> None:
    """*before*: the teams that were known before it was bound."""
    _warn("team", team, set(before))
    _warn("service", service, {row["service"] for row in client.get("/v1/status")["services"]})


def warn_of_service(client: Client, service: str) -> None:
    """A service that nobody has delivered yet."""
    known = {row["service"] for row in client.get("/v1/status")["services"]}
    if service not in known:
        meant = nearest(service, known)
        words = f"; did you mean {meant}?" if meant else ""
        complain(f"! no service here was called {service} before{words}")


def warn_of_owner(owner: str) -> None:
    """A role that nobody holds, if there is a server to say so; else one that does not come with Penstock."""
    try:
        known = Client.find().get("/v1/identities")["identities"]
    except PenstockError:
        if owner not in SHIPPED:
            meant = did_you_mean(owner, SHIPPED)
            complain(f"! {owner} is none of the roles that come with Penstock{meant}")
            complain("  next: with a server (penstock up), this says whether anybody holds it")
        return
    held = {role["role"] for one in known for role in one["roles"]}
    if owner not in held:
        meant = did_you_mean(owner, {*SHIPPED, *held})
        complain(f"! nobody holds the role {owner}: nobody could publish or override this{meant}")
        complain(f"  next: penstock role grant NAME {owner}")


def warn_of_environments(policy: str, environments: Sequence[str]) -> None:
    """One that looks like production and is not: any name is good, and guards nothing anywhere else."""
    if PRODUCTION in environments:
        return
    for name in environments:
        short = PRODUCTION.startswith(name.casefold())
        if short or nearest(name, [PRODUCTION], alike=0.9):  # pre-production is less alike
            complain(f"! {policy} guards nothing in {PRODUCTION}, but in {name}; did you mean {PRODUCTION}?")


def warn_of_revoked(client: Client, keyid: str) -> None:
    """A key that was taken back once, and is granted again."""
    about = client.get("/v1/evidence", digest=digest(keyid.encode()))["entries"]
    revoked = [entry["index"] for entry in about if entry["type"] == KeyRevocation.TYPE]
    if revoked:
        complain(f"! this key was revoked before (entry {revoked[-1]}): penstock evidence show {revoked[-1]}")


def _warn(what: str, name: str, known: set[str]) -> None:
    meant = "" if name in known else nearest(name, known)
    if meant:
        complain(f"! no {what} here was called {name} before; did you mean {meant}?")
