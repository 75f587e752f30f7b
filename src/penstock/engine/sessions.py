"""Sessions of signed-in browsers: what a cookie holds is a random word of its own, and ends.

Called by the server. Only the SHA-256 of the word is kept, with that of the token that was given for it: the
session ends with its token, and whoever reads a cookie or this table has no token.
"""

from __future__ import annotations

import hashlib
import secrets

from penstock.ports import Store

SCHEMA = ("CREATE TABLE sessions (hash TEXT PRIMARY KEY, token TEXT NOT NULL, expires REAL NOT NULL)",)
#: Seconds for which a browser stays signed in.
LASTS = 7 * 86400


async def migrate(store: Store) -> None:
    await store.migrate("sessions", SCHEMA)


async def begin(store: Store, token: str) -> str:
    """The word for a new session of whoever gave the token with the SHA-256 *token*. Old ones are removed."""
    word = secrets.token_urlsafe(32)
    async with store.transaction() as tx:
        now = await tx.now()
        await tx.execute("DELETE FROM sessions WHERE expires <= ?", (now,))
        await tx.execute(
            "INSERT INTO sessions (hash, token, expires) VALUES (?, ?, ?)",
            (_hashed(word), token, now + LASTS),
        )
    return word


async def identity_of(store: Store, word: str) -> str | None:
    """Whose session it is; None if it is nobody's, or over."""
    if not word:
        return None
    async with store.transaction(write=False) as tx:
        rows = await tx.execute(
            "SELECT t.identity, s.expires FROM sessions s JOIN tokens t ON t.hash = s.token WHERE s.hash = ?",
            (_hashed(word),),
        )
        return str(rows[0][0]) if rows and await tx.now() < float(str(rows[0][1])) else None


def _hashed(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()
