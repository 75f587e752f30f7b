"""How often a pod's container has ended of late, from looks at its status."""

from __future__ import annotations

import datetime

import pytest

from penstock.adapters._kubernetes import Object
from penstock.adapters.kubernetes.ends import Ends, count_ends

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
RUNS = {"running": {"startedAt": "2026-01-01T12:00:00Z"}}
WAITS = {"waiting": {"reason": "CrashLoopBackOff"}}


def at(seconds: float) -> datetime.datetime:
    return NOON + datetime.timedelta(seconds=seconds)


def pod(restarts: int = 0, ended: float | None = None, state: Object = RUNS, born: float = -1000.0) -> Object:
    """Its container has ended *ended* seconds after noon."""
    finished = None if ended is None else at(ended).strftime("%Y-%m-%dT%H:%M:%SZ")
    last = {"terminated": {"exitCode": 3, "finishedAt": finished}} if finished else {}
    status = {"name": "app", "restartCount": restarts, "state": state, "lastState": last}
    return {
        "metadata": {"uid": "a", "creationTimestamp": at(born).strftime("%Y-%m-%dT%H:%M:%SZ")},
        "status": {"containerStatuses": [status]},
    }


def looked(*looks: tuple[float, Object]) -> list[int]:
    ends = Ends()
    return [ends.look("web-1", [found], at(now))["a"] for now, found in looks]


def test_each_end_counts_for_a_minute() -> None:
    looks = [(0.0, pod()), (11.0, pod(1, 10)), (21.0, pod(2, 20)), (22.0, pod(2, 20)), (31.0, pod(3, 30))]
    assert looked(*looks, (75.0, pod(3, 30)), (85.0, pod(3, 30)), (95.0, pod(3, 30))) == [
        0,
        1,
        2,
        2,
        3,
        2,
        1,
        0,
    ]


def test_what_waits_to_be_started_again_has_ended_once_more_than_it_was_restarted() -> None:
    over = {"terminated": {"exitCode": 3, "finishedAt": "2026-01-01T12:00:10Z"}}
    assert [count_ends(pod(state=over)), count_ends(pod(0, 10, WAITS)), count_ends(pod(1, 10))] == [1, 1, 1]
    assert looked((0.0, pod()), (11.0, pod(state=over)), (12.0, pod(1, 10)), (21.0, pod(1, 20, WAITS)))[
        1:
    ] == [
        1,
        1,
        2,
    ]


def test_the_first_container_that_is_being_made_has_not_ended() -> None:
    assert looked((0.0, pod(state={"waiting": {"reason": "ContainerCreating"}}))) == [0]


@pytest.mark.parametrize(("born", "recent"), [(-1000.0, 1), (-30.0, 5)])
def test_what_ended_before_the_first_look_counts_if_it_must_have_been_of_late(
    born: float, recent: int
) -> None:
    assert looked((0.0, pod(5, -10, born=born))) == [recent]


def test_what_ended_between_two_looks_counts_if_it_must_have_been_of_late() -> None:
    assert looked((0.0, pod()), (50.0, pod(3, 45)), (70.0, pod(3, 45))) == [0, 3, 1]


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_a_cluster_whose_clock_differs_is_believed_no_more_than_our_own(ahead: float) -> None:
    one, two = pod(1, ahead), pod(2, ahead + 29.0)
    looks = [(0.0, pod()), (1.0, one), (29.0, one), (30.0, two), (70.0, two)]
    assert looked(*looks) == [0, 1, 1, 2, 1]


def test_another_pod_of_the_release_begins_anew() -> None:
    ends = Ends()
    ends.look("web-1", [pod(2, 0)], at(0.0))
    other = pod()
    other["metadata"]["uid"] = "b"
    assert ends.look("web-1", [other], at(1.0)) == {"b": 0}
    ends.forget("web-1")
    assert ends.look("web-1", [pod(3, 0)], at(1.0)) == {"a": 1}
