"""Who we are in a cluster, from a kubeconfig or the pod that we run in; what is wrong with one says so."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.adapters._kubernetes import Access
from penstock.errors import Invalid


def config(folder: Path, **changes: Any) -> Path:
    """A kubeconfig; *changes* are of its user, cluster and context, or of the whole."""
    context = {"cluster": "c", "user": "u", **changes.pop("context", {})}
    cluster = {"server": "http://127.0.0.1:1", **changes.pop("cluster", {})}
    value = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": context}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": changes.pop("user", {"token": "sesame"})}],
        **changes,
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(value))
    return path


def test_the_current_context_is_taken(tmp_path: Path) -> None:
    found = Access.of_files([config(tmp_path, context={"namespace": "shop"})])
    assert (found.server, found.namespace, found.token()) == ("http://127.0.0.1:1", "shop", "sesame")


def test_a_token_in_a_file_is_read_each_time(tmp_path: Path) -> None:
    found = Access.of_files([config(tmp_path, user={"tokenFile": "token"})])
    for token in ("one", "two"):
        (tmp_path / "token").write_text(f"{token}\n")
        assert found.token() == token


def test_of_several_files_the_first_that_names_a_thing_has_it(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    first, second = config(tmp_path, users=[]), config(other, user={"token": "of the second"})
    assert Access.of_files([first, second]).token() == "of the second"


def test_in_a_pod_its_account_is_used(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("mine")
    (tmp_path / "namespace").write_text("shop")
    (tmp_path / "ca.crt").write_text("not a certificate")
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    with pytest.raises(Invalid, match="the account of this pod cannot be used"):
        Access.of_environment(environ, tmp_path)
    with pytest.raises(Invalid, match="export KUBECONFIG=FILE"):
        Access.of_environment({}, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"user": {"exec": {"command": "aws"}}}, "a program would have to be run for a token"),
        ({"user": {"auth-provider": {"name": "gcp"}}}, "a program would have to be run for a token"),
        ({"user": {"username": "admin", "password": "x"}}, "no passwords"),
        ({"cluster": {"server": "127.0.0.1"}}, "not the URL of a server: '127.0.0.1'"),
        ({"cluster": {"server": "https://c", "insecure-skip-tls-verify": True}}, "whoever is in between"),
        ({"cluster": {"server": "https://c", "certificate-authority-data": "?"}}, "cannot be used"),
        ({"cluster": {"server": "https://c", "certificate-authority": "gone.crt"}}, "cannot be used"),
        ({"context": {"user": "nobody"}}, "no user is called 'nobody'; known: u"),
        ({"current-context": "there"}, "no context is called 'there'; known: here"),
        ({"current-context": ""}, "no context is chosen"),
        ({"clusters": 7}, "no cluster is called 'c'; known: none"),
    ],
)
def test_what_is_wrong_says_so(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = config(tmp_path, **changes)
    with pytest.raises(Invalid) as caught:
        Access.of_files([path])
    assert said in str(caught.value)
    assert str(path) in caught.value.where


@pytest.mark.parametrize("text", ["", "- a list", "{"])
def test_what_is_no_kubeconfig_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(Invalid, match="kubeconfig"):
        Access.of_files([path])
    with pytest.raises(Invalid, match="cannot read"):
        Access.of_files([tmp_path / "gone"])


def test_a_key_that_is_given_inline_is_not_left_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    inline = base64.b64encode(b"not a key").decode()
    user = {"client-certificate-data": inline, "client-key-data": inline}
    with pytest.raises(Invalid, match="cannot be used"):
        Access.of_files([config(tmp_path, user=user, cluster={"server": "https://c"})])
    assert list((tmp_path / "scratch").iterdir()) == []
