"""Connections: how they are opened, begun and undone, and PostgreSQL's errors in our five words.

Called by `store` and `listening`. A connection is used again only if nothing is left on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from penstock.adapters.postgres.dialect import adapt
from penstock.errors import Broken, Conflict, Invalid, PenstockError, Refused, Unavailable

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

OLDEST = 13
#: For what the URL leaves open: a peer that went away without a word is noticed in about 20 seconds.
DEFAULTS: Mapping[str, str] = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "target_session_attrs": "read-write",
    "application_name": "penstock",
}
#: A commit must be on the disk when it is done; who chose more (remote_apply) keeps it.
DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
)

#: By class of SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html); the rest is Broken.
WORDS: Mapping[str, type[PenstockError]] = {
    "08": Unavailable,  # connection
    "22": Invalid,  # data
    "28": Unavailable,  # authorisation
    "3D": Unavailable,  # no such database
    "3F": Invalid,  # no such schema
    "40": Conflict,  # serialisation, deadlock
    "53": Unavailable,  # disk full, out of memory, too many connections
    "54": Invalid,  # program limits
    "55": Unavailable,  # a lock that is not let go
    "57": Unavailable,  # shutting down, cancelled by an operator
    "58": Unavailable,  # the server's disk
}
MOVES: Mapping[str, str] = {
    "3F": "CREATE SCHEMA …, or correct the search_path in PENSTOCK_STORE",
    "53100": "free some space; nothing was lost",
    "55": "find who holds it: SELECT * FROM pg_stat_activity",
    "XX": "restore the last backup, then penstock ledger verify",
}
#: Codes with which the server ends a connection: shutting down, or tired of waiting for us.
_ENDED = ("08", "57P0", "25P03", "25P04")
_CONNECTION = (psycopg.OperationalError, psycopg.InterfaceError)
LOOK = "is PostgreSQL up, and is PENSTOCK_STORE right? penstock doctor"


class _Lost(Unavailable):
    """The server ended the connection, or nobody answers on it: during a commit it may have been kept."""


class Server:
    """Where the database is. *where* names it in errors, without its password."""

    def __init__(self, url: str) -> None:
        with told("PENSTOCK_STORE"):
            given = {key: str(value) for key, value in conninfo_to_dict(url).items()}
        self.parameters: dict[str, str] = {**DEFAULTS, **given}
        self.where = f"postgresql://{given.get('host', '')}/{given.get('dbname', '')}"

    async def connect(self, settings: str = "") -> Connection:
        """A new connection in autocommit mode: who wants a transaction begins one."""
        with told(self.where):
            try:
                connection = await psycopg.AsyncConnection.connect(
                    **self.parameters,  # type: ignore[arg-type]
                    autocommit=True,
                    cursor_factory=psycopg.AsyncRawCursor,
                    client_encoding="UTF8",
                )
            except psycopg.OperationalError as error:
                raise Unavailable(
                    f"cannot connect: {_first_line(error)}", where=self.where, next_move=LOOK
                ) from error
            try:
                self._check(connection)
                adapt(connection)
                await connection.execute((DURABLE + settings).encode(), prepare=False)
            except BaseException:
                await connection.close()
                raise
        return connection

    def _check(self, connection: Connection) -> None:
        version = connection.info.server_version // 10000
        if version < OLDEST:
            raise Invalid(
                f"PostgreSQL {version} is too old", where=self.where, next_move=f"use {OLDEST} or newer"
            )
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise Invalid(
                f"the database's encoding is {encoding}",
                where=self.where,
                next_move="CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
            )

    async def begun(self, kept: Connection | None, begin: str, settings: str = "") -> Connection:
        """*kept*, or a new connection if it is gone, after the statement *begin*."""
        if kept is not None and not kept.closed:
            try:
                await self._begin(kept, begin)
                return kept
            except _Lost:
                pass  # while nobody used it, in a restart, say: nothing has been done on it yet
        fresh = await self.connect(settings)
        await self._begin(fresh, begin)
        return fresh

    async def _begin(self, connection: Connection, begin: str) -> None:
        try:
            with told(self.where):
                await connection.execute(begin.encode(), prepare=False)
        except BaseException:
            await connection.close()
            raise


async def undo(connection: Connection) -> None:
    """Roll back, or close: a connection must never be handed on with a transaction on it."""
    try:
        if connection.info.transaction_status != TransactionStatus.IDLE:
            await connection.execute(b"ROLLBACK", prepare=False)
    except psycopg.Error:
        await connection.close()
    except BaseException:  # cancelled again, in the middle of this
        await connection.close()
        raise


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """PostgreSQL's errors in our five words."""
    try:
        yield
    except psycopg.Error as error:
        raise _word(error, where) from error
    except (OverflowError, UnicodeEncodeError) as error:
        raise Invalid(f"a value that the database cannot hold: {error}", where=where) from error
    except OSError as error:
        raise Unavailable(f"the database: {error.strerror or error}", where=where, next_move=LOOK) from error


def _word(error: psycopg.Error, where: str) -> PenstockError:
    state, text = error.sqlstate or "", _first_line(error)
    if state == "42501":
        move = "GRANT USAGE, CREATE ON SCHEMA … TO the user in PENSTOCK_STORE"
        return Refused(text, where=where, next_move=move)
    if state.startswith(_ENDED) or (not state and isinstance(error, _CONNECTION)):
        return _Lost(f"the connection was lost: {text}", where=where, next_move=LOOK)
    if state:
        word = WORDS.get(state[:2], Broken)
        return word(
            f"the database: {text}", where=where, next_move=MOVES.get(state, MOVES.get(state[:2], ""))
        )
    if isinstance(error, psycopg.DataError):
        return Invalid(f"a value that the database cannot hold: {text}", where=where)
    if where == "PENSTOCK_STORE":
        return Invalid(text, where=where, next_move="postgresql://USER@HOST:PORT/DATABASE")
    return Broken(f"the database: {text}", where=where)


def _first_line(error: psycopg.Error) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
