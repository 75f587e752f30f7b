"""A proxy that watches too many files ends itself: that there is room for more is found out before."""

from __future__ import annotations

import errno
import os

import pytest

from penstock.adapters.envoy.watches import SPARE, check_room, inotify, watched
from penstock.core.traffic import Backend, Egress, TrafficPlan
from penstock.errors import Unavailable


class System:
    """Gives out so many descriptors."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.given: list[int] = []

    def begin(self) -> int:
        if len(self.given) == self.left:
            raise OSError(errno.EMFILE, "too many")
        self.given.append(os.open(os.devnull, os.O_RDONLY))
        return self.given[-1]


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("count", [1, 3])
def test_room_for_one_too_few_is_refused_with_what_to_do(count: int) -> None:
    enough, short = System(count + SPARE), System(count + SPARE - 1)
    check_room(count, enough.begin)
    with pytest.raises(Unavailable, match=r"one more service[\s\S]*sysctl fs\.inotify\.max_user_instances"):
        check_room(count, short.begin)
    assert len(enough.given) == count + SPARE
    assert not any(is_open(descriptor) for descriptor in enough.given + short.given)


def test_what_is_known_already_needs_no_room() -> None:
    check_room(0, System(0).begin)


def test_a_system_without_such_a_limit_has_room() -> None:
    check_room(1000, lambda: -1)


def test_the_system_gives_instances_or_has_none() -> None:
    descriptor = inotify()
    if descriptor >= 0:
        assert is_open(descriptor)
        os.close(descriptor)


def test_a_service_and_whom_it_calls_are_watched_once() -> None:
    calls = (Egress("catalog", "unix:/a"), Egress("till", "unix:/b"))
    releases = (Backend("shop-1", ("unix:/1",), egress=calls), Backend("shop-2", ("unix:/2",), egress=calls))
    plans = [TrafficPlan("shop", "test", releases, ()), TrafficPlan("till", "test", (), ())]
    assert watched(plans) == {("shop", "test"), ("catalog", "test"), ("till", "test")}


def test_where_an_elastic_release_is_is_watched_for_users_and_previews() -> None:
    plan = TrafficPlan("shop", "test", (Backend("shop-1", ("unix:/1",), elastic=True),), ())
    assert watched([plan]) == {("shop", "test"), ("shop-1", "users"), ("shop-1", "preview")}
