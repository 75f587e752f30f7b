"""Does the dark release answer as the service's own OpenAPI document says?

Called by `acceptance`. The document is a file of the commit, or what the dark release gives at a path. Every
operation that is safe is asked, and others only where the service declares them: their effects are real. Must
not follow redirects or references that lead elsewhere, nor repeat a value of an answer: it may be a secret.
"""

from __future__ import annotations

import asyncio
import base64
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.checks.preview import RELEASE, Dark, Part
from penstock.checks.reader import Reader
from penstock.checks.sending import UNANSWERED, Answer, Ask, Bounds, Target
from penstock.checks.untrusted.answers import MAX_BODY
from penstock.checks.untrusted.document import MAX_BYTES
from penstock.checks.untrusted.exchange import Answered, JudgeCall, PlanCall, Planned, Request
from penstock.core.acceptance import MOST_EXAMPLES, Contract
from penstock.core.acceptanceconfig import AcceptanceConfig
from penstock.core.digest import digest
from penstock.core.traffic import TOKEN_HEADER
from penstock.errors import Invalid

#: Requests at once: enough to be quick, and few enough to be no load test.
AT_ONCE = 4
BOUNDS = Bounds(keep=MAX_BODY + 1)


@dataclass(frozen=True)
class _Found:
    """One answer, or why there is none."""

    request: Request
    answer: Answer | None
    trouble: str = ""


@dataclass(frozen=True)
class Asked:
    """A document, and what is to be asked by it. *name* is where it stands; *consumer* whose it is, "" if the
    service's own."""

    name: str
    document: bytes
    cases: int = 0
    declared: tuple[str, ...] = ()
    consumer: str = ""

    @property
    def whose(self) -> str:
        """How failures begin."""
        return f"contract of {self.consumer}" if self.consumer else "contract"

    @property
    def call(self) -> PlanCall:
        """The requests depend on the document alone."""
        encoded, seed = base64.b64encode(self.document).decode(), int(digest(self.document)[-8:], 16)
        return PlanCall("plan", self.name, encoded, self.cases, seed, self.declared)


async def check(
    config: AcceptanceConfig,
    tree: Path | None,
    way: Dark,
    reader: Reader | None = None,
    bounds: Bounds = BOUNDS,
) -> tuple[Contract | None, Part]:
    """The service's own document, if it declares one. One that cannot be used is a failure of the change."""
    if config.openapi is None:
        return None, Part()
    if tree is None and not config.openapi.startswith("/"):
        return None, Part(words="no contract was checked: its document is in the code's repository")
    target = Target(way.address, bounds, way.headers)
    try:
        document = await _document(config.openapi, tree, target, way.release)
    except Invalid as error:
        return None, Part(failed=1, failing=(f"contract: {error}"[:500],))
    finally:
        target.close()
    declared = config.openapi_operations or ()
    asked = Asked(config.openapi, document, config.openapi_cases or 0, declared)
    return await examine(asked, way, config.seconds, reader, bounds)


async def examine(
    asked: Asked, way: Dark, seconds: float, reader: Reader | None = None, bounds: Bounds = BOUNDS
) -> tuple[Contract | None, Part]:
    """Ask the dark release by a document, and have the answers judged by it."""
    reader, target = reader or Reader(), Target(way.address, bounds, way.headers)
    try:
        planned = await reader.plan(asked.call)
        found = await _ask(planned.requests, target, way.release, seconds)
        problems = await _judge(asked.call, found, reader)
    except Invalid as error:
        return None, Part(failed=1, failing=(f"{asked.whose}: {error}"[:500],))
    finally:
        target.close()
    told = [
        (one.request, f"{text}; {curl(one.request, way)}")
        for one, text in zip(found, problems, strict=True)
        if text
    ]
    return _made(asked, planned, told)


