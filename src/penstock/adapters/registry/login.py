"""What a registry wants before it lets somebody in, and the passwords that we have: both are only read here.

Called by `asking`. The file is Docker's ``config.json``, read each time it is needed, since others renew it.
Programs that it names (``credHelpers``) are not started: a worker starts nothing that it was not given.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.errors import Invalid, Unavailable

MAX_FILE = 1024 * 1024
#: Headers are somebody else's text, too.
MAX_CHALLENGE = 8192
_PARAMETER = r'[A-Za-z_-]+ *= *(?:"[^"]*"|[^\s,"]+)'
_CHALLENGE = re.compile(rf"(?<![A-Za-z])([A-Za-z]+) +({_PARAMETER}(?: *, *{_PARAMETER})*)")
#: The one registry whose name in the file is not its host.
ALIASES = {"registry-1.docker.io": "index.docker.io"}


@dataclass(frozen=True)
class Login:
    user: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def challenges(lines: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """What ``WWW-Authenticate`` offers: parameters by scheme, in small letters; the first of a scheme
    counts."""
    found: dict[str, Mapping[str, str]] = {}
    for line in lines:
        for scheme, rest in _CHALLENGE.findall(line[:MAX_CHALLENGE]):
            pairs = (part.split("=", 1) for part in re.findall(_PARAMETER, rest))
            given = {name.strip().lower(): value.strip().strip('"') for name, value in pairs}
            found.setdefault(scheme.lower(), given)
    return found


def kept(file: Path | None, host: str, repository: str) -> Login | None:
    """The login for *host* in the file; one for a path of it that *repository* begins with goes first."""
    if file is None:
        return None
    logins = _logins(file)
    host = ALIASES.get(host, host)
    parts = repository.split("/")
    for length in range(len(parts), -1, -1):
        name = "/".join((host, *parts[:length]))
        if name in logins:
            return _login(logins[name], f"{file}: auths: {name}")
    return None


def _logins(file: Path) -> dict[str, Any]:
    """By host and path, however their keys are written (``https://HOST/v1/`` is Docker's old way)."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_FILE + 1)
    except OSError as error:
        move = "name a Docker config.json that Penstock may read"
        raise Unavailable(f"cannot be read: {error.strerror}", where=str(file), next_move=move) from error
    try:
        auths = json.loads(text[:MAX_FILE]).get("auths") or {}
        return {re.sub(r"^https?://|/(v[12]/?)?$", "", name): entry for name, entry in auths.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        # Not what is wrong with it: that would repeat what stands there.
        raise Invalid("not a Docker config.json", where=str(file), next_move="docker login HOST") from error


def _login(entry: Any, where: str) -> Login:
    try:
        if text := entry.get("auth"):
            user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
        else:
            user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
            f"{user}{password}".encode()  # not all that JSON can write is Unicode
    except (AttributeError, TypeError, ValueError):
        user = password = ""
    if not user or not password:
        move = "give it `auth`, the base64 of USER:PASSWORD; helper programs are not started"
        raise Invalid("there is no user and password", where=where, next_move=move)
    return Login(user, password)
