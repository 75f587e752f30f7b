"""The demo's people: four leads with keys of their own, and one who tries what is not theirs.

Called by `demo`. Everything goes through the same doors that people use.
"""

from __future__ import annotations

from penstock.bootstrap.home import Home
from penstock.bootstrap.identity import LEADS, OPERATOR, publication, shipped_policies
from penstock.bootstrap.plugins import find
from penstock.cli.client import Client
from penstock.cli.show import say
from penstock.cli.signing import NOBODY, say_with
from penstock.core.people import ORGANISATION, KeyGrant, RoleGrant, RoleRevocation
from penstock.errors import Refused
from penstock.ports import Signer

PEOPLE = dict(zip(LEADS, ("dora", "tess", "sam", "olga"), strict=True))


def appoint(home: Home, client: Client) -> None:
    """Grant each role to one person, take it from the operator, and let them publish their policies."""
    say("\n▸ four leads, each with a key of their own, sign their own policies")
    operator = _key(home, OPERATOR)
    for text, (role, name) in zip(shipped_policies(), PEOPLE.items(), strict=True):
        signer: Signer = find("signer", "ed25519").create(home.keys / f"{name}.key")
        say_with(client, operator, KeyGrant(NOBODY, name, signer.public_key.hex(), "person"))
        say_with(client, operator, RoleGrant(NOBODY, name, role))
        taken = RoleRevocation(NOBODY, OPERATOR, role, ORGANISATION, f"{name} holds it now")
        say_with(client, operator, taken)
        published = say_with(client, signer, publication(text, NOBODY))
        say(f"  ✓ {name}, {role}, published {role} (entry {published['index']})")


def try_to_weaken(home: Home, client: Client) -> bool:
    """Whether the test lead's attempt at the security lead's policy is refused, and kept."""
    text = shipped_policies()[LEADS.index("security-lead")].replace("critical == 0", "critical < 100")
    who = PEOPLE["test-lead"]
    try:
        say_with(client, _key(home, who), publication(text, NOBODY))
    except Refused as error:
        kept = client.get("/v1/evidence", type="urn:penstock:attempt:v1")["entries"]
        say(f"  ✗ {who} tried to weaken security-lead: {error.what} (kept as entry {kept[-1]['index']})")
        return bool(kept)
    return False


def _key(home: Home, name: str) -> Signer:
    signer: Signer = find("signer", "ed25519").load(home.keys / f"{name}.key")
    return signer
