"""The `Source` port over real repositories, friendly and hostile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from building import Repository

from penstock.adapters.git import Git
from penstock.errors import Invalid, PenstockError, Unavailable


@pytest.fixture
def git(tmp_path: Path) -> Git:
    return Git(tmp_path / "cache")


async def test_resolves_what_a_commit_says_of_itself(git: Git, repository: Repository) -> None:
    message = "Faster search\n\nReviewed-by: Eve <eve@example.org>\nRefs: SHOP-12, SHOP-13\nCloses: #4\n"
    commit = repository.commit({"app.py": "pass\n"}, message)
    found = await git.resolve(str(repository.path), "")
    assert found.revision == commit
    assert found.tree_digest == repository.git("rev-parse", "HEAD^{tree}")
    assert (found.author, found.title) == ("Ada <ada@example.org>", "Faster search")
    assert (found.authored_at, found.committed_epoch) == ("2023-11-15T00:13:20+02:00", 1_700_000_000)
    assert found.reviewers == ("Eve <eve@example.org>",)
    assert found.work_items == ("SHOP-12", "SHOP-13", "#4")


async def test_a_long_name_does_not_hide_its_address(git: Git, repository: Repository) -> None:
    """Who the author is follows from the address: a name that pushed it out would let them approve."""
    repository.commit({"a": "1"})
    long = f"{'N' * 500} <ada@example.org>"
    repository.git("commit", "--quiet", "--amend", "--no-edit", f"--author={long}")
    author = (await git.resolve(str(repository.path), "")).author
    assert author.endswith("N <ada@example.org>")
    assert len(author) <= 200


async def test_follows_branches_tags_commits_and_the_default_branch(git: Git, repository: Repository) -> None:
    first = repository.commit({"a": "1"})
    repository.git("tag", "v1")
    second = repository.commit({"a": "2"})
    repository.git("branch", "side", first)
    place = str(repository.path)
    for revision, commit in {"": second, "main": second, "side": first, "v1": first, first: first}.items():
        assert (await git.resolve(place, revision)).revision == commit
    assert (await git.resolve(place, "HEAD~1")).revision == first
    third = repository.commit({"a": "3"})
    assert (await git.resolve(f"file://{place}", "")).revision == third
    repository.git("branch", "--force", "side", third)
    assert (await git.resolve(place, "side")).revision == third
    repository.git("branch", "-D", "side")
    with pytest.raises(Invalid):
        await git.resolve(place, "side")


async def test_checks_out_the_bytes_of_the_commit(git: Git, repository: Repository, tmp_path: Path) -> None:
    attributes = "*.txt export-ignore text eol=crlf\nv.py export-subst\n"
    files = {
        ".gitattributes": attributes,
        "notes.txt": "one\ntwo\n",
        "v.py": "'$Format:%d$'\n",
        "run.sh": "#!\n",
    }
    (repository.path / "link").symlink_to("notes.txt")
    (repository.path / "run.sh").touch(mode=0o755)
    repository.commit(files)
    tree = tmp_path / "tree"
    tree.mkdir()
    await git.checkout(await git.resolve(str(repository.path), ""), tree)
    assert {path.name for path in tree.iterdir()} == {*files, "link"}
    assert all((tree / name).read_text() == text for name, text in files.items())
    assert (tree / "link").readlink() == Path("notes.txt")
    assert os.access(tree / "run.sh", os.X_OK)
    assert not os.access(tree / "v.py", os.X_OK)


async def test_reads_bare_shallow_and_linked_repositories(
    git: Git, repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"a": "1"})
    commit = repository.commit({"a": "2"})
    source = f"file://{repository.path}"
    repository.git("clone", "--quiet", "--depth=1", source, str(tmp_path / "shallow"))
    repository.git("clone", "--quiet", "--bare", source, str(tmp_path / "bare.git"))
    repository.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    for name in ("shallow", "bare.git", "linked"):
        found = await git.resolve(str(tmp_path / name), "")
        assert found.revision == commit
        (tmp_path / f"tree-{name}").mkdir()
        await git.checkout(found, tmp_path / f"tree-{name}")
        assert (tmp_path / f"tree-{name}/a").read_text() == "2"


async def test_checks_out_again_after_the_cache_was_deleted(repository: Repository, tmp_path: Path) -> None:
    repository.commit({"a": "1"})
    found = await Git(tmp_path / "one").resolve(str(repository.path), "")
    (tmp_path / "tree").mkdir()
    await Git(tmp_path / "two").checkout(found, tmp_path / "tree")
    assert (tmp_path / "tree/a").read_text() == "1"


@pytest.mark.parametrize(
    "links",
    [
        {"evil": "/etc/passwd"},
        {"evil": "../outside"},
        {"deep/er/up": "../..", "deep/er/evil": "up/../x"},  # each stays inside, together they do not
    ],
)
async def test_refuses_links_that_leave_the_tree(
    git: Git, repository: Repository, tmp_path: Path, links: dict[str, str]
) -> None:
    for name, target in links.items():
        (repository.path / name).parent.mkdir(parents=True, exist_ok=True)
        (repository.path / name).symlink_to(target)
    repository.commit({"a": "1"})
    found = await git.resolve(str(repository.path), "")
    (tmp_path / "tree").mkdir()
    with pytest.raises(Invalid):
        await git.checkout(found, tmp_path / "tree")


async def test_runs_nothing_of_a_hostile_repository(git: Git, repository: Repository, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for hook in ("post-checkout", "reference-transaction", "pre-auto-gc"):
        script = repository.path / ".git/hooks" / hook
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\ntouch {ran}\n")
        script.chmod(0o755)
    repository.commit({".gitattributes": "* filter=evil\n", "a": "1"})
    ran.unlink(missing_ok=True)  # our own commit ran the hook, as it may
    for name in ("core.fsmonitor", "uploadpack.packObjectsHook", "filter.evil.smudge", "core.sshCommand"):
        repository.git("config", name, f"touch {ran}; cat")
    (tmp_path / "tree").mkdir()
    await git.checkout(await git.resolve(str(repository.path), ""), tmp_path / "tree")
    assert not ran.exists()


async def test_names_what_is_wrong_and_the_next_move(
    git: Git, repository: Repository, tmp_path: Path
) -> None:
    place = str(repository.path)
    with pytest.raises(Invalid, match="no commits yet"):
        await git.resolve(place, "")
    repository.commit({"a": "1"})
    with pytest.raises(Invalid, match="'nowhere'") as unknown:
        await git.resolve(place, "nowhere")
    assert "main" in unknown.value.next_move
    with pytest.raises(Invalid, match="no such path"):
        await git.resolve(str(tmp_path / "absent"), "")
    (tmp_path / "plain").mkdir()
    with pytest.raises(Invalid, match="not a git repository"):
        await git.resolve(str(tmp_path / "plain"), "")
    with pytest.raises(Unavailable):
        await git.resolve("https://127.0.0.1:9/shop.git", "")


@pytest.mark.parametrize(
    "revision", ["--output=/tmp/x", "-h", "a b", "a\nb", "@{upstream}", "main:app.py", ":/x"]
)
async def test_a_revision_is_never_an_option(git: Git, repository: Repository, revision: str) -> None:
    repository.commit({"a": "1"})
    with pytest.raises(Invalid):
        await git.resolve(str(repository.path), revision)


@pytest.mark.parametrize(
    "location",
    ["", "--upload-pack=touch /tmp/x", "ext::sh -c id", "ftp://x/y", "https://u:secret@example.org/x"],
)
async def test_a_location_is_never_an_option_or_a_command(git: Git, location: str) -> None:
    with pytest.raises(PenstockError) as refused:
        await git.resolve(location, "")
    assert isinstance(refused.value, Invalid)
    assert "secret" not in str(refused.value)


async def test_git_missing_says_how_to_install_it(
    git: Git, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unavailable, match="not installed"):
        await git.resolve(str(repository.path), "")
