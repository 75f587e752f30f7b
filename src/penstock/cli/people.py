"""Who may do what, and people's words about a change: identity, role, team, review, override.

Called by `main`. Each verb makes one statement, which `signing` signs and sends, or prints a view.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from penstock.cli import spelling
from penstock.cli.client import Client
from penstock.cli.ended import latest
from penstock.cli.show import complain, table, told
from penstock.cli.signing import NOBODY, add_options, say
from penstock.core.digest import digest, hex_of
from penstock.core.people import (
    ORGANISATION,
    Binding,
    KeyGrant,
    KeyRevocation,
    LogKey,
    Override,
    Person,
    Review,
    RoleGrant,
    RoleRevocation,
)
from penstock.core.policy import ACTIONS
from penstock.core.sshsig import parse_public_key
from penstock.core.wording import plural
from penstock.errors import Invalid

UNITS = {"m": 60, "h": 3600, "d": 86400}


def parsers(group: Any) -> None:
    """The commands of this file; *group* is `main.group`."""
    what = "who is known here: keys, roles, addresses, tokens"
    _identity(group("identity", what, "penstock identity list"))
    _role(group("role", "grant or revoke a role", "penstock role grant ada security-lead"))
    _review(group("review", "approve or reject a change", "penstock review approve shop-1a2b3c4d"))


def _identity(verb: Any) -> None:
    verb("list", identities, "who is known, with keys and roles", "penstock identity list")
    add = verb(
        "add", add_identity, "add a person, or a source", "penstock identity add ada --public-key ada.pub"
    )
    add.add_argument("identity")
    add.add_argument("--public-key", type=Path, metavar="FILE", help="an ssh-ed25519 public key")
    add.add_argument("--address", action="append", default=[], help="that commits name the person by")
    add.add_argument("--source", action="store_true", help="the key signs statements outside of Penstock")
    add.add_argument("--type", action="append", help="a predicate type that the source may sign")
    add_options(add)
    revoke = verb(
        "revoke-key", revoke_key, "take a key back", "penstock identity revoke-key 1f0c… --reason lost"
    )
    revoke.add_argument("keyid")
    revoke.add_argument("--reason", required=True)
    add_options(revoke)
    token = verb("token", mint, "make an API token for somebody", "penstock identity token jenkins")
    token.add_argument("identity")
    token.add_argument("--drop", action="store_true", help="forget all of their tokens instead")
    what = "let the server attest verified logins, for people who have no key of their own"
    attesting = verb("attest-logins", attest_logins, what, "penstock identity attest-logins")
    attesting.add_argument("--off", action="store_true", help="allow it no longer")
    add_options(attesting)
    bind = verb(
        "bind", bind_service, "say which team a service belongs to", "penstock identity bind shop web"
    )
    bind.add_argument("service")
    bind.add_argument("team")
    add_options(bind)


def _role(verb: Any) -> None:
    for name, handler in (("grant", grant), ("revoke", revoke_role)):
        command = verb(name, handler, f"{name} a role", f"penstock role {name} ada security-lead")
        command.add_argument("identity")
        command.add_argument("role")
        command.add_argument("--scope", default=ORGANISATION, help="organisation (default) or team/NAME")
        if name == "revoke":
            command.add_argument("--reason", required=True)
        add_options(command)


def _review(verb: Any) -> None:
    for name in ("approve", "reject"):
        command = verb(name, review, f"{name} a change", f"penstock review {name} shop-1a2b3c4d")
        command.add_argument("change", help="a delivery, a service (its newest one), or the full commit id")
        command.add_argument("--comment", default="")
        command.set_defaults(verdict=name)
        add_options(command)


def override_parser(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "delivery", help="whose release is to pass: a delivery, or a service (its newest one)"
    )
    command.add_argument("--policy", required=True)
    what = "default: what the policy has refused of this delivery"
    command.add_argument("--action", choices=ACTIONS, help=what)
    command.add_argument("--reason", required=True)
    command.add_argument("--for", dest="duration", default="1h", help="how long it holds: 30m, 4h, 2d")
    add_options(command)


# --- identity ------------------------------------------------------------------------------------------


def identities(given: argparse.Namespace) -> int:
    view = Client.find().get("/v1/identities")
    rows = [
        (
            one["identity"],
            ", ".join(_scoped(role) for role in one["roles"]) or "–",
            ", ".join(f"{key['keyid'][:12]} ({key['purpose']})" for key in one["keys"]) or "–",
            ", ".join(one["addresses"]) or "–",
        )
        for one in view["identities"]
    ]
    text = table(("identity", "roles", "keys", "addresses"), rows)
    if view["teams"]:
        text += "\n\n" + table(("service", "team"), list(view["teams"].items()))
    return told(given, view, text)


def _scoped(role: dict[str, str]) -> str:
    return role["role"] + ("" if role["scope"] == ORGANISATION else f" ({role['scope']})")


def add_identity(given: argparse.Namespace) -> int:
    if given.public_key is None and not given.address:
        raise Invalid("nothing to add", next_move="--public-key FILE, --address NAME@EXAMPLE.ORG, or both")
    client = Client.find()
    answers = []
    if given.public_key is not None:
        raw = _public_key(given.public_key)
        purpose = "source" if given.source else "person"
        types = tuple(given.type) if given.type else None
        grant_key = KeyGrant(NOBODY, given.identity, raw.hex(), purpose, types)  # type: ignore[arg-type]
        answers.append(say(given, client, grant_key))
        spelling.warn_of_revoked(client, hex_of(digest(raw)))
    if given.address:
        answers.append(say(given, client, Person(NOBODY, given.identity, tuple(given.address))))
    return _recorded(given, answers, f"{given.identity} is known here")


def _public_key(path: Path) -> bytes:
    try:
        return parse_public_key(path.read_text(errors="replace"))
    except OSError as error:
        raise Invalid(f"cannot be read: {error.strerror}", where=str(path)) from error


def revoke_key(given: argparse.Namespace) -> int:
    client = Client.find()
    known = [k["keyid"] for one in client.get("/v1/identities")["identities"] for k in one["keys"]]
    matching = [keyid for keyid in known if keyid.startswith(given.keyid)]
    if len(matching) != 1:
        problem = "is ambiguous" if matching else "is no key that is granted here"
        raise Invalid(f"{given.keyid!r} {problem}", next_move="penstock identity list")
    answer = say(given, client, KeyRevocation(NOBODY, matching[0], given.reason))
    return _recorded(given, [answer], f"{matching[0][:12]} signs nothing any more")


def mint(given: argparse.Namespace) -> int:
    client = Client.find()
    if given.drop:
        view = client.delete(f"/v1/tokens/{given.identity}")
        return told(given, view, f"✓ forgot {plural(view['dropped'], 'token')} of {given.identity}")
    view = client.post("/v1/tokens", {"identity": given.identity})
    return told(
        given, view, f"✓ token of {given.identity} (shown once, kept only as a hash): {view['token']}"
    )


def attest_logins(given: argparse.Namespace) -> int:
    client = Client.find()
    raw = client.get("/v1/whoami")["server_key"]
    if given.off:
        servers = client.get("/v1/identities")["identities"]
        keyid = next((k["keyid"] for one in servers for k in one["keys"] if k["purpose"] == "server"), "")
        if not keyid:
            return told(given, {}, "✓ logins are not attested")
        answer = say(given, client, KeyRevocation(NOBODY, keyid, "logins are attested no longer"))
        return _recorded(given, [answer], "logins are attested no longer")
    answer = say(given, client, KeyGrant(NOBODY, "server", raw, "server"))
    return _recorded(given, [answer], "the server attests verified logins from now on")


def bind_service(given: argparse.Namespace) -> int:
    client = Client.find()
    before = client.get("/v1/identities")["teams"].values()
    answer = say(given, client, Binding(NOBODY, given.service, given.team))
    spelling.warn_of_binding(client, given.service, given.team, before)
    return _recorded(
        given, [answer], f"{given.service} belongs to {given.team}: its policies hold from now on"
    )


# --- role ---------------------------------------------------------------------------------------------


def grant(given: argparse.Namespace) -> int:
    said = RoleGrant(NOBODY, given.identity, given.role, given.scope)
    client = Client.find()
    answer = say(given, client, said)
    spelling.warn_of_grant(client, given.identity, given.role, given.scope)
    return _recorded(given, [answer], f"{given.identity} holds {given.role}")


def revoke_role(given: argparse.Namespace) -> int:
    said = RoleRevocation(NOBODY, given.identity, given.role, given.scope, given.reason)
    answer = say(given, Client.find(), said)
    return _recorded(given, [answer], f"{given.identity} no longer holds {given.role}")


def rotate_log_key(given: argparse.Namespace) -> int:
    client = Client.find()
    raw = client.post("/v1/ledger/next-key")["public_key"]
    answer = say(given, client, LogKey(NOBODY, raw, given.reason))
    return _recorded(
        given, [answer], "the log signs with its next key from now on; the trust file stays good"
    )


# --- about a change ---------------------------------------------------------------------------------------


def review(given: argparse.Namespace) -> int:
    client = Client.find()
    change = given.change if _is_commit(given.change) else latest(client, given.change)
    revision = _revision(client, change)
    answer = say(given, client, Review(NOBODY, revision, given.verdict, given.comment))
    _counts(client, change, answer)
    return _recorded(given, [answer], f"{given.verdict}: {revision[:12]}")


def _revision(client: Client, change: str) -> str:
    """A full commit id as it is; for a delivery, its change's."""
    if _is_commit(change):
        return change
    return str(client.get(f"/v1/deliveries/{change}")["change"]["revision"])


