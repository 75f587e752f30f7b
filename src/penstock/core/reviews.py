"""Whose word counts for a change: nobody approves their own. Pure.

Called by `core.selection` for reviews, and by `core.policy` for overrides. What decides is what the ledger
knows at one size: the addresses that commits name people by, keys, and roles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock.core.authority import Authority
from penstock.core.people import Review
from penstock.core.release import Change

ADDRESS = re.compile(r"<([^<>]+)>\s*$")


def judged(reviews: Iterable[Review], change: Change, authority: Authority) -> dict[str, str]:
    """Everybody who approves, each with why it does not count ("" if it does)."""
    return {
        review.by.identity: objection(review.by.identity, change, authority)
        for review in reviews
        if review.verdict == "approve"
    }


def objection(identity: str, change: Change, authority: Authority) -> str:
    """Why somebody may not speak for this change; "" if they may."""
    keys = [key for key in authority.keys.values() if key.identity == identity and key.purpose == "person"]
    if not keys and not authority.roles.get(identity):
        return "no longer known here"
    if any(key.public_key.hex() == change.signing_key for key in keys):
        return "signed the change"
    addresses = {address.casefold() for address in authority.addresses.get(identity, ())}
    if not addresses:
        return "has no known address, so nobody can tell whether it is their own change"
    author = ADDRESS.search(change.author)
    if author is None:
        return "cannot be told from the author, whose address is not known"
    return "is the author" if author.group(1).strip().casefold() in addresses else ""
