"""Store: PostgreSQL, for workers on more than one machine.

Found as ``penstock.store: postgres``. `store` holds transactions, `connecting` connections and error words,
`listening` what wakes who waits, `dialect` SQL and values, `tools` copies. It must not know a table that is
not its own.
"""

from penstock.adapters.postgres.store import PostgresStore
from penstock.adapters.postgres.tools import PostgresRestorer

__all__ = ["PostgresRestorer", "PostgresStore"]