def _is_commit(text: str) -> bool:
    return len(text) in (40, 64) and not set(text) - set("0123456789abcdef")


def override(given: argparse.Namespace) -> int:
    client = Client.find()
    found = client.get(f"/v1/deliveries/{latest(client, given.delivery)}")
    if not found["release_digest"]:
        raise Invalid(f"{found['id']} has no release yet", next_move="override once it has been refused")
    until = client.get("/v1/whoami")["now"] + seconds(given.duration)
    action = given.action or _refused_action(found, given.policy)
    said = Override(NOBODY, given.policy, action, found["release_digest"], given.reason, until)
    answer = say(given, client, said)
    if not _counts(client, found["id"], answer):
        return _recorded(given, [answer], "the override is kept, and lets nothing pass")
    ends = time.strftime("%d %b %H:%M UTC", time.gmtime(until))
    code = _recorded(given, [answer], f"{given.policy} lets {action} of {found['release']} pass until {ends}")
    if found["ended"]:
        again = f"penstock retry {found['id']}, or penstock ship {found['change']['repository']}"
        complain(f"  next: {again} (that delivery has ended)")
    return code


def _refused_action(view: dict[str, Any], policy: str) -> str:
    """What the policy has last refused of a delivery; the first that it could, if it has refused nothing."""
    refused = [s["action"] for s in view["sign_offs"] if s["policy"] == policy and s["result"] != "PASSED"]
    return str(refused[-1]) if refused else "deploy"


def _counts(client: Client, change: str, answer: dict[str, Any]) -> bool:
    """Nobody speaks for their own change: says so at once, and not only at the gate. False if it did."""
    who, addresses = answer["identity"], [address.casefold() for address in answer["addresses"]]
    if not addresses:
        complain(f"! this will not count: {who} has no known address, so it could be their own change")
        complain(f"  next: an administrator adds it: penstock identity add {who} --address NAME@EXAMPLE.ORG")
        return False
    if not _is_commit(change):
        author = client.get(f"/v1/deliveries/{change}")["change"]["author"].casefold()
        if any(f"<{address}>" in author for address in addresses):
            complain(f"! this will not count: {who} is the author")
            return False
    return True


def seconds(text: str, option: str = "--for") -> float:
    """A duration as people write it."""
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS or not number.isdecimal() or not int(number):
        raise Invalid(f"{text!r} is not a duration", where=option, next_move="30m, 4h or 2d")
    return float(int(number) * UNITS[unit])


def _recorded(given: argparse.Namespace, answers: list[Any], words: str) -> int:
    entries = ", ".join(str(answer["index"]) for answer in answers)
    return told(
        given, {"entries": answers}, f"✓ {words} (entry {entries}, signed as {answers[0]['identity']})"
    )
