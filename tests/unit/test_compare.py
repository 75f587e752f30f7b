"""The stable and the dark release side by side: what differs, what may, and what is never kept."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from fakes.shop import Reply, Shop
from penstock.checks import compare
from penstock.checks.preview import Dark, Part
from penstock.checks.reader import Reader
from penstock.checks.untrusted.__main__ import answer
from penstock.checks.untrusted.differences import MOST_BYTES
from penstock.core.acceptance import Compared
from penstock.core.acceptanceconfig import AcceptanceConfig, CompareConfig
from penstock.core.codec import Json
from penstock.core.traffic import Visit
from penstock.errors import Invalid, Unavailable

OLD = "shop-old"


def old(body: object = None, **more: Any) -> Reply:
    return Reply(body, release=OLD, **more)


async def compared(
    stable: Shop, dark: Shop, *visited: str, reader: Reader | None = None, **wanted: Any
) -> tuple[Compared | None, Part]:
    """With *visited* as what users asked for; the paths of the service's own are those of *stable*."""
    calls = itertools.count()

    async def visits(since: float) -> Sequence[Visit]:
        if next(calls) == 0:
            raise Unavailable("the proxy starts")
        return [Visit(float(n), path) for n, path in enumerate(visited, 1) if n > since]

    given = CompareConfig(**{"share": 100.0, "seconds": 1.5 if visited else 0.0, **wanted})
    config = AcceptanceConfig(paths=tuple(stable.pages), compare=given)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(stable.open())
        await stack.enter_async_context(dark.open())
        way = replace(stable.way, release=OLD, headers={"penstock-release": OLD})
        return await compare.check(config, dark.way, way, visits, reader)


async def test_the_same_answers_pass() -> None:
    page = {"items": [1, 2], "total": 3.0}
    stable, dark = Shop(items=old(page), about=old("hi")), Shop(items=Reply(page), about=Reply("hi"))
    found, part = await compared(stable, dark)
    assert found is not None
    assert (found.pairs, found.different, found.untold, found.sampled) == (2, 0, 0, 0)
    assert (part.passed, part.failed) == (1, 0)
    assert part.words.startswith("compared with stable: 0 of 2 answers differ")
    assert sorted(dark.asked) == sorted(stable.asked) == ["GET /about", "GET /items"]
    assert all("penstock-copy: 1" in head for head in (*stable.heads, *dark.heads))
    assert not any("cookie:" in head or "authorization:" in head for head in (*stable.heads, *dark.heads))


async def test_a_difference_is_named_and_never_shown() -> None:
    stable, dark = (
        Shop(**{"items/7": old({"price": "hunter2"})}),
        Shop(**{"items/7": Reply({"price": "secret9"})}),
    )
    found, part = await compared(stable, dark)
    assert found is not None
    assert (found.different, found.first) == (1, ("/items/*: body/price",))
    assert part.failing == ("compare: 1 of 1 answers differ (100.00%, at most 0.00%): /items/*: body/price",)
    assert not {"hunter2", "secret9"} & set(json.dumps([found.first, part.failing]).replace('"', " ").split())


async def test_what_users_ask_for_is_sampled_and_what_opens_doors_is_not() -> None:
    dark = Shop(a=Reply(1), b=Reply(2))
    found, _ = await compared(
        Shop(a=old(1), b=old(2)), dark, "/b", "/reset/3f9a8bc27d1e4f5a6b7c8d9e", "/b", seconds=2.5
    )
    assert found is not None
    assert (found.sampled, found.pairs) == (2, 4)
    assert dark.asked.count("GET /b") == 3
    assert not any("reset" in line for line in dark.asked)


async def test_a_share_of_them() -> None:
    dark = Shop(a=Reply(1))
    found, _ = await compared(Shop(a=old(1)), dark, *["/a"] * 400, share=10.0, seconds=2.5)
    assert found is not None
    assert 20 < found.sampled < 65


async def test_where_stable_does_not_agree_with_itself_nothing_is_told() -> None:
    numbers = itertools.count()
    stable = Shop(a=lambda _: old({"at": next(numbers), "price": 1}))
    found, part = await compared(stable, Shop(a=Reply({"at": -1, "price": 1})))
    assert found is not None
    assert (found.different, found.untold) == (0, 1)
    assert part.failing == ("compare: none of 1 answers could be compared",)
    found, _ = await compared(stable, Shop(a=Reply({"at": -1, "price": 2})))
    assert found is not None
    assert found.first == ("/a: body/price",)


@pytest.mark.parametrize(
    ("dark", "place"),
    [
        (Reply(1, status=404), "status 200 instead of 404"),
        (Reply(1, status=500), "status 200 instead of 500"),
        (Reply("<html>", kind="text/html"), "content type"),
        (Reply(1, headers={"x-total": "5"}), "header x-total"),
        (Reply(1, release="shop-other"), "no answer"),
        (Reply(1, status=302, headers={"location": "http://192.0.2.1/"}), "status 200 instead of 302"),
    ],
)
async def test_kinds_of_differences(dark: Reply, place: str) -> None:
    found, part = await compared(Shop(a=old(1)), Shop(a=dark))
    assert found is not None
    assert found.first == (f"/a: {place}",)
    assert part.failed == 1


