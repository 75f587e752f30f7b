"""The CLI's way to a server: over the data folder's socket, or to a URL with a token.

Called by every command that needs a server. A server's problem document becomes one of our five words.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx

from penstock.bootstrap.home import Home
from penstock.errors import Broken, Invalid, PenstockError, Unavailable, from_wire

SECONDS = 120.0
#: A command asks a few times and leaves; a connection kept for later is one that nobody closes.
LIMITS = httpx.Limits(max_keepalive_connections=0)


class Client:
    def __init__(self, client: httpx.Client, where: str) -> None:
        self._client = client
        self._where = where

    @classmethod
    def local(cls, home: Home) -> Client:
        """Over the socket that only this user can open: it needs no token."""
        transport = httpx.HTTPTransport(uds=str(home.api_socket), verify=False, limits=LIMITS)
        client = httpx.Client(transport=transport, base_url="http://localhost", timeout=SECONDS)
        return cls(client, str(home.path))

    @classmethod
    def find(cls) -> Client:
        """``PENSTOCK_URL`` with ``PENSTOCK_TOKEN`` if set, else the local data folder's server."""
        url = os.environ.get("PENSTOCK_URL")
        home = Home.find()
        if not url and not home.api_socket.exists():
            raise Unavailable("no server answers", where=str(home.path), next_move="penstock up")
        if not url:
            return cls.local(home)
        token = os.environ.get("PENSTOCK_TOKEN", "")
        if not (token.isascii() and token.isprintable()):
            raise Invalid("this is not a token", where="PENSTOCK_TOKEN")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return cls(httpx.Client(base_url=url, headers=headers, timeout=SECONDS, limits=LIMITS), url)

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", path, params=given)

    def post(self, path: str, body: object = None) -> Any:
        return self._ask("POST", path, json=body if body is not None else {})

    def delete(self, path: str) -> Any:
        return self._ask("DELETE", path)

    def send(self, path: str, body: bytes, **query: Any) -> Any:
        """Post bytes as they are."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask("POST", path, content=body, params=given)

    def text(self, path: str, **query: Any) -> str:
        return self._send("GET", path, params=query).text

    def events(self, path: str, last: str) -> Iterator[tuple[str, str, Any]]:
        """Server-sent events after the one whose id was *last*: name ("message" if it has none), id, data."""
        headers = {"accept": "text/event-stream", "last-event-id": last}
        try:
            with self._client.stream("GET", path, headers=headers) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _problem(response, path)
                yield from _events(response.iter_lines())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"the server went away: {error}", where=self._where) from error

    def _ask(self, method: str, path: str, **arguments: Any) -> Any:
        return self._send(method, path, **arguments).json()

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._client.request(method, path, **arguments)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(
                f"no server answers: {error}", where=self._where, next_move="penstock up"
            ) from error
        if response.status_code < 400:
            return response
        raise _problem(response, path)


def _problem(response: httpx.Response, path: str) -> PenstockError:
    try:
        return from_wire(response.json())
    except ValueError:
        return Broken(f"the server answered {response.status_code}", where=path)


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str, Any]]:
    """Our own server writes one line of JSON for each event, so there is no more to put together."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
            continue
        if "data" in fields:
            yield fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"])
        fields = {}
