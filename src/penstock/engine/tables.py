"""The tables of the journal: what it began with, and each change since. Never change one that was released.

Used by `journal`, which alone writes to them, and by `schemas`, which counts the changes.
"""

SCHEMA = (
    """
    CREATE TABLE deliveries (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, scope TEXT NOT NULL, urgent INTEGER NOT NULL,
        header TEXT NOT NULL, state TEXT NOT NULL, outcome TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '', request TEXT NOT NULL DEFAULT '', owner TEXT NOT NULL DEFAULT '',
        fence INTEGER NOT NULL DEFAULT 0, lease REAL NOT NULL DEFAULT 0, wake REAL NOT NULL DEFAULT 0,
        created REAL NOT NULL, ended REAL NOT NULL DEFAULT 0);
    CREATE INDEX deliveries_open ON deliveries (state, scope);
    CREATE TABLE records (
        delivery TEXT NOT NULL, seq INTEGER NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (delivery, key));
    CREATE TABLE attempts (
        delivery TEXT NOT NULL, key TEXT NOT NULL, count INTEGER NOT NULL, error TEXT NOT NULL,
        PRIMARY KEY (delivery, key));
    CREATE TABLE fences (scope TEXT PRIMARY KEY, number INTEGER NOT NULL);
    CREATE TABLE tokens (hash TEXT PRIMARY KEY, identity TEXT NOT NULL)
    """,
    """
    ALTER TABLE deliveries ADD COLUMN waits INTEGER NOT NULL DEFAULT 0
    """,
    """
    ALTER TABLE attempts ADD COLUMN again REAL NOT NULL DEFAULT 0;
    ALTER TABLE deliveries ADD COLUMN newer TEXT NOT NULL DEFAULT ''
    """,
    """
    ALTER TABLE deliveries ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE changesets (id TEXT PRIMARY KEY, fate TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '', decided REAL NOT NULL DEFAULT 0)
    """,
)
