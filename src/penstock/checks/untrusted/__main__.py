"""The process itself: ``python -m penstock.checks.untrusted``, started by `checks.reader` only.

One JSON value in, one out, and it is over. It limits itself before it reads: no files, no core dump, so much
time, so much memory. It may be killed at any moment, and must not read anything but its standard input.
"""

from __future__ import annotations

import base64
import contextlib
import json
import resource
import sys

from penstock.checks.untrusted.answers import Judge
from penstock.checks.untrusted.differences import Rules, compared
from penstock.checks.untrusted.document import parse
from penstock.checks.untrusted.exchange import Call, CompareCall, Differences, JudgeCall, Judged, PlanCall
from penstock.checks.untrusted.requests import plan
from penstock.core.codec import Json, decode, encode
from penstock.errors import Invalid, PenstockError

CPU_SECONDS = 60
MEMORY = 2 * 1024**3
#: What a document makes us say may not become somebody else's memory.
MAX_ANSWER = 32 * 1024**2


def main() -> int:
    limits = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY),
    )
    for limit, most in limits:
        with contextlib.suppress(ValueError, OSError):  # not every system knows each of them
            resource.setrlimit(limit, (most, most))
    try:
        said = {"ok": answer(json.loads(sys.stdin.buffer.read()))}
    except PenstockError as error:
        said = {"error": error.to_wire()}
    except (MemoryError, RecursionError) as error:
        said = {"error": Invalid(f"too much to read: {type(error).__name__}").to_wire()}
    line = json.dumps(said).encode()
    if len(line) > MAX_ANSWER:
        line = json.dumps({"error": Invalid("its requests are too large").to_wire()}).encode()
    sys.stdout.buffer.write(line)
    return 0


def answer(call: Json) -> Json:
    match decode(Call, {"call": call}).call:
        case PlanCall() as wanted:
            return encode(plan(parse(base64.b64decode(wanted.document), wanted.name), wanted))
        case JudgeCall(name=name, document=document, answers=answers):
            judge = Judge(parse(base64.b64decode(document), name))
            return encode(Judged(tuple(judge.problem(one) for one in answers)))
        case CompareCall(ignore=ignore, pairs=pairs):
            rules = Rules.of(ignore)
            return encode(Differences(tuple(compared(pair, rules) for pair in pairs)))


if __name__ == "__main__":
    sys.exit(main())
