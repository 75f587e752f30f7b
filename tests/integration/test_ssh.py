"""Signing with the keys that people have: a real ssh-agent, ssh-keygen and OpenSSH key files."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.adapters.ed25519 import Ed25519
from penstock.adapters.ssh import MAX_MESSAGE, OpenSsh, SshAgent, SshKeygen
from penstock.core import sshsig
from penstock.core.evidence import Statement, Subject, open_envelope, pre_authentication_encoding
from penstock.core.people import By, KeyGrant
from penstock.errors import Invalid, Unavailable
from penstock.ledger.log import attest
from penstock.ledger.signatures import signed_by
from penstock.ports import Signer
from sshkeys import make_key, needs, run

PAYLOAD = pre_authentication_encoding(b"{}")


@pytest.fixture
def agent(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The socket of an ssh-agent without keys, which SSH_AUTH_SOCK names."""
    needs("ssh-agent")
    path = short_tmp / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not _listens(path):
            assert process.poll() is None
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield str(path)
    finally:
        process.terminate()
        process.wait()


def _listens(path: Path) -> bool:
    """The socket's file is there before anybody listens to it."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def public_key(path: Path) -> bytes:
    return sshsig.parse_public_key(path.with_name(path.name + ".pub").read_text())


def add(*paths: Path) -> None:
    run("ssh-add", "-q", *map(str, paths))


def fill(signer: Signer) -> None:
    """What every signer does, whatever holds its key."""
    assert signer.keyid == hashlib.sha256(signer.public_key).hexdigest()
    signature = signer.sign(PAYLOAD)
    assert signature.keyid == signer.keyid
    assert signed_by(signer.public_key, PAYLOAD, signature.value)
    assert not signed_by(signer.public_key, PAYLOAD + b" ", signature.value)
    statement = Statement(
        (Subject("ada", "sha256:" + "0" * 64),), KeyGrant(By("op"), "ada", signer.public_key.hex(), "person")
    )
    envelope = open_envelope(attest(signer, statement).raw)
    message = pre_authentication_encoding(envelope.payload)
    assert signed_by(signer.public_key, message, envelope.signature)


# --- the agent -----------------------------------------------------------------------------------


def test_signs_with_the_agents_only_key(agent: str, tmp_path: Path) -> None:
    key = make_key(tmp_path)
    add(key, make_key(tmp_path, "rsa", "rsa"))
    signer = SshAgent.load()
    assert signer.public_key == public_key(key)
    assert len(signer.sign(PAYLOAD).value) == 64
    fill(signer)


def test_chooses_by_fingerprint_or_comment(agent: str, tmp_path: Path) -> None:
    keys = [make_key(tmp_path, name) for name in ("work", "home")]
    add(*keys)
    shown = run("ssh-add", "-l").splitlines()
    for key in keys:
        (listed,) = [line.split()[1] for line in shown if f" {key.name} " in line]
        assert listed == sshsig.fingerprint(public_key(key))
        for choice in (key.name, listed):
            fill(SshAgent.load(choice))
    with pytest.raises(Invalid, match="which key") as caught:
        SshAgent.load()
    assert all(sshsig.fingerprint(public_key(key)) in caught.value.next_move for key in keys)
    assert "(work)" in caught.value.next_move
    with pytest.raises(Invalid, match="no such") as caught:
        SshAgent.load("elsewhere")
    assert "(home)" in caught.value.next_move


def test_an_ambiguous_comment_names_only_what_it_fits(agent: str, tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    add(make_key(tmp_path, "work"), make_key(tmp_path / "2", "work"), make_key(tmp_path, "home"))
    with pytest.raises(Invalid, match="2 such") as caught:
        SshAgent.load("work")
    assert "home" not in caught.value.next_move


def test_an_agent_without_such_a_key_says_what_it_has(agent: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        SshAgent.load()
    assert "ssh-add" in caught.value.next_move
    add(make_key(tmp_path, "rsa", "rsa"))
    with pytest.raises(Invalid, match="ssh-rsa"):
        SshAgent.load()


def test_a_key_that_was_taken_away_does_not_sign(agent: str, tmp_path: Path) -> None:
    add(make_key(tmp_path))
    signer = SshAgent.load()
    run("ssh-add", "-q", "-D")
    with pytest.raises(Unavailable, match="refuses"):
        signer.sign(PAYLOAD)


def test_what_could_be_a_login_is_never_signed(agent: str, tmp_path: Path) -> None:
    key = make_key(tmp_path)
    add(key)
    for signer in (SshAgent.load(), OpenSsh.load(key)):
        for payload in (b"\0\0\0\x20" + b"s" * 32, sshsig.signed_data("git", b"tree", "sha512")):
            with pytest.raises(Invalid):
                signer.sign(payload)


def test_what_the_agent_cannot_take_is_said_before_it_hangs_up(agent: str, tmp_path: Path) -> None:
    add(make_key(tmp_path))
    signer = SshAgent.load()
    fitting = b"x" * (MAX_MESSAGE - 200)
    assert signed_by(signer.public_key, fitting, signer.sign(fitting).value)
    with pytest.raises(Invalid, match="too large"):
        signer.sign(b"x" * MAX_MESSAGE)


def test_no_agent_is_unavailable_with_the_way_out(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (short_tmp / "file").touch()
    for path in ("", str(short_tmp / "gone"), str(short_tmp / "file"), "/" + "x" * 200):
        with pytest.raises(Unavailable) as caught:
            SshAgent.load(agent=path)
        assert "ssh-agent" in caught.value.next_move


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[str]:
    """A socket where every question gets the same answer, and then the line is cut."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            line, _ = server.accept()
            with line:
                line.recv(1 << 16)
                line.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield str(path)
        thread.join()


