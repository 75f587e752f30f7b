"""Words that no process can be given, and that a sandbox would take for its own settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config import environment_data, load_service
from penstock.core.workload import Mount, Step
from penstock.errors import Invalid

#: What a sandbox that reads its settings with NUL between them would do: show the host's files.
ESCAPE = "x\0--bind\0/\0/mnt"


def test_environment_data_hold_no_nul(tmp_path: Path) -> None:
    text = 'service: shop\nenvironment:\n  GREETING: {default: "hello"}\n'
    (tmp_path / "penstock.yaml").write_text(text)
    config = load_service(tmp_path, "shop")
    assert environment_data(config, "production", {"GREETING": "grüße\n"}).values
    with pytest.raises(Invalid, match="GREETING holds NUL"):
        environment_data(config, "production", {"GREETING": ESCAPE})


def test_nor_do_the_defaults_of_a_repository(tmp_path: Path) -> None:
    text = 'service: shop\nenvironment:\n  GREETING: {default: "x\\0--bind\\0/\\0/mnt"}\n'
    (tmp_path / "penstock.yaml").write_text(text)
    with pytest.raises(Invalid, match="GREETING holds NUL"):
        environment_data(load_service(tmp_path, "shop"), "production", {})


@pytest.mark.parametrize("name", ['"A\\0--bind\\0/\\0/mnt"', '""', "A=B"])
def test_nor_do_its_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "penstock.yaml").write_text(f"service: shop\nenvironment:\n  {name}: {{default: x}}\n")
    with pytest.raises(Invalid, match="name of a variable"):
        environment_data(load_service(tmp_path, "shop"), "production", {})


@pytest.mark.parametrize("env", [{"A": ESCAPE}, {ESCAPE: "a"}, {"": "a"}, {"A=B": "a"}])
def test_no_step_is_given_such_a_variable(env: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        Step(argv=("/bin/true",), cwd="/", env=env)


def test_nor_such_a_word_anywhere_else() -> None:
    assert Step(argv=("/bin/echo", ""), cwd="/", mounts=(Mount("/a", "/b"),), env={"A": ""})
    for bad in (
        {"argv": ("/bin/echo", ESCAPE), "cwd": "/"},
        {"argv": ("/bin/echo",), "cwd": ESCAPE},
        {"argv": ("/bin/echo",), "cwd": "/", "mounts": (Mount(ESCAPE, "/b"),)},
        {"argv": ("/bin/echo",), "cwd": "/", "mounts": (Mount("/a", ESCAPE),)},
    ):
        with pytest.raises(Invalid, match="NUL"):
            Step(**bad)  # type: ignore[arg-type]
