"""Asks one repository of a registry, within bounds, and logs in where it wants that.

Called by `driver` for one push. Who may see what: our login goes to the registry and to whom it names for
tokens, the token to the registry alone, and neither where somebody on the way could read it. An upload or a
redirect may lead elsewhere: nobody is told there who we are.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from penstock.adapters.registry.failures import Answer, failure, silence, strange
from penstock.adapters.registry.login import Login, challenges, kept
from penstock.adapters.registry.place import Place, keeps_secrets
from penstock.adapters.registry.stored import Blob
from penstock.errors import Invalid, PenstockError, Refused

SECONDS = 30.0
#: A body gets more time, by its size; slower than so many bytes a second is taken for stuck.
SLOWEST = 500_000
MAX_ANSWER = 64 * 1024
MOST_HOPS = 3
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Asked:
    method: str
    url: httpx.URL
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | Blob = b""

    @property
    def size(self) -> int:
        return self.content.size if isinstance(self.content, Blob) else len(self.content)


@dataclass(frozen=True)
class Door:
    """How we get in: the file with passwords, and the ``Authorization`` that was good last, by repository."""

    file: Path | None = None
    good: dict[str, str] = field(default_factory=dict, repr=False)


class Asker:
    def __init__(self, http: httpx.AsyncClient, place: Place, repository: str, door: Door) -> None:
        self.where = f"{place.host}/{repository}"
        self._http = http
        self._place = place
        self._repository = repository
        self._door = door
        #: What nobody may read in an error, should the other side repeat it.
        self._secrets: set[str] = set()

    def url(self, path: str) -> httpx.URL:
        """Of something in the repository: ``manifests/…``, ``blobs/…``."""
        return self._place.origin.join(f"/v2/{self._repository}/{path}")

    async def ask(self, asked: Asked) -> Answer:
        """Its answer, whatever it is. A HEAD may be answered elsewhere; nothing else is led away."""
        for _ in range(MOST_HOPS):
            answer = await self._admitted(asked)
            goal = answer.headers.get("location", "")
            if asked.method != "HEAD" or not 300 <= answer.status < 400 or not goal:
                return answer
            asked = replace(asked, url=self.joined(asked.url, goal))
        raise strange("it leads from one place to the next", self.where)

    def joined(self, url: httpx.URL, goal: str) -> httpx.URL:
        """Where *goal* leads from *url*. What is sent under TLS does not go on without."""
        try:
            found = url.join(goal)
        except (httpx.InvalidURL, ValueError) as error:  # the latter of the standard library
            raise strange(f"it leads to no URL: {error}", self.where) from error
        if url.scheme == "https" and found.scheme != "https":
            raise Refused(
                f"the registry leads from https to {found.scheme}://{found.host}",
                where=self.where,
                next_move="let the proxy before it say X-Forwarded-Proto: https",
            )
        return found

    def failure(self, answer: Answer) -> PenstockError:
        return failure(answer, self.where)

    async def _admitted(self, asked: Asked) -> Answer:
        """Asked again after a new login, where the registry wants one."""
        if not self._is_ours(asked.url):
            return await self._once(asked)
        answer = await self._once(asked, self._door.good.get(self._repository, ""))
        if answer.status != 401:
            return answer
        good = await self._login(answer)
        answer = await self._once(asked, good)
        if answer.status != 401:
            self._door.good[self._repository] = good
        return answer

    def _is_ours(self, url: httpx.URL) -> bool:
        origin = self._place.origin
        return (url.scheme, url.host, url.port) == (origin.scheme, origin.host, origin.port)

    async def _login(self, answer: Answer) -> str:
        """The value of ``Authorization`` that the registry asks for."""
        login = kept(self._door.file, self._place.host, self._repository)
        if login is None:
            self._door.good.pop(self._repository, None)
        elif not keeps_secrets(self._place.origin):
            move = "give the registry TLS; without it, `auth` only goes to this machine"
            raise Invalid("a password is not sent without TLS", where=self.where, next_move=move)
        else:
            self._secrets |= {login.password, login.basic.removeprefix("Basic ")}
        offered = challenges(answer.headers.get_list("www-authenticate"))
        if "bearer" in offered:
            return f"Bearer {await self._token(offered['bearer'], login)}"
        if login and "basic" in offered:
            return login.basic
        raise self.failure(answer)

    async def _token(self, given: Mapping[str, str], login: Login | None) -> str:
        realm = self._realm(given.get("realm", ""))
        query = {"scope": f"repository:{self._repository}:pull,push", "client_id": "penstock"}
        query |= {"service": given["service"]} if "service" in given else {}
        asked = Asked("GET", realm.copy_merge_params(query))
        answer = await self._once(asked, login.basic if login else "")
        where = f"{self.where}: tokens from {realm.host}"
        if answer.status != 200:
            raise failure(answer, where)
        try:
            said = json.loads(answer.body)
            token = said.get("token") or said.get("access_token")
        except (ValueError, AttributeError, RecursionError) as error:
            raise strange("no JSON where a token should be", where) from error
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise strange("no token where one should be", where)
        self._secrets.add(token)
        return token

    def _realm(self, text: str) -> httpx.URL:
        try:
            realm = httpx.URL(text)
        except httpx.InvalidURL as error:
            raise strange(f"tokens come from no URL: {error}", self.where) from error
        if realm.scheme not in ("http", "https") or not realm.host or realm.userinfo:
            raise strange("tokens come from no URL", self.where)
        if not keeps_secrets(realm):
            move = "give it TLS: whoever reads the token on the way could push, too"
            raise Refused(f"{realm.host} hands out tokens without TLS", where=self.where, next_move=move)
        return realm

    async def _once(self, asked: Asked, authorization: str = "") -> Answer:
        seconds = SECONDS + asked.size / SLOWEST
        try:
            # The client's limit is for each part; this one is for all of it.
            async with asyncio.timeout(seconds):
                return await self._sent(asked, authorization)
        except TimeoutError as error:
            raise silence(f"not within {seconds:.0f} s", self._where(asked.url)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise silence(str(error) or type(error).__name__, self._where(asked.url)) from error

    async def _sent(self, asked: Asked, authorization: str) -> Answer:
        headers = {**asked.headers, "content-length": str(asked.size)} if asked.size else {**asked.headers}
        if authorization:
            headers["authorization"] = authorization
        content = asked.content.pieces() if isinstance(asked.content, Blob) else asked.content
        async with self._http.stream(asked.method, asked.url, headers=headers, content=content) as answer:
            body = b""
            async for part in answer.aiter_raw():
                body = (body + part)[:MAX_ANSWER]
                if len(body) == MAX_ANSWER:
                    break
        for secret in self._secrets:
            body = body.replace(secret.encode(), b"***")
        return Answer(answer.status_code, answer.headers, body)

    def _where(self, url: httpx.URL) -> str:
        return self.where if self._is_ours(url) else f"{self.where}: at {url.netloc.decode()}"
