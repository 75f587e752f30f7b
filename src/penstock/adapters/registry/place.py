"""Where images go, and under which name nodes pull them. Pure.

Called by `driver`. A name that a node would read otherwise than we mean it is refused before anything is
pushed.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

import httpx

from penstock.errors import Invalid

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(_PART)
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")
#: As long as a registry must take them.
MAX_NAME = 255


@dataclass(frozen=True)
class Place:
    """*origin* is scheme, host and port of the registry, *prefix* the path before each service ("" for none),
    *pull* the same as nodes write it: host and path, without a scheme."""

    origin: httpx.URL
    prefix: str
    pull: str

    @staticmethod
    def of(push: str, pull: str = "") -> Place:
        """*push* is a URL; without *pull*, nodes pull from there too. `Invalid` if either is none."""
        try:
            url = httpx.URL(push)
        except httpx.InvalidURL as error:
            raise Invalid(f"not a URL: {error}", where="images: push") from error
        if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 80) < 65536:
            move = "write it as https://HOST/PATH"
            raise Invalid("a registry has an http or https URL", where="images: push", next_move=move)
        if url.userinfo or url.query or url.fragment:
            # Not repeated: it may hold a password, and settings are shown.
            move = "a password belongs into a Docker config.json, named by `auth`"
            raise Invalid("a URL and nothing else", where="images: push", next_move=move)
        prefix = url.path.strip("/")
        if prefix and not _PATH.fullmatch(prefix):
            move = "use lower-case letters, digits, '.', '_', '-' and '/'"
            raise Invalid(f"{prefix!r} cannot be a name in a registry", where="images: push", next_move=move)
        origin = url.copy_with(path="/")
        return Place(
            origin, prefix, _pulled(pull.rstrip("/") or f"{url.netloc.decode()}/{prefix}".rstrip("/"))
        )

    @property
    def host(self) -> str:
        """With its port, if that is not the scheme's own."""
        return self.origin.netloc.decode()

    def repository(self, service: str) -> str:
        """Its name in the registry. `Invalid` if it cannot be one."""
        name = f"{self.prefix}/{service}" if self.prefix else service
        if not _NAME.fullmatch(service) or len(name) > MAX_NAME:
            move = f"use lower-case letters, digits and '-', {MAX_NAME} in all"
            raise Invalid(f"{name!r} cannot be a name in a registry", where=self.host, next_move=move)
        return name

    def reference(self, service: str, artifact: str) -> str:
        return f"{self.pull}/{service}@{artifact}"


def keeps_secrets(url: httpx.URL) -> bool:
    """Whether nobody on the way can read what is sent there."""
    return url.scheme == "https" or is_loopback(url.host)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pulled(prefix: str) -> str:
    host, _, path = prefix.partition("/")
    if not _HOST.fullmatch(host) or (path and not _PATH.fullmatch(path)):
        move = "write it as HOST/PATH, without a scheme"
        raise Invalid(
            f"not a name that nodes can pull: {prefix[:80]!r}", where="images: pull", next_move=move
        )
    if host != "localhost" and not re.search(r"[.:]", host):
        # Container runtimes take it for a folder of Docker Hub.
        move = f"write {host}:443/{path}, or its full name"
        raise Invalid(f"nodes do not take {host!r} for a host", where="images: pull", next_move=move)
    return prefix
