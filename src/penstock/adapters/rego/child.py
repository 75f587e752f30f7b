"""The process that runs Rego: ``python -m penstock.adapters.rego.child``, started by `engine` only.

One JSON line in, one JSON line out, until standard input ends. It limits itself before it runs anything:
no files, no core dump, so much time for each request, so much memory. It may be killed at any moment, and
must not read anything but its standard input.

Memory is watched, not limited: the library's allocator reserves 256 GB of addresses when it is loaded
and ends the process where RLIMIT_AS or RLIMIT_DATA forbids that.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import threading
import time
from collections import OrderedDict
from typing import Any, BinaryIO

import psutil

from penstock.adapters.rego.limits import CPU_SECONDS, MAX_ANSWER, MEMORY

KEPT = 16
WATCH_SECONDS = 0.01
PROBLEM = re.compile(r"\|(\d+)\|\d+\)?\s*\(errormsg \d+:([^()\n]{1,200})")


def main() -> int:
    requests, answers = _private_streams()
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(limit, (most, most))
    try:
        engine = _Engine()
    except Exception as error:
        _write(answers, {"missing": f"{type(error).__name__}: {error}"})
        return 1
    busy = threading.Event()
    threading.Thread(target=_watch, args=(busy,), daemon=True).start()
    _write(answers, {"ready": True})
    for line in requests:
        _more_time()
        busy.set()
        _write(answers, engine.answer(json.loads(line)))
        busy.clear()
    return 0


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """The real streams; what the library prints to 1 and 2 goes nowhere."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    return requests, answers


def _more_time() -> None:
    """The backstop for a parent that is gone: the kernel ends what runs on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


def _watch(busy: threading.Event) -> None:
    itself = psutil.Process()
    while busy.wait():
        if itself.memory_info().rss > MEMORY:
            os._exit(9)
        time.sleep(WATCH_SECONDS)


def _write(answers: BinaryIO, answer: dict[str, Any]) -> None:
    line = json.dumps(answer).encode()
    if len(line) > MAX_ANSWER:
        short = {"id": answer.get("id"), "error": f"more than {MAX_ANSWER} bytes of messages"}
        line = json.dumps(short).encode()
    answers.write(line + b"\n")
    answers.flush()


class _Engine:
    """Keeps what it has built, so that a policy is built once."""

    def __init__(self) -> None:
        import regopy  # here, so that its absence is an answer

        self.library = regopy
        self.built: OrderedDict[tuple[str, str], tuple[Any, Any]] = OrderedDict()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        number = request.get("id")
        try:
            return {"id": number, "messages": self.ask(request["module"], request["entry"], request["input"])}
        except _Wrong as error:
            return {"id": number, "error": str(error)}
        except self.library.RegoError as error:
            found = PROBLEM.search(str(error))
            place = int(found[1]) if found else 0
            return {"id": number, "error": found[2] if found else "the engine refuses it", "place": place}
        except Exception as error:
            return {"id": number, "error": f"the engine's answer cannot be read ({type(error).__name__})"}

    def ask(self, module: str, entry: str, facts: str | None) -> list[Any]:
        """The messages of the entry. Without *facts* it is only built."""
        interpreter, bundle = self.bundle(module, entry)
        if facts is None:
            return []
        interpreter.set_input_term(facts)
        output = interpreter.query_bundle_entrypoint(bundle, entry)
        if not output.ok():
            raise _Wrong("a function cannot work with its values, or a rule has two values")
        return _messages(output.results)

    def bundle(self, module: str, entry: str) -> tuple[Any, Any]:
        key = (module, entry)
        if key not in self.built:
            interpreter = self.library.Interpreter()
            # Otherwise what a function cannot do is undefined, and the rule does not fire.
            interpreter.strict_built_in_errors = True
            interpreter.add_module("module", module)
            bundle = interpreter.build(None, [entry])
            if not bundle.ok():
                raise ValueError("not built")
            self.built[key] = (interpreter, bundle)
            if len(self.built) > KEPT:
                self.built.popitem(last=False)
        self.built.move_to_end(key)
        return self.built[key]


class _Wrong(Exception):
    """Words for what the engine did not answer."""


def _messages(results: list[Any]) -> list[Any]:
    """The set's members. A set is written as an array; an object here would not be a set."""
    if len(results) != 1 or len(results[0].expressions) != 1 or results[0].bindings:
        raise _Wrong("deny is undefined")
    found = results[0].expressions[0]
    if not isinstance(found, list) or not all(isinstance(item, str | dict) for item in found):
        raise _Wrong("deny is not a set of messages")
    return found


if __name__ == "__main__":
    sys.exit(main())
