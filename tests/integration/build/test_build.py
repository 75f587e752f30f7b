"""Both builders in a real sandbox: what is recognised, what the image holds, and that it is reproducible."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from building import request_for, write

from penstock.adapters import _archive as archive
from penstock.adapters.build import Layout, NodeBuilder, PythonBuilder
from penstock.adapters.build.common import words_of
from penstock.config import ServiceConfig, load_service
from penstock.core.digest import digest_of, hex_of
from penstock.core.image import ABI_LABEL, REVISION_LABEL, SERVICE_LABEL, read_manifest
from penstock.core.workload import Mount, Step
from penstock.errors import Broken, Invalid
from penstock.ports import Sandbox

APP = {"app.py": "print('up')\n"}
PACKAGED = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "shop"
version = "1.0"
dependencies = ["idna==3.10"]
[project.scripts]
shop = "shop.cli:main"
other = "shop.cli:main"
""",
    "src/shop/__init__.py": "",
    "src/shop/cli.py": """\
from importlib.metadata import version
import idna
def main():
    print(idna.encode("ä.example").decode(), version("shop"))
""",
}

needs_node = pytest.mark.skipif(
    shutil.which("npm") is None and os.environ.get("CI") != "true", reason="apt install nodejs npm"
)


def unpack(store: Path, digest: str, destination: Path) -> list[tarfile.TarInfo]:
    """The image's files, written to *destination*; returns the entries as the layer has them."""
    blobs = store / "blobs/sha256"
    _, layer = read_manifest((blobs / hex_of(digest)).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress((blobs / hex_of(layer)).read_bytes()))) as tar:
        archive.unpack(tar, destination)
        return tar.getmembers()


async def run_image(sandbox: Sandbox, store: Path, digest: str, scratch: Path) -> str:
    """Start the image's command the way a platform would, and return what it printed."""
    image = Layout(store).read(digest)
    unpack(store, digest, scratch)
    step = Step(image.command, "/app", (Mount(str(scratch / "app"), "/app"),), dict(image.env), seconds=30)
    result = await sandbox.run(step, scratch / "log")
    assert result.exit_code == 0, result.tail
    return result.tail.strip()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"Procfile": "release: x\nweb: python app.py\n", "app.py": ""}, "Python, Procfile"),
        (
            {"penstock.yaml": "run: python3 -m shop\n", "requirements.txt": ""},
            "Python, run: in penstock.yaml",
        ),
        ({"pyproject.toml": "[project]\nname='x'\nscripts={go='x:main'}\n"}, "Python, [project.scripts] go"),
        ({"main.py": "", "server.py": ""}, "Python, main.py"),
        ({"penstock.yaml": "run: ./serve\n", "serve": ""}, "a command, run: in penstock.yaml"),
        ({"README.md": ""}, None),
        ({"package.json": "{}", "Procfile": "web: node x.js\n", "lint.py": ""}, None),
        ({"package.json": "{}", "penstock.yaml": "run: node x.js\n"}, None),
    ],
)
def test_recognises_python(
    sandbox: Sandbox, tmp_path: Path, files: dict[str, str], words: str | None
) -> None:
    tree = write(tmp_path / "tree", files)
    builder = PythonBuilder(sandbox, tmp_path / "store")
    assert builder.detect(tree, load_service(tree, "shop")) == words


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"pyproject.toml": "[project"}, "TOML"),
        ({"pyproject.toml": "[project]\nscripts={a='x:m', b='x:m'}\n"}, "several: a, b"),
        ({"pyproject.toml": "[project]\nscripts={a='x; evil()'}\n"}, "not a function"),
        ({"pyproject.toml": "project = 3\n"}, "must be a table"),
        ({"requirements.txt": "-r ../../etc/passwd\n", "app.py": ""}, "outside the repository"),
        ({"requirements.txt": "-r requirements.txt\n", "app.py": ""}, "includes itself"),
        ({"Procfile": "web: python 'app.py\n", "app.py": ""}, "cannot be split"),
    ],
)
def test_a_hostile_project_is_invalid(
    sandbox: Sandbox, tmp_path: Path, files: dict[str, str], complaint: str
) -> None:
    tree = write(tmp_path / "tree", files)
    with pytest.raises(Invalid, match=complaint):
        PythonBuilder(sandbox, tmp_path / "store").detect(tree, ServiceConfig(service="shop"))


