"""Signed commits and the commit behind a path, over real repositories."""

from __future__ import annotations

from pathlib import Path

import pytest
from building import Repository

from penstock.adapters.git import Git
from penstock.core import sshsig
from penstock.errors import Invalid
from sshkeys import make_key


@pytest.fixture
def git(tmp_path: Path) -> Git:
    return Git(tmp_path / "cache")


def sign_with(repository: Repository, key: Path) -> str:
    """From now on commits are signed; the key in hex."""
    repository.git("config", "gpg.format", "ssh")
    repository.git("config", "user.signingkey", str(key))
    repository.git("config", "commit.gpgsign", "true")
    line = key.with_suffix(".pub").read_text()
    return sshsig.parse_public_key(line).hex() if line.startswith(sshsig.ED25519) else ""


def rewrite(repository: Repository, old: bytes, new: bytes) -> str:
    """A commit object like HEAD's but for these bytes, made the new HEAD."""
    raw = repository.git("cat-file", "commit", "HEAD").encode() + b"\n"
    assert old in raw
    file = repository.path.parent / "object"
    file.write_bytes(raw.replace(old, new, 1))
    commit = repository.git("hash-object", "-t", "commit", "-w", str(file))
    repository.git("update-ref", "HEAD", commit)
    return commit


@pytest.mark.parametrize("ids", ["sha1", "sha256"])
async def test_says_whose_key_signed_a_commit(git: Git, tmp_path: Path, ids: str) -> None:
    (tmp_path / ids).mkdir()
    repository = Repository(tmp_path / ids)
    repository.git("init", "--quiet", "--initial-branch=main", f"--object-format={ids}")
    place = str(repository.path)
    repository.commit({"a": "1"})
    assert (await git.resolve(place, "")).signing_key == ""
    key = sign_with(repository, make_key(tmp_path))
    for message in ("two", "three\n\ngpgsig in a text\n\n\n", "größe"):
        commit = repository.commit({"a": message}, message)
        found = await git.resolve(place, "")
        assert (found.revision, found.signing_key) == (commit, key)
    repository.git("-c", "i18n.commitEncoding=latin1", "commit", "-q", "--allow-empty", "-m", "four")
    assert (await git.resolve(place, "")).signing_key == key


async def test_a_signature_of_another_kind_is_none(git: Git, repository: Repository, tmp_path: Path) -> None:
    sign_with(repository, make_key(tmp_path, "rsa", "rsa"))
    repository.commit({"a": "1"})
    assert "gpgsig" in repository.git("cat-file", "commit", "HEAD")
    assert (await git.resolve(str(repository.path), "")).signing_key == ""
    rewrite(repository, b"BEGIN SSH SIGNATURE", b"BEGIN PGP SIGNATURE")
    assert (await git.resolve(str(repository.path), "")).signing_key == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\n\nthe change", b"\n\nThe change"),
        (b"Ada <ada", b"Eve <eve"),
        (b"\n -----END SSH", b"AAAA\n -----END SSH"),
        (b"-----END SSH", b"-----END OTHER"),
        (b"U1NIU0lH", b"U1NIU0lI"),
        (b"gpgsig -----BEGIN", b"gpgsig x\ngpgsig -----BEGIN"),
    ],
)
async def test_a_bad_signature_is_invalid(
    git: Git, repository: Repository, tmp_path: Path, old: bytes, new: bytes
) -> None:
    sign_with(repository, make_key(tmp_path))
    repository.commit({"a": "1"}, "the change")
    commit = rewrite(repository, old, new)
    with pytest.raises(Invalid, match="signature is bad") as caught:
        await git.resolve(str(repository.path), "")
    assert commit[:12] in caught.value.where
    assert "git commit" in caught.value.next_move


async def test_a_signature_made_for_something_else_is_bad(
    git: Git, repository: Repository, tmp_path: Path
) -> None:
    sign_with(repository, make_key(tmp_path))
    program = tmp_path / "signs-for-files"
    program.write_text('#!/bin/sh\nshift 4\nexec ssh-keygen -Y sign -n file "$@"\n')
    program.chmod(0o755)
    repository.git("config", "gpg.ssh.program", str(program))
    repository.commit({"a": "1"})
    with pytest.raises(Invalid, match="'file'"):
        await git.resolve(str(repository.path), "")


# --- the commit behind a path --------------------------------------------------------------------