HELD = sshsig.string(sshsig.key_blob(b"k" * 32)) + sshsig.string(b"me")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff" + b"\x0c",
        b"\0\0\0\x05\x0c",
        sshsig.string(b"\x05"),
        sshsig.string(b"\x0c\xff\xff\xff\xff"),
        sshsig.string(b"\x0c\0\0\0\x02" + HELD),
        sshsig.string(b"\x0c\0\0\0\x01" + HELD[:-1]),
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_an_agent_that_talks_nonsense_is_unavailable(short_tmp: Path, answer: bytes) -> None:
    with answering(short_tmp / "agent", answer) as path, pytest.raises(Unavailable):
        SshAgent.load(agent=path)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x0e",
        b"\x0e" + sshsig.string(sshsig.string(b"ssh-rsa") + sshsig.string(b"x" * 64)),
        b"\x0e" + sshsig.string(sshsig.string(b"ssh-ed25519") + sshsig.string(b"x" * 64)),
        b"\x0e" + sshsig.string(sshsig.string(b"ssh-ed25519") + sshsig.string(b"x" * 10)),
    ],
)
def test_a_signature_that_is_none_does_not_leave_the_signer(short_tmp: Path, answer: bytes) -> None:
    key = Ed25519.create(short_tmp / "key").public_key
    with answering(short_tmp / "agent", sshsig.string(answer)) as path, pytest.raises(Unavailable):
        SshAgent(path, key).sign(PAYLOAD)


# --- ssh-keygen ----------------------------------------------------------------------------------


