"""Whose word counts for a change: nobody approves their own. Pure.

Called by `core.selection` and `core.factfinding` for reviews, and by `core.policy` for overrides. What
decides is what the ledger knows at one size: the addresses that commits name people by, keys, and roles.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Iterable

from penstock.core.authority import Authority
from penstock.core.facts import ENGINE, FIRST_ENGINE
from penstock.core.people import Review
from penstock.core.release import Change

ADDRESS = re.compile(r"<([^<>]+)>\s*$")


def judged(
    reviews: Iterable[Review], change: Change, authority: Authority, engine: str = ENGINE
) -> dict[str, str]:
    """Everybody who approves, each with why it does not count ("" if it does)."""
    return {
        review.by.identity: objection(review.by.identity, change, authority, engine)
        for review in reviews
        if review.verdict == "approve"
    }


def objection(identity: str, change: Change, authority: Authority, engine: str = ENGINE) -> str:
    """Why somebody may not speak for this change; "" if they may."""
    keys = [key for key in authority.keys.values() if key.identity == identity and key.purpose == "person"]
    if not keys and not authority.roles.get(identity):
        return "no longer known here"
    if any(key.public_key.hex() == change.signing_key for key in keys):
        return "signed the change"
    same = str.casefold if engine == FIRST_ENGINE else mailbox
    addresses = {same(address) for address in authority.addresses.get(identity, ())}
    if not addresses:
        return "has no known address, so nobody can tell whether it is their own change"
    author = ADDRESS.search(change.author)
    if author is None:
        return "cannot be told from the author, whose address is not known"
    return "is the author" if same(author.group(1).strip()) in addresses else ""


def mailbox(address: str) -> str:
    """One spelling for what is delivered to one person: no +tag, and the host's name as it is looked up."""
    name, _, host = unicodedata.normalize("NFKC", address).casefold().rpartition("@")
    host = host.strip().rstrip(".")
    with contextlib.suppress(UnicodeError):
        host = host.encode("idna").decode()
    plain = name.strip().strip('"').partition("+")[0]
    return f"{plain or name}@{host}"
