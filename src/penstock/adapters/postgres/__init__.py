"""Store: PostgreSQL, for workers on more than one machine.

Found as ``penstock.store: postgres``. `store` holds transactions, `connecting` connections and error words,
`listening` what wakes who waits, `dialect` SQL and values. It must not know a table that is not its own.
"""

from penstock.adapters.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