def test_signs_with_ssh_keygen_in_openssh_s_own_form(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    signer = SshKeygen.load(key)
    fill(signer)
    value = signer.sign(PAYLOAD).value
    (tmp_path / "signature").write_text(sshsig.armour(value))
    (tmp_path / "allowed").write_text(f"ada {key.with_suffix('.pub').read_text()}")
    check = ("ssh-keygen", "-Y", "verify", "-n", "penstock", "-I", "ada", "-f", str(tmp_path / "allowed"))
    assert "Good" in run(*check, "-s", str(tmp_path / "signature"), given=PAYLOAD)


@pytest.mark.parametrize("hash_name", sshsig.HASHES)
def test_what_openssh_writes_is_the_one_form(tmp_path: Path, hash_name: str) -> None:
    key = make_key(tmp_path)
    sign = ("ssh-keygen", "-Y", "sign", "-n", "penstock", "-O", f"hashalg={hash_name}", "-f", str(key))
    text = run(*sign, given=PAYLOAD)
    blob = sshsig.dearmour(text)
    assert sshsig.armour(blob) == text
    assert sshsig.parse(blob).hash_name == hash_name
    assert signed_by(public_key(key), PAYLOAD, blob)


def test_signs_through_the_agent_when_only_the_public_key_is_there(agent: str, tmp_path: Path) -> None:
    key = make_key(tmp_path)
    add(key)
    key.unlink()
    fill(SshKeygen.load(key.with_suffix(".pub")))


def test_a_public_key_that_is_not_there_or_another_ones(tmp_path: Path) -> None:
    key, other = make_key(tmp_path, "one"), make_key(tmp_path, "two")
    key.with_suffix(".pub").unlink()
    with pytest.raises(Unavailable) as caught:
        SshKeygen.load(key)
    assert caught.value.next_move == f"ssh-keygen -y -f {key} > {key}.pub"
    key.with_suffix(".pub").write_text(other.with_suffix(".pub").read_text())
    with pytest.raises(Invalid, match="doesn't match"):
        SshKeygen.load(key).sign(PAYLOAD)


def test_a_key_that_was_exchanged_since_it_was_loaded_does_not_sign(tmp_path: Path) -> None:
    key, other = make_key(tmp_path, "one"), make_key(tmp_path, "two")
    signer = SshKeygen.load(key)
    other.replace(key)
    other.with_suffix(".pub").replace(key.with_suffix(".pub"))
    with pytest.raises(Invalid, match="another key"):
        signer.sign(PAYLOAD)


def test_ssh_keygens_own_words_are_passed_on(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    signer = SshKeygen.load(key)
    key.write_text("nothing")
    with pytest.raises(Invalid, match=r"ssh-keygen cannot sign: \w+"):
        signer.sign(PAYLOAD)
    with pytest.raises(Invalid) as caught:
        SshKeygen.load(make_key(tmp_path, "rsa", "rsa"))
    assert caught.value.where.endswith("rsa.pub")


# --- key files -----------------------------------------------------------------------------------


def test_signs_with_a_key_file(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    signer = OpenSsh.load(key)
    assert signer.public_key == public_key(key)
    fill(signer)


def test_a_passphrase_opens_the_key_file(tmp_path: Path) -> None:
    key = make_key(tmp_path, passphrase="open sesame")
    fill(OpenSsh.load(key, b"open sesame"))
    with pytest.raises(Invalid, match="has a passphrase"):
        OpenSsh.load(key)
    with pytest.raises(Invalid, match="wrong passphrase"):
        OpenSsh.load(key, b"open barley")


LOADS: list[Callable[[Path], object]] = [Ed25519.load, OpenSsh.load]


@pytest.mark.parametrize("load", LOADS)
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, load: Callable[[Path], object]) -> None:
    key = make_key(tmp_path)
    key.chmod(0o640)
    with pytest.raises(Invalid) as caught:
        load(key)
    assert caught.value.next_move == f"chmod 600 {key}"


def test_what_is_no_ed25519_key_file_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    whole = make_key(tmp_path).read_bytes()
    for content in (b"", b"\xff", whole[:100], whole.replace(b"b3BlbnNz", b"b3BlbnNa"), b"x" * 100_000):
        path.write_bytes(content)
        with pytest.raises(Invalid):
            OpenSsh.load(path)
    with pytest.raises(Invalid, match="no passphrase"):
        OpenSsh.load(tmp_path / "id", b"unneeded")
    with pytest.raises(Invalid) as caught:
        OpenSsh.load(make_key(tmp_path, "rsa", "rsa"))
    assert "ssh-keygen -t ed25519" in caught.value.next_move
    with pytest.raises(Unavailable):
        OpenSsh.load(tmp_path / "gone")