async def test_says_what_to_write_if_nothing_starts_it(sandbox: Sandbox, tmp_path: Path) -> None:
    request = request_for(write(tmp_path / "tree", {"requirements.txt": ""}), tmp_path / "work")
    with pytest.raises(Invalid, match="how to start") as nothing:
        await PythonBuilder(sandbox, tmp_path / "store").build(request)
    assert "run: python3 app.py" in nothing.value.next_move


async def test_the_same_commit_gives_the_same_image_anywhere(sandbox: Sandbox, tmp_path: Path) -> None:
    digests = set()
    for number, name in enumerate(("one", "two/deeper")):
        tree = write(tmp_path / name / "tree", {**APP, "static/a b.txt": "ä\n", "tool": "#!/bin/sh\n"})
        (tree / "tool").chmod(0o700 | number)
        (tree / "link").symlink_to("app.py")
        write(tree, {"__pycache__/app.cpython-311.pyc": str(number), "x.pyc": str(number)})
        os.utime(tree / "app.py", (number, number))
        builder = PythonBuilder(sandbox, tmp_path / name / "store")
        built = await builder.build(request_for(tree, tmp_path / name / "work"))
        digests.add(built.digest)
        members = unpack(tmp_path / name / "store", built.digest, tmp_path / name / "out")
    assert len(digests) == 1
    assert built.builder.startswith("urn:penstock:builder:")
    assert (built.network, built.lock, built.isolation) == (False, {}, sandbox.isolation)
    names = [member.name for member in members]
    assert names == ["app", "app/app.py", "app/link", "app/static", "app/static/a b.txt", "app/tool"]
    assert {(m.uid, m.gid, m.uname, m.mtime) for m in members} == {(0, 0, "", 1_700_000_000)}
    assert [oct(m.mode) for m in members if m.isfile()] == ["0o644", "0o644", "0o755"]


async def test_the_digest_covers_the_configuration(sandbox: Sandbox, tmp_path: Path) -> None:
    tree = write(tmp_path / "tree", APP)
    builder = PythonBuilder(sandbox, tmp_path / "store")
    one = ServiceConfig(service="shop", replicas=1, calls=("catalog",))
    two = ServiceConfig(service="shop", replicas=2, calls=("catalog",))
    first = await builder.build(request_for(tree, tmp_path / "work", one))
    second = await builder.build(request_for(tree, tmp_path / "work", two))
    assert first.digest != second.digest
    layout = Layout(tmp_path / "store")
    image = await layout.describe(first.digest)
    assert (image.command, image.config) == (("python3", "app.py"), one)
    labels = layout.read(first.digest).labels
    assert labels[SERVICE_LABEL] == "shop"
    assert labels[ABI_LABEL].startswith("cp3")
    assert len(labels[REVISION_LABEL]) == 40


async def test_what_it_needs_of_others_travels_in_the_image(sandbox: Sandbox, tmp_path: Path) -> None:
    contracts = {"contracts/catalog.openapi.yaml": "openapi: 3.1.0\n", "contracts/other.openapi.yaml": "x"}
    tree = write(tmp_path / "tree", {**APP, **contracts})
    (tmp_path / "secret").write_text("hunter2")
    (tree / "contracts/linked.openapi.yaml").symlink_to(tmp_path / "secret")
    builder, config = PythonBuilder(sandbox, tmp_path / "store"), ServiceConfig(calls=("catalog", "linked"))
    built = await builder.build(request_for(tree, tmp_path / "work", config))
    image = await Layout(tmp_path / "store").describe(built.digest)
    assert image.contracts == {"catalog": "openapi: 3.1.0\n"}
    (tree / "contracts/catalog.openapi.yaml").write_text("x" * 300_000)
    with pytest.raises(Invalid, match="larger than"):
        await builder.build(request_for(tree, tmp_path / "work", config))


async def test_a_file_of_holes_is_refused_by_its_name(sandbox: Sandbox, tmp_path: Path) -> None:
    tree = write(tmp_path / "tree", {**APP, "data/model.bin": ""})
    os.truncate(tree / "data/model.bin", 1024**4)  # takes no room on the disk, and would in memory
    with pytest.raises(Invalid, match="most for a file of an image") as caught:
        await PythonBuilder(sandbox, tmp_path / "store").build(request_for(tree, tmp_path / "work"))
    assert caught.value.where == "data/model.bin"
    assert not (tmp_path / "store/blobs").exists()


