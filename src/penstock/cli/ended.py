"""Says in a line how a delivery ended, and where to look if it did not end well.

Called by `verbs`, `logs` and `policies`, with a delivery as the API gives it.
"""

from __future__ import annotations

from typing import Any

from penstock.cli.client import Client
from penstock.cli.show import mark

GOOD = ("promoted", "restored", "unchanged")
#: States of a step that nothing went wrong with.
FINE = ("success", "skip", "pending")


def well(view: dict[str, Any]) -> bool:
    """Whether it ended as it was meant to."""
    # In a change set that went wrong, the others are asked to abort by it, not by a person.
    asked_for = view["outcome"] == "aborted" and view["request"] == "abort" and not view["together"]
    return view["outcome"] in GOOD or asked_for


def verdict(view: dict[str, Any]) -> str:
    """How it ended, at which step, and why: one line."""
    reason, by, step = view["reason"], view["refused_by"], _culprit(view)
    if by:
        # The reason names each policy already.
        reason = reason.removeprefix(f"{by[0]}: ") if len(by) == 1 else reason
        return f"{mark(False)} refused by {', '.join(by)}: {reason}"
    at = f" at {step['name']}" if step else ""
    return f"{mark(well(view))} {view['outcome']}{at}" + (f": {reason}" if reason else "")


def where_to_look(view: dict[str, Any]) -> str:
    """The next move as a line; "" where there is nothing to find out."""
    if well(view) or view["outcome"] == "superseded":
        return ""
    name, step = view["id"], _culprit(view)
    moves = [f"penstock logs {name}" + (f" {_stage(view, step)}" if step else "")]
    if step and step["stage"] == "canary" and "look" in step["name"]:
        moves.append(f"penstock canary replay {name}")
    return f"  next: {'; '.join([*moves, f'penstock policy explain {name}'])}"


def trouble(view: dict[str, Any]) -> str:
    """Both of them, for a delivery that has not ended well; "" for any other."""
    bad = view["ended"] and not well(view)
    return "\n".join(filter(None, (verdict(view), where_to_look(view)))) if bad else ""


def latest(client: Client, name: str) -> str:
    """The newest delivery of the service *name*; for any other name, the name."""
    found = client.get("/v1/deliveries", service=name, limit=1)["deliveries"]
    return str(found[0]["id"]) if found else name


def _culprit(view: dict[str, Any]) -> dict[str, Any] | None:
    """The step for which it did not go on."""
    return next((step for step in view["steps"] if step["state"] not in FINE), None)


def _stage(view: dict[str, Any], step: dict[str, Any]) -> str:
    """Whose output tells most: what a release wrote last, if it was taken out for what it did to users."""
    taken_out = any(other["stage"] == "rollback" for other in view["steps"])
    return "rollback" if taken_out and step["stage"] in ("canary", "promote") else str(step["stage"])
