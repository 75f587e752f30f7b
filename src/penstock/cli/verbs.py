"""Commands about deliveries: each asks a server and prints what it answers.

Called by `main`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from penstock.cli.client import Client
from penstock.cli.edited import uncommitted
from penstock.cli.ended import latest, trouble, verdict, well, where_to_look
from penstock.cli.follow import follow, print_at_work, print_step
from penstock.cli.show import complain, document, mark, overridden, say, table, told
from penstock.core.decisive import decided_by
from penstock.core.release import PRODUCTION
from penstock.errors import Invalid


def ship(given: argparse.Namespace) -> int:
    client = Client.find()
    places = [str(Path(place).resolve()) if Path(place).exists() else place for place in given.location]
    if not given.revision:
        _warn_of_uncommitted(places)
    changes = [{"location": place, "revision": given.revision} for place in places]
    beside = {"beside": given.beside} if given.beside else {}
    environments = list(dict.fromkeys(given.environment)) or [PRODUCTION]
    if given.together and len(environments) > 1:
        raise Invalid("--together in several environments", next_move="ship the set to one after another")
    if given.revision and len(changes) > 1:
        raise Invalid("--revision is of one repository", next_move="ship what is checked out, or one by one")
    if given.together and beside:
        raise Invalid("--together and --with", next_move="a change set is tested together by itself")
    if given.together:
        asked = {"changes": changes, "environment": environments[0]}
        started = client.post("/v1/changesets", asked)["deliveries"]
    else:
        each = [change | beside | {"environment": name} for name in environments for change in changes]
        started = [one for asked in each for one in client.post("/v1/ship", asked)["deliveries"]]
    if not started:
        return told(given, {"deliveries": []}, "nothing to deliver: this is what is live already")
    return _started(given, client, started)


def _warn_of_uncommitted(places: list[str]) -> None:
    """A commit is delivered, and not what somebody has only edited: they may look for it in vain."""
    for place in places:
        if changed := uncommitted(place):
            complain(f"! not shipped, because not committed: {', '.join(changed)} of {place}")
            complain("  next: git commit, and ship again; penstock run --dirty tries them without delivering")


def rollback(given: argparse.Namespace) -> int:
    client = Client.find()
    asked = {"reason": given.reason, "environment": given.environment, "together": given.together}
    return _started(given, client, client.post(f"/v1/services/{given.service}/rollback", asked)["deliveries"])


def _started(given: argparse.Namespace, client: Client, deliveries: list[str]) -> int:
    if given.no_wait:
        return told(given, {"deliveries": deliveries}, "\n".join(deliveries))
    views = [_waited(given, client, delivery) for delivery in deliveries]
    if given.format == "json":
        document(views[0] if len(views) == 1 else {"deliveries": views})
    return 0 if all(well(view) for view in views) else 1


def promote(given: argparse.Namespace) -> int:
    return _request(given, "promote")


def abort(given: argparse.Namespace) -> int:
    return _request(given, "abort")


def retry(given: argparse.Namespace) -> int:
    return _again(given, {"stage": given.stage})


def rerun(given: argparse.Namespace) -> int:
    return _again(given, {"whole": True})


def _again(given: argparse.Namespace, what: dict[str, Any]) -> int:
    client = Client.find()
    delivery = client.post(f"/v1/deliveries/{given.delivery}/retry", what)["delivery"]
    return _started(given, client, [delivery])


def _request(given: argparse.Namespace, word: str) -> int:
    answer = Client.find().post(f"/v1/deliveries/{given.delivery}/{word}")
    return told(given, answer, f"asked {given.delivery} to {word}; penstock status {given.delivery}")


def _waited(given: argparse.Namespace, client: Client, delivery: str) -> dict[str, Any]:
    """A delivery once it has ended; told on the way, unless a program is to read it."""
    try:
        if given.format == "json":
            return follow(client, delivery, lambda step: None)
        say(f"▸ {delivery}")
        view = follow(client, delivery, print_step, at_work=print_at_work)
    except KeyboardInterrupt:
        print_at_work("")
        complain(f"{delivery} goes on; next: penstock status {delivery}, or penstock abort {delivery}")
        raise
    say(verdict(view))
    if move := where_to_look(view):
        complain(move)
    if view["outcome"] in ("promoted", "restored"):
        _say_where(client, view)
    return view


def _say_where(client: Client, view: dict[str, Any]) -> None:
    found = client.get(f"/v1/services/{view['service']}", environment=view["environment"])
    if found["address"]:
        say(f"  {found['live']} answers at {found['address']}")


def status(given: argparse.Namespace) -> int:
    client = Client.find()
    if given.delivery:
        return _one(given, client.get(f"/v1/deliveries/{latest(client, given.delivery)}"))
    view = client.get("/v1/status")
    recent = client.get("/v1/deliveries", limit=10)["deliveries"]
    if given.format == "json":
        document({**view, "deliveries": recent})
        return 0
    _say_services(view["services"])
    if recent:
        _say_deliveries(recent)
    return 0


def _say_services(services: list[dict[str, Any]]) -> None:
    rows = [
        (
            _place(row),
            row["live"] or "–",
            ", ".join(f"{w['release']} {w['per_cent']:g}%" for w in row["weights"]) or row["problem"] or "–",
            row["delivering"] or ("drift" if row["drift"] else ""),
            row["address"],
        )
        for row in services
    ]
    say(table(("service", "live", "traffic", "now", "address"), rows) if rows else "nothing is live yet")
    for row in services:
        if row["unrest"]:
            say(f"✗ {row['live']} {row['unrest']}; next: penstock logs {row['service']}")


def _state(one: dict[str, Any]) -> str:
    at = f", {one['stage']}" if one["stage"] else ""
    return one["outcome"] or ("waits" if one["waiting"] else one["state"]) + at


def _say_deliveries(deliveries: list[dict[str, Any]]) -> None:
    lines = [
        (
            one["id"],
            _state(one),
            ", ".join([*one["refused_by"], *(f"overridden: {who}" for who in one["overridden"])]),
            f"{one['seconds']:.0f} s",
            one["change"]["title"],
        )
        for one in deliveries
    ]
    say("\n" + table(("delivery", "state", "refused by", "took", "change"), lines))


def _place(row: dict[str, Any]) -> str:
    """A service, and where, if that needs saying."""
    usual = row["environment"] == PRODUCTION
    return str(row["service"]) if usual else f"{row['service']} in {row['environment']}"


def _one(given: argparse.Namespace, view: dict[str, Any]) -> int:
    if given.format == "json":
        document(view)
        return 0
    say(f"▸ {view['id']}  {view['outcome'] or view['state']}  {view['change']['title']}")
    if view["together"]:
        say(f"  together with {', '.join(name for name in view['together'] if name != view['id'])}")
    for step in view["steps"]:
        print_step(step)
    if view["pruned"]:
        say(f"  pruned: its steps are gone; penstock evidence list {view['id']} has what the ledger says")
    for signed in view["sign_offs"]:
        if signed["override"]:
            say(f"  ! {signed['policy']} for {signed['action']} is {signed['verdict']}{overridden(signed)}")
    if view["waiting"]:
        _say_waiting(view["waiting"])
    if view["ended"]:
        say("\n".join(filter(None, (verdict(view), where_to_look(view)))))
    return 0


def _say_waiting(waiting: dict[str, Any]) -> None:
    until = time.strftime("%d %b %H:%M UTC", time.gmtime(waiting["until"]))
    say(f"… waits for evidence before {waiting['action']}, until {until}")
    for blocked in waiting["blocked"]:
        who = ", ".join(blocked["holders"]) or "nobody"
        say(f"    {blocked['policy']}: {blocked['says']}")
        say(f"        {blocked['owner']} can override it: {who}")


def why(given: argparse.Namespace) -> int:
    client = Client.find()
    try:
        view = client.get(f"/v1/services/{given.service}/why", environment=given.environment)
    except Invalid as not_live:
        if given.environment != PRODUCTION:
            raise
        try:  # it may be a delivery, or have one
            return _one(given, client.get(f"/v1/deliveries/{latest(client, given.service)}"))
        except Invalid:
            raise not_live from None
    if given.format == "json":
        document(view)
        return 0
    _say_what_is_live(view)
    _say_signed_off(view["sign_offs"])
    _say_newer(client, given.service, view["delivery"])
    return 0


def _say_what_is_live(view: dict[str, Any]) -> None:
    change, release = view["change"], view["release"]
    values = " ".join(f"{name}={value}" for name, value in view["data"].items())
    say(f"{view['service']} in {view['environment']}: {release['id']}  (promotion: entry {view['promoted']})")
    say(f"  artifact      {release['artifact']}")
    say(f"  data          {release['data']}  {values}")
    say(f"  change        {change['title']}  (entry {view['proposed']}, delivery {view['delivery']})")
    say(f"  source        {change['repository']} {change['revision']}")
    say(f"  author        {change['author']}  (as the commit says)")
    for said in view["reviews"]:
        who = f"{said['verdict']} by {said['identity']}"
        say(f"  review        {who}  (entry {said['index']}) {said['comment']}")
    say(f"  reviewed by   {', '.join(change['reviewers']) or 'nobody, as far as the commit says'}")
    say(f"  requirement   {', '.join(change['work_items']) or 'none named'}")
    if view.get("restored_by") is not None:
        say(f"  restored      by a rollback (entry {view['restored_by']})")
    if view["canary"]:
        say(f"  canary        {view['canary']}")


def _say_signed_off(sign_offs: list[dict[str, Any]]) -> None:
    say("signed off by")
    for signed in sign_offs:
        say(
            f"  {mark(signed['result'] == 'PASSED')} {signed['policy']} for {signed['action']}"
            f"{overridden(signed)}  (entry {signed['index']})"
        )
        for rule in signed["rules"]:
            say(f"      {rule['id']}: {rule['says']}")
            say(f"        {decided_by(rule['values'], rule['says'])}")


def _say_newer(client: Client, service: str, live: str) -> None:
    """What has become of a newer delivery than the one that brought what is *live*; it may have failed."""
    newest = latest(client, service)
    if newest not in (service, live):
        after = trouble(client.get(f"/v1/deliveries/{newest}"))
        say(f"\nand then, of {newest}:\n{after}" if after else f"\nnewer: {newest}")
