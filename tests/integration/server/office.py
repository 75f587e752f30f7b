"""People with keys and roles, and the moves that tests about them are told with.

Used by the tests beside it. Everybody signs with an ssh key of their own, as people have them.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from playhouse import Playhouse
from shell import Shell

from penstock.core.predicates import Attempt


class Office:
    """People, each with an ssh key; the operator grants."""

    def __init__(self, house: Playhouse, sh: Shell, folder: Path) -> None:
        self.house, self.sh, self.folder = house, sh, folder

    def key(self, name: str) -> Path:
        """A new ssh key, as people have one."""
        path = self.folder / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
        subprocess.run(command, check=True, timeout=30)
        return path

    def hire(self, name: str, *roles: str, address: str = "") -> str:
        """Somebody new with an ssh key; gives the option that signs as them."""
        path = self.key(name)
        given = ("--address", address) if address else ()
        self.sh.ok("identity", "add", name, "--public-key", f"{path}.pub", *given)
        for role in roles:
            self.sh.ok("role", "grant", name, *role.split(" "))
        return f"--key={path}"

    def write(self, text: str, name: str = "policy.yaml") -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def ship(self, title: str, until: str) -> str:
        """Start a delivery, and wait until it waits or has ended."""
        self.house.commit(title)
        (delivery,) = self.sh.json("ship", str(self.house.repository), "--no-wait")["deliveries"]
        for _ in range(600):
            view = self.sh.json("status", delivery)
            if view["waiting"] and until == "waits":
                return delivery
            if view["outcome"]:
                assert view["outcome"] == until, view["reason"]
                return delivery
            time.sleep(0.05)
        raise AssertionError(f"{delivery} neither waits nor ends")

    def outcome(self, delivery: str) -> str:
        with self.house.client() as client:
            return str(self.house.ended(client, delivery)["outcome"])

    def attempts(self) -> list[dict[str, str]]:
        with self.house.client() as client:
            listed = client.get("/v1/evidence", params={"type": Attempt.TYPE}).json()["entries"]
            return [client.get(f"/v1/evidence/{e['index']}").json()["predicate"] for e in listed]

    def comes_to_say(self, delivery: str, words: str) -> bool:
        """Whether the waiting delivery comes to say this."""
        for _ in range(200):
            waiting = self.sh.json("status", delivery)["waiting"]
            if waiting and words in waiting["blocked"][0]["says"]:
                return True
            time.sleep(0.05)
        return False

    def bundle_verifies(self, delivery: str) -> str:
        """What ``penstock verify`` says of the delivery's bundle, which must be good."""
        bundle = self.folder / "bundle.json"
        self.sh.ok("evidence", "export", delivery, "--file", str(bundle))
        return self.sh.ok("verify", str(bundle), "--trust", str(self.house.home.trust))