def _made(asked: Asked, planned: Planned, problems: Sequence[tuple[Request, str]]) -> tuple[Contract, Part]:
    failed = {request.operation for request, _ in problems}
    first = {request.operation: text for request, text in reversed(problems)}
    contract = Contract(
        document=digest(asked.document),
        version=planned.version,
        operations=len(planned.operations),
        failed=len(failed),
        requests=len(planned.requests),
        seed=asked.call.seed,
        skipped=planned.skipped[:MOST_EXAMPLES],
        problems=tuple(f"{request.operation}: {text}" for request, text in problems[:MOST_EXAMPLES]),
        consumer=asked.consumer or None,
    )
    failing = tuple(f"{asked.whose}: {name}: {first[name].partition('; curl')[0]}" for name in sorted(failed))
    passed = len(planned.operations) - len(failed)
    words = f"{passed} of {len(planned.operations)} operations as "
    words += f"{asked.consumer} needs them" if asked.consumer else "documented"
    return contract, Part(passed, len(failed), failing, words)


async def _document(openapi: str, tree: Path | None, target: Target, release: str) -> bytes:
    if tree is not None and not openapi.startswith("/"):
        return await asyncio.to_thread(_file, tree, openapi)
    try:
        answer = await target.ask(Ask(path=openapi))
    except UNANSWERED as error:
        raise Invalid(f"gave no document: {type(error).__name__}", where=openapi) from error
    if answer.status != 200 or answer.headers.get(RELEASE, release) != release:
        raise Invalid(f"gave no document: answered {answer.status}", where=openapi)
    if answer.size > MAX_BYTES:
        raise Invalid(f"larger than {MAX_BYTES} bytes", where=openapi)
    return answer.body


def _file(tree: Path, name: str) -> bytes:
    path = tree / name
    # A link must not lead to what only the worker may read.
    if not path.resolve().is_relative_to(tree.resolve()) or not path.is_file():
        raise Invalid("there is no such file in the repository", where=name)
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


async def _ask(requests: Sequence[Request], target: Target, release: str, seconds: float) -> list[_Found]:
    room, end = asyncio.Semaphore(AT_ONCE), time.monotonic() + seconds

    async def one(request: Request) -> _Found:
        async with room:
            if time.monotonic() > end:
                return _Found(request, None, f"not asked: there was no time left of {seconds:g} s")
            body = (request.body or "").encode()
            try:
                answer = await target.ask(Ask(request.method, request.path, request.headers, body))
            except UNANSWERED as error:
                return _Found(request, None, f"no answer: {type(error).__name__}")
        served_by = answer.headers.get(RELEASE, release)
        return _Found(request, answer, "" if served_by == release else f"answered by {served_by}")

    return list(await asyncio.gather(*map(one, requests)))


async def _judge(call: PlanCall, found: Sequence[_Found], reader: Reader) -> list[str]:
    answered = [one for one in found if one.answer is not None and not one.trouble]
    answers = tuple(_as_answered(one.request, one.answer) for one in answered if one.answer is not None)
    judged = await reader.judge(JudgeCall("judge", call.name, call.document, answers))
    verdicts = iter(judged.problems)
    return [one.trouble or next(verdicts) for one in found]


def _as_answered(request: Request, answer: Answer) -> Answered:
    return Answered(
        operation=request.operation,
        method=request.method,
        expected=request.expected,
        status=answer.status,
        content_type=answer.headers.get("content-type", ""),
        body=base64.b64encode(answer.body).decode(),
        whole=answer.whole and answer.size <= MAX_BODY,
    )


def curl(request: Request, way: Dark) -> str:
    """The request as a shell takes it. The token is left to whoever has it."""
    words = ["curl", "-sS", *(["-I"] if request.method == "HEAD" else ["-X", request.method])]
    for name, value in {**way.headers, **request.headers}.items():
        if name == TOKEN_HEADER:
            continue
        words += ["-H", f"{name}: {value}"]
    if request.body is not None:
        words += ["--data-binary", request.body]
    line = " ".join(map(shlex.quote, [*words, way.address + request.path]))
    return f'{line[:1000]} -H "{TOKEN_HEADER}: $PENSTOCK_PREVIEW_TOKEN"'
