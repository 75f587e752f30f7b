"""Finds the cluster, and who we are there: a kubeconfig, or the service account of the pod that we run in.

Called by whoever opens a `Client`. Programs that a kubeconfig wants run for a token (``exec``) are refused: a
worker must not start what it was not given. Keys that a kubeconfig holds inline touch the disk only while
they are loaded, in a file of our own.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.cluster import Cluster
from penstock.errors import Invalid
from penstock.yamltext import plain

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LOGIN = "give the user of this context a token or a client certificate (kubectl create token NAME)"


def _nobody() -> str:
    return ""


@dataclass(frozen=True)
class Access:
    """*server* is a URL, *namespace* what the context names. *token* is asked for each call: it may be
    renewed on disk. *tls* is None for a server without TLS."""

    server: str
    namespace: str = "default"
    tls: ssl.SSLContext | None = None
    token: Callable[[], str] = _nobody

    @staticmethod
    def of(cluster: Cluster) -> Access:
        """As the file of an installation says; what it leaves out is the environment's."""
        named = [Path(cluster.kubeconfig)] if cluster.kubeconfig else []
        found = Access.of_files(named, cluster.context) if named else Access.of_environment()
        return replace(found, namespace=cluster.namespace or found.namespace)

    @staticmethod
    def of_environment(environ: Mapping[str, str] = os.environ, account: Path = ACCOUNT) -> Access:
        """What ``KUBECONFIG`` names, or the pod's service account, or ``~/.kube/config``; `Invalid` if none
        is."""
        if named := environ.get("KUBECONFIG"):
            return Access.of_files([Path(part) for part in named.split(os.pathsep) if part])
        if environ.get("KUBERNETES_SERVICE_HOST") and (account / "token").exists():
            return _in_cluster(environ, account)
        usual = Path(environ.get("HOME", "/nonexistent")) / ".kube" / "config"
        if usual.exists():
            return Access.of_files([usual])
        raise Invalid(
            "no Kubernetes cluster is named", where="KUBECONFIG", next_move="export KUBECONFIG=FILE"
        )

    @staticmethod
    def of_files(paths: Sequence[Path], context: str = "") -> Access:
        """The current (or the named) *context* of kubeconfig files; the first that names a thing has it."""
        found = [_read(path) for path in paths]
        where = os.pathsep.join(str(path) for path in paths)
        name = context or next((str(c["current-context"]) for c in found if c.get("current-context")), "")
        if not name:
            raise Invalid("no context is chosen", where=where, next_move="kubectl config use-context NAME")
        chosen = _named(found, "contexts", "context", name, where)
        cluster = _named(found, "clusters", "cluster", str(chosen.get("cluster", "")), where)
        user = (
            _named(found, "users", "user", str(chosen.get("user", "")), where) if chosen.get("user") else {}
        )
        server = str(cluster.get("server", ""))
        if not server.startswith(("https://", "http://")):
            raise Invalid(f"not the URL of a server: {server!r}", where=f"{where}: {name}")
        base = paths[0].parent
        tls = _tls(cluster, user, base, where) if server.startswith("https://") else None
        token = _token(user, base, f"{where}: user {chosen.get('user')}")
        return Access(server.rstrip("/"), str(chosen.get("namespace") or "default"), tls, token)


def _in_cluster(environ: Mapping[str, str], account: Path) -> Access:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    name = f"[{host}]" if ":" in host else host
    try:
        namespace = (account / "namespace").read_text().strip() or "default"
        tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
    except OSError as error:
        raise Invalid(f"the account of this pod cannot be used: {error}", where=str(account)) from error
    return Access(f"https://{name}:{port}", namespace, tls, lambda: (account / "token").read_text().strip())


def _read(path: Path) -> dict[str, Any]:
    try:
        value = plain(path.read_bytes(), str(path))
    except OSError as error:
        raise Invalid(f"cannot read the kubeconfig: {error.strerror}", where=str(path)) from error
    except Invalid as error:
        raise Invalid("the kubeconfig is not YAML", where=error.where) from error
    if not isinstance(value, dict):
        raise Invalid("the kubeconfig is not a mapping", where=str(path))
    return value


def _named(found: Sequence[dict[str, Any]], many: str, one: str, name: str, where: str) -> dict[str, Any]:
    known: list[str] = []
    for config in found:
        listed = config.get(many)
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, dict):
                known.append(str(entry.get("name", "")))
                if known[-1] == name:
                    value = entry.get(one)
                    return value if isinstance(value, dict) else {}
    raise Invalid(f"no {one} is called {name!r}; known: {', '.join(known) or 'none'}", where=where)


def _token(user: dict[str, Any], base: Path, where: str) -> Callable[[], str]:
    for key in ("exec", "auth-provider"):
        if user.get(key):
            raise Invalid(f"{key}: a program would have to be run for a token", where=where, next_move=LOGIN)
    if user.get("username"):
        raise Invalid("clusters take no passwords any more", where=where, next_move=LOGIN)
    if file := user.get("tokenFile"):
        path = base / str(file)
        return lambda: path.read_text().strip()
    token = str(user.get("token") or "")
    return lambda: token


def _tls(cluster: dict[str, Any], user: dict[str, Any], base: Path, where: str) -> ssl.SSLContext:
    try:
        return _context(cluster, user, base, where)
    except (OSError, ValueError) as error:
        raise Invalid(f"a certificate or key cannot be used: {error}", where=where) from error


def _context(cluster: dict[str, Any], user: dict[str, Any], base: Path, where: str) -> ssl.SSLContext:
    trusted = _pem(cluster, "certificate-authority", base)
    context = ssl.create_default_context(cadata=trusted.decode() if trusted else None)
    if cluster.get("insecure-skip-tls-verify"):
        raise Invalid(
            "insecure-skip-tls-verify: whoever is in between could deliver instead of us",
            where=where,
            next_move="name the cluster's certificate-authority",
        )
    certificate, key = _pem(user, "client-certificate", base), _pem(user, "client-key", base)
    if certificate and key:
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:  # readable for us alone
            pair = Path(folder) / "pair.pem"
            pair.write_bytes(certificate + b"\n" + key)
            context.load_cert_chain(pair)
    return context


def _pem(section: dict[str, Any], name: str, base: Path) -> bytes:
    """Given inline (base64) or as a file beside the kubeconfig."""
    if inline := section.get(f"{name}-data"):
        return base64.b64decode(str(inline), validate=True)
    return (base / str(section[name])).read_bytes() if section.get(name) else b""
