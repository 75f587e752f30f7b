"""Asks the catalog, over connections that are kept and shared between threads."""

from __future__ import annotations

import http.client
import json
import queue
import urllib.parse


class Catalog:
    def __init__(self, url: str) -> None:
        self._host = urllib.parse.urlsplit(url).netloc
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()

    def items(self) -> list[dict[str, str]]:
        """The catalog's items; `RuntimeError` if it answers anything but 200."""
        status, body = self._get("/items")
        if status != 200:
            raise RuntimeError(f"the catalog answered {status}")
        return json.loads(body)

    def _get(self, path: str) -> tuple[int, bytes]:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            return self._ask(self._connect(), path)
        try:
            return self._ask(connection, path)
        except (http.client.HTTPException, OSError):
            # A kept connection may have been closed meanwhile; reading again does no harm.
            return self._ask(self._connect(), path)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, timeout=10)

    def _ask(self, connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (http.client.HTTPException, OSError):
            connection.close()
            raise
        self._idle.put(connection)
        return response.status, body
