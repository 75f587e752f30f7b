"""``penstock logs``: the output of a delivery's stages or of a service's releases, once or as it comes.

Called by `main`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from penstock.cli.client import Client
from penstock.cli.ended import latest, trouble
from penstock.cli.follow import ABSENT_SECONDS, POLL_SECONDS
from penstock.cli.show import complain, document, say
from penstock.errors import Invalid, Unavailable


def logs(given: argparse.Namespace) -> int:
    if given.lines < 1:
        raise Invalid(f"--lines: {given.lines} lines; from 1")
    client = Client.find()
    known = {row["service"] for row in client.get("/v1/status")["services"]}
    if given.follow:
        if given.name in known:  # without --follow it is what the service wrote: not another thing with it
            newest = latest(client, given.name)
            raise Invalid(
                f"{given.name} is a service, and --follow shows the stages of a delivery",
                next_move=f"penstock logs {newest} --follow",
            )
        return _follow(given, client)
    if given.name in known:
        text = client.text(
            f"/v1/services/{given.name}/logs", lines=given.lines, environment=given.environment
        )
    else:
        text = client.text(f"/v1/deliveries/{given.name}/logs", stage=given.stage)
    if given.format == "json":
        document({"name": given.name, "text": text})
    else:
        say(text.rstrip("\n"))
        if given.name not in known:
            _say_trouble(client.get(f"/v1/deliveries/{given.name}"))
    return 0


def _say_trouble(view: dict[str, Any]) -> None:
    """Beside the output, and no part of it."""
    if said := trouble(view):
        complain(said)


def _follow(given: argparse.Namespace, client: Client) -> int:
    said: list[str] = []

    def write(text: str) -> None:
        if given.format == "json":
            said.append(text)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()

    for stage in [given.stage] if given.stage else _stages(client, given.name):
        if not given.stage:
            write(f"--- {stage}\n")
        follow_stage(client, given.name, stage, write)
    if given.format == "json":
        document({"name": given.name, "text": "".join(said)})
    return 0


def _stages(client: Client, delivery: str) -> Iterator[str]:
    """The stages as they begin, until the delivery has ended."""
    shown: set[str] = set()
    while True:
        view = client.get(f"/v1/deliveries/{delivery}")
        begun = [stage["name"] for stage in view["stages"] if stage["state"] not in ("pending", "skip")]
        new = next((name for name in begun if name not in shown), None)
        if new is not None:
            shown.add(new)
            yield new
        elif view["ended"] is not None:
            return
        else:
            time.sleep(POLL_SECONDS)


def follow_stage(client: Client, delivery: str, stage: str, write: Callable[[str], None]) -> None:
    """Write a stage's output until it has ended; a lost connection is taken up where it broke off."""
    last, seen = "0", time.monotonic()
    while True:
        try:
            for name, number, data in client.events(f"/v1/deliveries/{delivery}/logs/{stage}/events", last):
                if name == "end":
                    return
                last, seen = number, time.monotonic()
                write(_text(data))
        except Unavailable:
            if time.monotonic() > seen + ABSENT_SECONDS:
                raise
        time.sleep(POLL_SECONDS)


def _text(data: Any) -> str:
    return str(data["text"])