async def test_dependencies_are_locked_once_and_run(sandbox: Sandbox, tmp_path: Path) -> None:
    """Needs the network once: a tiny dependency, and the project's own build backend."""
    tree = write(tmp_path / "tree", PACKAGED)
    builds = []
    for name in ("one", "two"):
        builder = PythonBuilder(sandbox, tmp_path / name / "store")
        builds.append(await builder.build(request_for(tree, tmp_path / name / "work")))
        if name == "one":
            shutil.copytree(tmp_path / "one/store/locks", tmp_path / "two/store/locks")
    assert builds[0].digest == builds[1].digest
    assert builds[0].lock == {"pypi/idna": "3.10"}
    assert builds[0].network
    said = await run_image(sandbox, tmp_path / "one/store", builds[0].digest, tmp_path / "out")
    assert said == "xn--4ca.example 1.0"
    assert not list((tmp_path / "out").rglob("RECORD"))


async def test_console_scripts_of_dependencies_start(sandbox: Sandbox, tmp_path: Path) -> None:
    files = {"requirements.txt": "-r more.txt\n", "more.txt": "idna==3.20 # pinned\n", "app.py": ""}
    for number, procfile in enumerate(("web: idna encode ä.example\n", "web: X=ä.example; idna encode $X\n")):
        tree = write(tmp_path / f"tree{number}", {**files, "Procfile": procfile})
        request = request_for(tree, tmp_path / f"work{number}")
        built = await PythonBuilder(sandbox, tmp_path / "store").build(request)
        said = await run_image(sandbox, tmp_path / "store", built.digest, tmp_path / f"out{number}")
        assert "xn--4ca.example" in said


def test_a_command_gets_a_shell_only_if_it_needs_one() -> None:
    assert words_of("python app.py 'a b'") == ("python3", "app.py", "a b")
    for text, run in {
        "python x.py --port $PORT": "exec env python3 x.py --port $PORT",
        "FOO=1 serve": "exec env FOO=1 serve",
        "cd api && serve": "cd api && serve",
        "exec serve $PORT": "exec serve $PORT",
    }.items():
        shell, option, command = words_of(text)
        assert (shell, option) == ("sh", "-c")
        assert command.partition("; ")[2] == run
    with pytest.raises(Invalid):
        words_of("'")


async def test_a_failing_build_shows_its_last_lines(sandbox: Sandbox, tmp_path: Path) -> None:
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    pyproject = f'{build}[project]\nname = "x"\nversion = "1"\n'
    backend = "def build_wheel(*_, **__):\n    raise SystemExit('the compiler is on holiday')\n"
    tree = write(tmp_path / "tree", {**APP, "pyproject.toml": pyproject, "backend.py": backend})
    with pytest.raises(Invalid, match="the compiler is on holiday"):
        await PythonBuilder(sandbox, tmp_path / "store").build(request_for(tree, tmp_path / "work"))
    assert not (tmp_path / "store/index.json").exists()


async def test_builds_that_end_at_once_are_all_listed(sandbox: Sandbox, tmp_path: Path) -> None:
    builder = PythonBuilder(sandbox, tmp_path / "store")
    requests = [
        request_for(write(tmp_path / f"t{n}", {"app.py": f"print({n % 3})\n"}), tmp_path / f"w{n}")
        for n in range(6)
    ]
    built = await asyncio.gather(*(builder.build(request) for request in requests))
    listed = json.loads((tmp_path / "store/index.json").read_bytes())["manifests"]
    assert {entry["digest"] for entry in listed} == {one.digest for one in built}
    assert len(listed) == 3
    assert not list((tmp_path / "store").rglob(".new-*"))


