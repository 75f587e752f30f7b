"""``penstock backup``, ``restore`` and ``prune``: keeping a data folder safe, and small.

Called by `main`. They work on the data folder itself, with or without a server. What they do is in
``bootstrap.backup``, ``bootstrap.restore`` and ``bootstrap.prune``.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from penstock.bootstrap.home import Home
from penstock.cli.people import seconds
from penstock.cli.show import complain, document, say
from penstock.core.codec import encode
from penstock.core.wording import plural

Verb = Callable[[str, Callable[[argparse.Namespace], int], str, str], argparse.ArgumentParser]


def parsers(verb: Verb) -> None:
    what = "copy everything that matters into one file, also while deliveries run; it holds private keys"
    command = verb("backup", backup, what, "penstock backup /mnt/safe/penstock-2026-11-23.tar")
    command.add_argument("file", type=Path, help="a new file; whoever can read it can sign as this server")
    command.add_argument(
        "--without-keys",
        action="store_true",
        help="leave the private keys out: what is restored can then be read and verified, but not continued "
        "until the keys are put back",
    )
    what = "put a backup into an empty data folder, and verify its ledger"
    command = verb(
        "restore", restore, what, "PENSTOCK_HOME=~/penstock penstock restore penstock-2026-11-23.tar"
    )
    command.add_argument("file", type=Path, help="a file that `penstock backup` made")
    what = "forget the journal and logs of old deliveries, and artifacts nobody needs; the ledger stays whole"
    command = verb("prune", prune, what, "penstock prune --older-than 30d --dry-run")
    command.add_argument("--older-than", required=True, metavar="TIME", help="since they ended: 12h, 30d")
    command.add_argument(
        "--keep",
        type=int,
        default=10,
        metavar="N",
        help="promoted pairs of each service to keep (default 10)",
    )
    command.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def backup(given: argparse.Namespace) -> int:
    from penstock.bootstrap.backup import back_up  # the whole product: no other command waits for it

    made = asyncio.run(back_up(Home.find(), given.file, keys=not given.without_keys))
    for name in made.damaged:
        complain(f"! {name} is damaged; it was copied as it is")
    if given.format == "json":
        document(encode(made))
        return 0
    holds = f"{plural(made.entries, 'entry')}, {plural(made.artifacts, 'blob')} of artifacts"
    say(f"✓ {made.file}: {_mib(made.bytes)}, {holds}")
    say(f"  root {made.root}")
    if made.keys:
        say("  it holds private keys: whoever can read it can sign as this server. Keep it as you keep them")
    else:
        say("  without keys: to go on from it, put back what is in keys/: keep a copy of that elsewhere")
    return 0


def restore(given: argparse.Namespace) -> int:
    from penstock.bootstrap.restore import restore as put_back  # as above

    done = asyncio.run(put_back(Home.find(), given.file))
    if given.format == "json":
        document(encode(done))
        return 0
    made = time.strftime("%d %b %Y %H:%M UTC", time.gmtime(done.created))
    say(f"✓ restored into {done.home}: the backup of {made}, made by release {done.release}")
    again = f"{plural(done.entries, 'entry')}, {plural(done.sign_offs, 'sign-off')} computed again"
    say(f"  {again}: verified; root {done.root}")
    say(f"  {plural(done.deliveries, 'delivery')} had not ended, and will go on")
    say(
        "  not in a backup: running processes (they start again), logs, caches, what workloads wrote to /data"
    )
    say("  what was added to the ledger later is gone: a checkpoint that somebody kept or a witness cosigned")
    say(f"  after {made} is not consistent with it any more. Tell whoever keeps one")
    say("  never run the folder that it was copied from again: two ledgers would go on under one key")
    if not done.keys:
        say("  ✗ the keys are not in this backup: put them back into keys/ (mode 600) first")
    say("  next: penstock up")
    return 0


def prune(given: argparse.Namespace) -> int:
    from penstock.bootstrap.prune import prune as tidy  # as above

    older_than = seconds(given.older_than, "--older-than")
    done = asyncio.run(tidy(Home.find(), older_than, pairs=given.keep, dry=given.dry_run))
    if given.format == "json":
        document(encode(done))
        return 0
    word = "would be removed" if done.dry else "removed"
    say(f"{'…' if done.dry else '✓'} {word}: the journal of {plural(len(done.deliveries), 'delivery')},")
    say(f"  {plural(len(done.images), 'artifact')}; {_mib(done.bytes)} of files. The ledger is as it was")
    if done.dry:
        for name in done.deliveries:
            say(f"    {name}")
        for image in done.images:
            say(f"    {image}")
    return 0


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
