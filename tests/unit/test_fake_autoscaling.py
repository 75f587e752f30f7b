"""The fake cluster's autoscaler counts as Kubernetes documents it."""

from __future__ import annotations

import pytest

from penstock.testing.kubernetes import autoscaling
from penstock.testing.kubernetes.kinds import Object


def spec(**rest: object) -> Object:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    made = {"scaleTargetRef": target, "maxReplicas": 10, "metrics": [{"type": "Resource", "resource": cpu}]}
    found = {**made, **rest}
    autoscaling.fill(found)
    return found


@pytest.mark.parametrize(
    ("current", "ready", "used", "enough"),
    [
        (2, 2, 100.0, 4),
        (4, 4, 25.0, 2),
        (3, 3, 60.0, 4),  # rounded up
        (3, 3, 54.0, 3),  # a tenth more, or less, is as good
        (3, 3, 46.0, 3),
        (3, 3, 44.0, 3),  # 2.64, rounded up
        (4, 1, 100.0, 4),  # three that come up may have nothing to do yet
        (4, 3, 100.0, 6),
        (4, 2, 0.0, 0),  # the bounds say the rest
    ],
)
def test_how_many_copies_are_enough(current: int, ready: int, used: float, enough: int) -> None:
    assert autoscaling.enough(spec(), current, ready, used) == enough


def test_bounds_hold_whatever_would_be_enough() -> None:
    assert [autoscaling.bounded(spec(minReplicas=2), count) for count in (0, 2, 7, 11)] == [2, 2, 7, 10]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"minReplicas": 0}, "spec.minReplicas"),
        ({"minReplicas": 3, "maxReplicas": 2}, "spec.maxReplicas"),
        ({"scaleTargetRef": {"kind": "Deployment"}}, "spec.scaleTargetRef"),
        ({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}}, "spec.behavior"),
        ({"metrics": []}, "spec.metrics"),
        ({"metrics": [{"type": "Pods"}]}, "spec.metrics"),
        (
            {"metrics": [{"type": "Resource", "resource": {"name": "memory", "target": {}}}]},
            "spec.metrics[0]",
        ),
    ],
)
def test_what_the_api_or_the_fake_does_not_take_is_refused(wrong: Object, field: str) -> None:
    assert [where for where, _ in autoscaling.faults(spec(**wrong))] == [field]


def test_what_is_fine_is_taken() -> None:
    assert list(autoscaling.faults(spec(behavior={}))) == []
    assert autoscaling.window(spec(behavior={})) == 300
    assert autoscaling.window(spec(behavior={"scaleDown": {"stabilizationWindowSeconds": 5}})) == 5
