"""Signers: keys that people already have for ssh. Only ed25519 keys.

Found as ``penstock.signer``: ``ssh-agent`` (the key stays in the agent), ``ssh-keygen`` (the program asks
for the passphrase itself, or asks the agent) and ``openssh`` (a key file, read here). All three block while
a person is asked, so they are for commands that people run. Nothing here keeps a passphrase, and no
signature leaves that does not verify.

The agent and the key file give plain ed25519 signatures over the payload, ``ssh-keygen`` gives OpenSSH's
own form. Bytes that could be taken for a login, or for what another program signs, are refused.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from penstock.adapters._keyfile import read_private
from penstock.core import sshsig
from penstock.core.sshsig import string, take
from penstock.errors import Invalid, PenstockError, Unavailable
from penstock.ports import Signature

#: The agent's messages (PROTOCOL.agent), and its own limit for one.
LIST, LISTED, SIGN, SIGNED = 11, 12, 13, 14
MAX_MESSAGE = 256 * 1024
LIST_SECONDS = 10.0
#: A person may be asked for a confirmation, or for a passphrase.
PERSON_SECONDS = 120.0

#: What the bytes of an ssh login (a length) and of an OpenSSH signature begin with.
OTHERS = (b"\0", sshsig.MAGIC)


class SshAgent:
    """A key in the running ssh-agent. Made by `load`."""

    def __init__(self, agent: str, public_key: bytes) -> None:
        self._agent = agent
        self.public_key = public_key
        self.keyid = _keyid(public_key)

    @classmethod
    def load(cls, choice: str = "", agent: str = "") -> SshAgent:
        """The agent's ed25519 key, or the one whose fingerprint or comment is *choice*.

        *agent* is the path of its socket; without it, SSH_AUTH_SOCK says. `Unavailable` if no agent
        answers, `Invalid` if it has no such key, or several.
        """
        path = agent or os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise Unavailable(
                "no ssh-agent is running (SSH_AUTH_SOCK is not set)",
                next_move='eval "$(ssh-agent)" && ssh-add, or sign with the key file',
            )
        return cls(path, _chosen(_listed(path), choice, path).public_key)

    def sign(self, payload: bytes) -> Signature:
        """Sign the exact bytes; the agent may ask its owner first."""
        _refuse_others(payload)
        request = string(sshsig.key_blob(self.public_key)) + string(payload) + bytes(4)
        if len(request) + 5 > MAX_MESSAGE:
            raise Invalid(
                "too large for an ssh-agent",
                where=f"{len(payload)} bytes",
                next_move="sign with ssh-keygen, or with the key file",
            )
        answer = _ask(self._agent, SIGN, request, PERSON_SECONDS)
        if not answer.startswith(bytes([SIGNED])):
            raise Unavailable(
                "the ssh-agent refuses to sign",
                where=self._agent,
                next_move="unlock it (ssh-add -X), confirm when it asks, or add the key again (ssh-add)",
            )
        value = _agents_signature(answer[1:], self._agent)
        return Signature(self.keyid, _verified(self.public_key, payload, value, self._agent))


class SshKeygen:
    """A key file that ``ssh-keygen -Y sign`` signs with. Made by `load`."""

    def __init__(self, path: Path, public_key: bytes) -> None:
        self._path = path
        self.public_key = public_key
        self.keyid = _keyid(public_key)

    @classmethod
    def load(cls, path: Path) -> SshKeygen:
        """A private key with its ``.pub`` file beside it, or a ``.pub`` file of a key in the agent."""
        beside = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
        try:
            with beside.open("rb") as file:
                line = file.read(sshsig.MAX_BYTES + 1).decode(errors="replace")
        except OSError as error:
            raise Unavailable(
                f"cannot read the public key: {error.strerror}",
                where=str(beside),
                next_move=f"ssh-keygen -y -f {path} > {beside}",
            ) from error
        try:
            return cls(path.absolute(), sshsig.parse_public_key(line))
        except Invalid as error:
            raise Invalid(error.what, where=str(beside), next_move=error.next_move) from error

    def sign(self, payload: bytes) -> Signature:
        """Sign the exact bytes; the value is OpenSSH's binary signature."""
        text = self._run(payload)
        try:
            blob = sshsig.dearmour(text)
            found = sshsig.parse(blob)
        except Invalid as error:
            raise Unavailable(f"ssh-keygen gave no signature: {error.what}", where=str(self._path)) from error
        if found.public_key != self.public_key:
            raise Invalid("another key is in this file now", where=str(self._path), next_move="start again")
        signed = sshsig.signed_data(sshsig.NAMESPACE, payload, found.hash_name)
        _verified(self.public_key, signed, found.signature, str(self._path))
        return Signature(self.keyid, blob)

    def _run(self, payload: bytes) -> str:
        command = ["ssh-keygen", "-Y", "sign", "-n", sshsig.NAMESPACE, "-f", str(self._path)]
        try:
            done = subprocess.run(
                command,
                input=payload,
                capture_output=True,
                env={**os.environ, "LC_ALL": "C"},
                timeout=PERSON_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise Unavailable(
                "the ssh-keygen program is not installed",
                next_move="install it (Debian: apt install openssh-client)",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"ssh-keygen took longer than {PERSON_SECONDS:.0f} s") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            words = said[-1][:300] if said else f"it ended with {done.returncode}"
            raise Invalid(f"ssh-keygen cannot sign: {words}", where=str(self._path))
        return done.stdout.decode(errors="replace")


class OpenSsh:
    """An OpenSSH private key file, read into this process. Made by `load`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw()
        self.keyid = _keyid(self.public_key)

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None = None) -> OpenSsh:
        """Read a key. `Invalid` if others may read the file, or it holds no ed25519 key that opens."""
        data = read_private(path)
        try:
            key = load_ssh_private_key(data, passphrase or None)
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:
            raise _cannot_open(path, bool(passphrase), error) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise Invalid("not an ed25519 key", where=str(path), next_move=sshsig.MAKE_ONE)
        return cls(key)

    def sign(self, payload: bytes) -> Signature:
        """Sign the exact bytes."""
        _refuse_others(payload)
        return Signature(self.keyid, self._key.sign(payload))


@dataclass(frozen=True)
class _Held:
    """A key that the agent has."""

    public_key: bytes
    comment: str

    def __str__(self) -> str:
        return f"{sshsig.fingerprint(self.public_key)} ({self.comment})"


def _listed(agent: str) -> tuple[list[_Held], list[str]]:
    """The agent's ed25519 keys, and the kinds of the others."""
    answer = _ask(agent, LIST, b"", LIST_SECONDS)
    if not answer.startswith(bytes([LISTED])):
        raise Unavailable("the ssh-agent does not list its keys", where=agent)
    held, others = [], []
    try:
        rest = answer[5:]
        for _ in range(int.from_bytes(answer[1:5], "big")):
            blob, rest = take(rest)
            comment, rest = take(rest)
            kind, key = take(blob)
            if kind == sshsig.ED25519.encode():
                held.append(_Held(take(key)[0], _shown(comment)))
            else:
                others.append(_shown(kind))
    except Invalid as error:
        raise _nonsense(agent) from error
    return held, others


def _chosen(listed: tuple[list[_Held], list[str]], choice: str, agent: str) -> _Held:
    held, others = listed
    if not held:
        has = f"; it has {', '.join(sorted(set(others)))}" if others else ""
        move = "ssh-add ~/.ssh/id_ed25519; to make a key: ssh-keygen -t ed25519"
        raise Invalid(f"the ssh-agent has no ed25519 key{has}", where=agent, next_move=move)
    fitting = [key for key in held if choice in ("", sshsig.fingerprint(key.public_key), key.comment)]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(str(key) for key in fitting or held)
    what = f"the ssh-agent has {len(fitting) or 'no'} such ed25519 keys" if choice else "which key?"
    raise Invalid(what, where=choice or agent, next_move=f"choose by fingerprint or comment: {known}")


def _agents_signature(answer: bytes, agent: str) -> bytes:
    try:
        inner, end = take(answer)
        kind, rest = take(inner)
        value, rest = take(rest)
    except Invalid as error:
        raise _nonsense(agent) from error
    if kind != sshsig.ED25519.encode() or end or rest:
        raise _nonsense(agent)
    return value


def _ask(agent: str, kind: int, body: bytes, seconds: float) -> bytes:
    """One message to the agent and its answer, on a connection of their own."""
    deadline = time.monotonic() + seconds
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(seconds)
            line.connect(agent)
            line.sendall(string(bytes([kind]) + body))
            length = int.from_bytes(_receive(line, 4, deadline), "big")
            if not 0 < length <= MAX_MESSAGE:
                raise _nonsense(agent)
            return _receive(line, length, deadline)
    except TimeoutError as error:
        raise Unavailable(f"the ssh-agent did not answer in {seconds:.0f} s", where=agent) from error
    except OSError as error:
        raise Unavailable(
            f"no ssh-agent answers: {error.strerror or error}",
            where=agent,
            next_move='eval "$(ssh-agent)" && ssh-add',
        ) from error


def _receive(line: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        line.settimeout(left)
        more = line.recv(size - len(data))
        if not more:
            raise ConnectionResetError("it hung up")
        data += more
    return data


def _nonsense(agent: str) -> Unavailable:
    return Unavailable("what answers is no ssh-agent", where=agent, next_move="check SSH_AUTH_SOCK")


def _cannot_open(path: Path, passphrase: bool, error: Exception) -> PenstockError:
    place = str(path)
    if isinstance(error, UnsupportedAlgorithm) and "bcrypt" in str(error):
        move = 'pip install "penstock[ssh]", or sign with ssh-agent or ssh-keygen'
        return Invalid(
            "a key with a passphrase needs bcrypt, which is not installed", where=place, next_move=move
        )
    if isinstance(error, TypeError) and not passphrase:
        move = "give it, or sign with ssh-agent or ssh-keygen"
        return Invalid("the key has a passphrase", where=place, next_move=move)
    if isinstance(error, TypeError):
        return Invalid("the key has no passphrase", where=place, next_move="leave the passphrase out")
    what = "a wrong passphrase, or not an OpenSSH key" if passphrase else "not an OpenSSH private key"
    return Invalid(what, where=place, next_move="give the file that ssh-keygen -t ed25519 made")


def _verified(public_key: bytes, message: bytes, value: bytes, where: str) -> bytes:
    """The signature, if it is one: a damaged one would only be found when it is too late."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(value, message)
    except (InvalidSignature, ValueError) as error:
        raise Unavailable("what came back is not a signature by this key", where=where) from error
    return value


def _refuse_others(payload: bytes) -> None:
    if payload.startswith(OTHERS):
        raise Invalid("these bytes could be taken for a login, or for another program's signature")


def _keyid(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()


def _shown(raw: bytes) -> str:
    """Words of the agent's, safe to print."""
    return "".join(c for c in raw.decode(errors="replace") if c.isprintable())[:200]
