"""Parsers of what says how to get into a cluster or a registry: files, and what a registry asks for."""

from __future__ import annotations

from fuzz.parsers import folder
from penstock.adapters._kubernetes.access import Access
from penstock.adapters.registry.login import challenges, kept
from penstock.errors import Invalid


def kubeconfig(data: bytes) -> None:
    with folder() as place:
        file = place / "config"
        file.write_bytes(data)
        found = Access.of_files([file])
        assert found.server.startswith(("https://", "http://"))
        assert (found.tls is None) == found.server.startswith("http://"), "it says https, and is none"


def challenge(data: bytes) -> None:
    """A ``WWW-Authenticate`` of a registry."""
    found = challenges(data.decode("latin-1").split("\n"))
    if not found:
        raise Invalid("it offers nothing")
    assert all(scheme.islower() for scheme in found)


def docker_config(data: bytes) -> None:
    """A Docker ``config.json``; its passwords are in no error."""
    with folder() as place:
        file = place / "config.json"
        file.write_bytes(data)
        login = kept(file, "registry.test", "shop/catalog")
        if login is None:
            raise Invalid("it has no login for this registry")
        assert login.user
        assert login.password
        assert login.basic.isascii()