async def test_a_stable_release_that_fails_tells_nothing() -> None:
    found, part = await compared(Shop(a=old(status=503)), Shop(a=Reply(status=500)))
    assert found is not None
    assert (found.untold, found.different) == (1, 0)
    assert part.failed == 1


async def test_the_limits() -> None:
    stable = Shop(**{name: old(1) for name in "abcd"})
    dark = Shop(**{name: Reply(2 if name == "d" else 1) for name in "abcd"})
    assert (await compared(stable, dark, max_different=0.25))[1].passed == 1
    assert (await compared(stable, dark, max_different=0.24))[1].failed == 1
    slow = Shop(a=Reply(1, seconds=0.1))
    _, part = await compared(Shop(a=old(1)), slow, max_slower=3.0)
    assert "times as long" in part.failing[0]


async def test_no_stable_release_is_nothing_to_compare_with() -> None:
    async def nobody(_: float) -> Sequence[Visit]:
        return ()

    config = AcceptanceConfig(compare=CompareConfig())
    found, part = await compare.check(config, Dark("shop-new", "http://127.0.0.1:1", {}), None, nobody)
    assert (found, part.failed) == (None, 0)
    assert "no stable release" in part.words


async def test_a_pattern_that_never_ends_is_ended() -> None:
    stable, dark = Shop(a=old("a" * 60 + "!")), Shop(a=Reply("a" * 60 + "?"))
    found, part = await compared(stable, dark, ignore=("re: ^(a+)+$",), reader=Reader(seconds=3))
    assert found is None
    assert "it was ended" in part.failing[0]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/items/7", "/items/*"),
        ("/u/someone@example.com/orders", "/u/*/orders"),
        ("/a?token=x", "/a"),
        ("/caf%C3%A9", "/*"),
    ],
)
def test_paths_are_masked(path: str, shown: str) -> None:
    assert compare.masked(path) == shown


def test_what_looks_like_a_secret() -> None:
    assert compare.secret("/reset/eyJhbGciOiJIUzI1NiJ9abc")
    assert not compare.secret("/orders/3f2b8c1e-9a4d-4c6b-8f0e-2d5a7b9c1e3f/lines")
    assert not compare.secret("/articles/how-to-ship-without-a-worry")


# --- rules --------------------------------------------------------------------------------------------------


MANY = {str(number): 1 for number in range(30)}


def seen(body: Json, *, kind: str = "application/json", **more: Any) -> dict[str, Json]:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    told = {"status": 200, "headers": {"content-type": kind}, "body": base64.b64encode(data).decode()}
    return {**told, "whole": True, **more}


def places(one: dict[str, Json], other: dict[str, Json], *ignore: str, again: Json = None) -> list[str]:
    pair = {"stable": one, "dark": other, "again": again}
    said = answer({"kind": "compare", "name": "compare", "ignore": list(ignore), "pairs": [pair]})
    (found,) = said["pairs"]
    return [str(place) for place in found["places"]]


@pytest.mark.parametrize(
    ("one", "other", "ignore", "found"),
    [
        ({"a": 1}, {"a": 2}, (), ["body/a"]),
        ({"a": 1}, {"a": 1.0}, (), []),
        ({"a": 1}, {"a": True}, (), ["body/a"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, (), []),
        ({"a": 1}, {}, (), ["body/a"]),
        ({"a": 1}, {}, ("/a",), []),
        ({"a": [1, 2]}, {"a": [1]}, (), ["body/a"]),
        ({"a": [{"at": 1}, {"at": 2}]}, {"a": [{"at": 3}, {"at": 4}]}, ("/a/*/at",), []),
        ({"a": [{"at": 1}]}, {"a": [{"at": 3}]}, ("/a/0/other",), ["body/a/0/at"]),
        ({"a/b": 1}, {"a/b": 2}, ("/a~1b",), []),
        ({"a": "took 12 ms"}, {"a": "took 7 ms"}, ("re: [0-9]+ ms",), []),
        ({"a": "took 12 ms"}, {"a": "took 7 s"}, ("re: [0-9]+ ms",), ["body/a"]),
        ({"someone@example.com": 1}, {"someone@example.com": 2}, (), ["body/*"]),
        ([], {}, (), ["body"]),
        ("[not json", "[no json", (), ["body"]),
        (MANY, dict.fromkeys(MANY, 2), (), [f"body/{n}" for n in sorted(MANY)][:10]),
    ],
)  # fmt: skip
def test_rules(one: Json, other: Json, ignore: tuple[str, ...], found: list[str]) -> None:
    assert places(seen(one), seen(other), *ignore) == found


def test_texts_and_headers() -> None:
    text = {"kind": "text/plain"}
    assert places(seen("now 12:00", **text), seen("now 13:00", **text), "re: [0-9:]+") == []
    tagged = seen(1, headers={"content-type": "application/json", "x-tag": "1", "date": "x"})
    assert places(tagged, seen(1)) == ["header x-tag"]
    assert places(tagged, seen(1), "header: X-Tag") == []


def test_an_answer_too_long_is_not_taken_for_the_same() -> None:
    long = seen("a" * MOST_BYTES, whole=False)
    assert places(long, long) == ["body/(too long to compare)"]


def test_a_bad_pattern_is_told() -> None:
    with pytest.raises(Invalid, match="a pattern that is none"):
        places(seen(1), seen(2), "re: [")