async def test_finds_the_last_commit_that_changed_a_path(
    git: Git, repository: Repository, tmp_path: Path
) -> None:
    key = sign_with(repository, make_key(tmp_path))
    first = repository.commit({"policies/a.yaml": "1", "b": "1"}, "first")
    repository.git("config", "commit.gpgsign", "false")
    second = repository.commit({"policies/c.yaml": "1"}, "second")
    third = repository.commit({"b": "2"}, "third")
    repository.commit({"later": "1"})
    found = await git.resolve(str(repository.path), third)
    policy = await git.touched(found, "policies/a.yaml")
    assert (policy.revision, policy.signing_key, policy.title) == (first, key, "first")
    assert (policy.location, policy.tree_digest) == (
        found.location,
        repository.git("rev-parse", f"{first}^{{tree}}"),
    )
    changed = await git.touched(found, "b")
    assert (changed.revision, changed.signing_key) == (third, "")
    assert (await git.touched(found, "policies")).revision == second
    for path in ("later", "policies/*.yaml", ":/b", "POLICIES"):
        with pytest.raises(Invalid, match="no commit changed"):
            await git.touched(found, path)


@pytest.mark.parametrize("path", ["", "/b", "../b", "a/../b", "./b", "a//b", "b/", "b\0", "b\n", "\udcff"])
async def test_what_is_no_path_is_invalid(git: Git, repository: Repository, path: str) -> None:
    repository.commit({"b": "1"})
    with pytest.raises(Invalid, match="not a path"):
        await git.touched(await git.resolve(str(repository.path), ""), path)


async def test_odd_names_are_only_names(git: Git, repository: Repository) -> None:
    names = ("--all", "a b", ":(top)x", "*", "größe", "-")
    commits = [repository.commit({name: "1"}) for name in names]
    found = await git.resolve(str(repository.path), "")
    assert [(await git.touched(found, name)).revision for name in names] == commits


async def test_a_path_that_went_away_was_changed_by_that(git: Git, repository: Repository) -> None:
    repository.commit({"a": "1", "b": "1"})
    (repository.path / "a").unlink()
    gone = repository.commit({})
    repository.commit({"b": "2"})
    found = await git.resolve(str(repository.path), "")
    assert (await git.touched(found, "a")).revision == gone


async def test_a_rename_is_a_change_whatever_the_user_set(
    git: Git, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own").write_text("[log]\n\tfollow = true\n\tshowSignature = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "own"))
    repository.commit({"a": "a long text\n" * 20})
    repository.git("mv", "a", "b")
    moved = repository.commit({})
    repository.commit({"c": "1"})
    found = await git.resolve(str(repository.path), "")
    assert (await git.touched(found, "b")).revision == moved


async def test_a_merge_leads_to_the_side_that_made_the_path(git: Git, repository: Repository) -> None:
    repository.commit({"a": "1", "b": "1"})
    repository.git("checkout", "-q", "-b", "side")
    side = repository.commit({"a": "2"})
    repository.git("checkout", "-q", "main")
    repository.commit({"b": "2"})
    repository.git("merge", "-q", "--no-ff", "-m", "merged", "side")
    found = await git.resolve(str(repository.path), "")
    assert (await git.touched(found, "a")).revision == side
    # What neither side has is the merge's own doing.
    (repository.path / "a").write_text("slipped in")
    repository.git("add", "a")
    repository.git("commit", "-q", "--amend", "--no-edit")
    found = await git.resolve(str(repository.path), "")
    assert (await git.touched(found, "a")).revision == found.revision


async def test_a_cut_history_does_not_name_the_wrong_commit(
    git: Git, repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"a": "1"})
    repository.commit({"b": "1"})
    last = repository.commit({"c": "1"})
    shallow = tmp_path / "shallow"
    repository.git("clone", "--quiet", "--depth=2", f"file://{repository.path}", str(shallow))
    found = await git.resolve(str(shallow), "")
    assert (await git.touched(found, "c")).revision == last
    with pytest.raises(Invalid, match="history ends") as caught:
        await git.touched(found, "a")
    assert "--unshallow" in caught.value.next_move


async def test_finds_it_again_after_the_cache_was_deleted(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit({"a": "1"})
    found = await Git(tmp_path / "one").resolve(str(repository.path), "")
    assert (await Git(tmp_path / "two").touched(found, "a")).revision == commit