async def test_a_damaged_store_is_broken_and_heals_by_building_again(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    request = request_for(write(tmp_path / "tree", APP), tmp_path / "work")
    builder, layout = PythonBuilder(sandbox, tmp_path / "store"), Layout(tmp_path / "store")
    digest = (await builder.build(request)).digest
    (tmp_path / "store/blobs/sha256" / hex_of(digest)).write_bytes(b"{}")
    with pytest.raises(Broken):
        await layout.describe(digest)
    assert (await builder.build(request)).digest == digest
    assert (await layout.describe(digest)).command == ("python3", "app.py")
    with pytest.raises(Invalid):
        await layout.describe(digest_of("another"))


NODE_APP = {
    "package.json": json.dumps({"scripts": {"start": "node server.js --now"}}),
    "server.js": "console.log('node', process.argv[2])\n",
}


@needs_node
async def test_a_node_service_builds_without_network(sandbox: Sandbox, tmp_path: Path) -> None:
    tree = write(tmp_path / "tree", NODE_APP)
    builder = NodeBuilder(sandbox, tmp_path / "store")
    assert builder.detect(tree, ServiceConfig(service="shop")) == "Node, package.json start script"
    first = await builder.build(request_for(tree, tmp_path / "work"))
    again = await NodeBuilder(sandbox, tmp_path / "other").build(request_for(tree, tmp_path / "w2"))
    assert first.digest == again.digest
    assert (first.network, first.lock) == (False, {})
    assert (await Layout(tmp_path / "store").describe(first.digest)).command == ("node", "server.js", "--now")
    assert await run_image(sandbox, tmp_path / "store", first.digest, tmp_path / "out") == "node --now"


@needs_node
async def test_a_node_service_with_a_dependency(sandbox: Sandbox, tmp_path: Path) -> None:
    """Needs the network once: one package without dependencies of its own."""
    package = {"scripts": {"start": "FOO=1 semver 1.2.3"}, "dependencies": {"semver": "^7.0.0"}}
    tree = write(tmp_path / "tree", {"package.json": json.dumps(package)})
    builder = NodeBuilder(sandbox, tmp_path / "store")
    first = await builder.build(request_for(tree, tmp_path / "one"))
    second = await builder.build(request_for(tree, tmp_path / "two"))
    assert first.digest == second.digest
    assert first.network
    assert list(first.lock) == ["npm/semver"]
    assert await run_image(sandbox, tmp_path / "store", first.digest, tmp_path / "out") == "1.2.3"


PLANTS = "const fs = require('fs'); fs.rmSync('package-lock.json'); fs.symlinkSync(%s, 'package-lock.json')"


@needs_node
async def test_a_lock_that_an_install_script_planted_is_not_read(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"packages": {"node_modules/hunter2": {"version": "1"}}}))
    scripts = {"start": "node server.js", "postinstall": "node plant.js"}
    package = {"scripts": scripts, "dependencies": {"dep": "file:dep"}}
    files = {
        "package.json": json.dumps(package),
        "plant.js": PLANTS % json.dumps(str(secret)),
        "dep/package.json": json.dumps({"name": "dep", "version": "1.0.0"}),
    }
    request = request_for(write(tmp_path / "tree", files), tmp_path / "work")
    built = await NodeBuilder(sandbox, tmp_path / "store").build(request)
    assert (tmp_path / "work/build/source/package-lock.json").is_symlink()
    assert set(built.lock) == {"npm/dep"}


@needs_node
async def test_of_two_locks_the_one_that_npm_installs_from_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    linked = {
        "": {"dependencies": {"dep": "file:dep"}},
        "node_modules/dep": {"resolved": "dep", "link": True},
    }
    lock = {"lockfileVersion": 3, "packages": {**linked, "dep": {"version": "1.0.0"}}}
    other = {"lockfileVersion": 3, "packages": {"node_modules/other": {"version": "2.0.0"}}}
    files = {
        "package.json": json.dumps({"scripts": {"start": "node ."}, "dependencies": {"dep": "file:dep"}}),
        "npm-shrinkwrap.json": json.dumps(lock),
        "package-lock.json": json.dumps(other),
        "dep/package.json": json.dumps({"name": "dep", "version": "1.0.0"}),
    }
    request = request_for(write(tmp_path / "tree", files), tmp_path / "work")
    assert set((await NodeBuilder(sandbox, tmp_path / "store").build(request)).lock) == {"npm/dep"}


@needs_node
@pytest.mark.parametrize("text", ["[]", "{", '{"packages": 3}'])
async def test_a_lock_that_is_none(sandbox: Sandbox, tmp_path: Path, text: str) -> None:
    package = {"scripts": {"start": "node server.js"}, "dependencies": {"dep": "file:dep"}}
    files = {"package.json": json.dumps(package), "package-lock.json": text}
    with pytest.raises(Invalid, match=r"package-lock\.json: not a lock of npm"):
        await NodeBuilder(sandbox, tmp_path / "store").build(
            request_for(write(tmp_path / "tree", files), tmp_path / "work")
        )


@pytest.mark.parametrize("text", ["[]", "{", '{"scripts": 3}', "{}"])
def test_a_package_json_that_starts_nothing(sandbox: Sandbox, tmp_path: Path, text: str) -> None:
    tree = write(tmp_path / "tree", {"package.json": text})
    builder = NodeBuilder(sandbox, tmp_path / "store")
    if text in ("[]", "{"):
        with pytest.raises(Invalid):
            builder.detect(tree, ServiceConfig())
    else:
        assert builder.detect(tree, ServiceConfig()) is None
