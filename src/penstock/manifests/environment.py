"""A container's environment to ``environment`` and ``calls`` of ``penstock.yaml``.

Called by `pods`. A secret's value is never read, and what looks like one is never written: the file that is
made belongs in a repository.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from penstock.manifests.draft import Draft
from penstock.manifests.place import Place

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
SECRET = re.compile(
    r"(?i)(^|_)(password|passwd|pwd|secret|token|api_?key|private_?key|access_?key|credentials?|dsn)(_|$)"
)
#: An address with a password in it.
LOGIN = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
GIVE = "give it a value in environments/production.yaml of the organisation's repository"
ASIDE = "it is not set"


def set_environment(draft: Draft, one: Place, configs: Mapping[str, Place], hosts: Mapping[str, str]) -> None:
    """The variables of the container *one*; *configs* by name, *hosts* say which service a host is."""
    for entry in one.at("env").each():
        name = entry.at("name").text()
        if not NAME.fullmatch(name):
            draft.lost(entry, f"{name[:40]!r} is no name of a variable that Penstock sets", "rename it")
        elif name == "PORT":
            draft.lost(entry, "PORT is set for each copy", "have the program listen on 127.0.0.1:$PORT")
        elif entry.at("valueFrom"):
            _from(draft, name, entry, configs)
        else:
            _literal(draft, name, entry, hosts)
    for source in one.at("envFrom").each():
        _all_of(draft, source, configs)


def _literal(draft: Draft, name: str, entry: Place, hosts: Mapping[str, str]) -> None:
    value = entry.at("value").text()
    callee = hosts.get(_host(value), "")
    if callee and callee != draft.service:
        calls = [*draft.fields.get("calls", ()), callee]
        draft.fields["calls"] = sorted(set(calls))
        draft.sources["calls"] = f"{entry.where} {entry.path}"
        told = f"{callee.upper().replace('-', '_')}_URL"
        if name == told:
            entry.done()  # set for each copy, because it calls that service
        else:
            what = f"the address of {callee}, which a copy finds in {told}"
            draft.lost(entry, what, f"read {told} in the program")
    elif _secret(name, value):
        _set(draft, name, {"type": "string", "secret": True}, entry)
        draft.lost(entry, f"the value of {name}, which looks like a secret: no repository's business", GIVE)
    elif "$(" in value:
        draft.lost(entry, f"{name} is put together of others, and {ASIDE}", "put it together in the program")
    else:
        _set(draft, name, {"type": "string", "default": value}, entry)


def _from(draft: Draft, name: str, entry: Place, configs: Mapping[str, Place]) -> None:
    secret, config = entry.at("valueFrom.secretKeyRef"), entry.at("valueFrom.configMapKeyRef")
    if secret:
        _set(draft, name, {"type": "string", "secret": True}, entry)
        draft.lost(entry, f"the value of {name}, which is in the Secret {secret.at('name').shown()}", GIVE)
    elif config:
        key = config.at("key").text()
        data = configs.get(config.at("name").text())
        found = data.named().get(key) if data else None
        _config(draft, name, entry, found)
    else:
        what = f"{name} comes from what only a cluster knows, and {ASIDE}"
        draft.lost(entry, what, "a constant: environment; the port: PORT; otherwise leave it out")


def _config(draft: Draft, name: str, entry: Place, found: Place | None) -> None:
    if found is not None:
        hidden = _secret(name, found.text())
        value = {"secret": True} if hidden else {"default": found.text()}
        _set(draft, name, {"type": "string", **value}, entry)
        if hidden:
            draft.lost(found, f"the value of {name}, which looks like a secret", GIVE)
        entry.done()
        return
    _set(draft, name, {"type": "string"}, entry)
    draft.lost(entry, f"the value of {name}: its ConfigMap is not among the files", GIVE)


def _all_of(draft: Draft, source: Place, configs: Mapping[str, Place]) -> None:
    """``envFrom``: every key of a ConfigMap is a variable."""
    named = source.at("configMapRef.name").text()
    data = configs.get(named)
    if data is None:
        kind = "ConfigMap" if named else "Secret"
        what = f"variables of a {kind} whose keys are not known here"
        draft.lost(source, what, "name each under environment: (secret: true for those of a Secret)")
        return
    prefix = source.at("prefix").text()
    for key, value in data.named().items():
        if NAME.fullmatch(prefix + key) and prefix + key != "PORT":
            _config(draft, prefix + key, source, value)
        else:
            draft.lost(value, f"{key[:40]!r} is no name of a variable that Penstock sets", "rename it")


def _set(draft: Draft, name: str, variable: dict[str, object], entry: Place) -> None:
    draft.fields.setdefault("environment", {}).setdefault(name, variable)
    draft.sources.setdefault(f"environment.{name}", f"{entry.where} {entry.path}")
    entry.at("name").done()


def _secret(name: str, value: str) -> bool:
    """Whether a value looks like one that must not be in a repository."""
    return bool(SECRET.search(name) or LOGIN.search(value))


def _host(value: str) -> str:
    """The host of an address over HTTP; "" if it is none."""
    try:
        found = urlsplit(value)
        return (found.hostname or "") if found.scheme in ("http", "https") else ""
    except ValueError:
        return ""
