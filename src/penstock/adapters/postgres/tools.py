"""PostgreSQL's own client tools: copies of a schema are made by ``pg_dump`` and put back by ``pg_restore``.

Called by `store`, and found as ``penstock.restorer: postgres``. Passwords go by the environment: everybody on
the machine can read a command line.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

from psycopg.conninfo import make_conninfo

from penstock.adapters.postgres.connecting import DEFAULTS, Server, told
from penstock.errors import Conflict, Unavailable

TABLES = "SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = current_schema()"


async def run(name: str, server: Server, *options: str) -> None:
    """Run one tool on the server's database. `Unavailable` with its own words if it fails."""
    tool = shutil.which(name)
    if tool is None:
        raise Unavailable(
            f"{name.rpartition('/')[2]} is not installed",
            next_move="install PostgreSQL's client tools, of the server's version or newer",
        )
    parameters = {key: value for key, value in server.parameters.items() if key not in DEFAULTS}
    secret = {"PGPASSWORD": parameters.pop("password")} if "password" in parameters else {}
    process = await asyncio.create_subprocess_exec(
        tool,
        *("--no-owner", "--no-privileges", "--no-password", *options),
        f"--dbname={make_conninfo('', **parameters)}",
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        env={**os.environ, **secret},
    )
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        problem = said.decode(errors="replace").strip() or f"status {process.returncode}"
        raise Unavailable(
            f"{name.rpartition('/')[2]}: {problem}",
            where=server.where,
            next_move=f"use a {name.rpartition('/')[2]} of the server's version or newer",
        )


def exactly(name: str) -> str:
    """A pattern of the tools that matches this name and no other."""
    return '"' + name.replace('"', '""') + '"'


class PostgresRestorer:
    """Into the first schema of the URL's search path, which must be empty and called as it was."""

    def __init__(self, url: str, pg_restore: str = "pg_restore") -> None:
        self._server = Server(url)
        self._pg_restore = pg_restore

    async def vacant(self) -> None:
        schema, tables = await self._look()
        if tables:
            raise Conflict(
                f"the schema {schema} has tables already: {', '.join(tables[:3])}",
                where=self._server.where,
                next_move=f"restore into an empty one: another database, or DROP SCHEMA {schema} CASCADE; "
                f"CREATE SCHEMA {schema}",
            )

    async def restore(self, copy: Path) -> None:
        schema, _ = await self._look()
        await run(
            self._pg_restore,
            self._server,
            *("--single-transaction", "--exit-on-error", f"--schema={schema}", str(copy)),
        )
        if not (await self._look())[1]:
            raise Conflict(
                f"the copy holds nothing of a schema called {schema}",
                where=self._server.where,
                next_move="name the schema as it was: options=-csearch_path%3DNAME in PENSTOCK_STORE",
            )

    async def clear(self) -> None:
        _, tables = await self._look()
        connection = await self._server.connect()
        try:
            for table in tables:
                with told(self._server.where):
                    await connection.execute(f"DROP TABLE {exactly(table)} CASCADE".encode())
        finally:
            await connection.close()

    async def _look(self) -> tuple[str, list[str]]:
        """The schema's name, and its tables."""
        connection = await self._server.connect()
        try:
            with told(self._server.where):
                names = await (await connection.execute(b"SELECT current_schema()::text")).fetchall()
                rows = await (await connection.execute(TABLES.encode())).fetchall()
        finally:
            await connection.close()
        return str(names[0][0]), [str(name) for (name,) in rows]
