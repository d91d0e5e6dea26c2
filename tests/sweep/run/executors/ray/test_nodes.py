"""Nodes that come and go, and those that an autoscaler may add."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ray._private.state import state

from sweep.run.executors.ray.nodes import ClusterLostError, NodeWatch, find_autoscaler
from sweep.run.executors.room import Autoscaler, Room
from tests.works import Silent

LAPTOP, SERVER = Room("10.0.0.1", 2, 0), Room("10.0.0.2", 16, 4)


def test_nodes_that_join_and_leave_are_reported_once() -> None:
    notices = Silent()
    watch = NodeWatch(notices, {"a": LAPTOP, "b": SERVER})
    watch.look({"a": LAPTOP, "b": SERVER})
    assert notices.said == []
    watch.look({"a": LAPTOP})
    watch.look({"a": LAPTOP})
    (left,) = notices.said
    assert "10.0.0.2" in left
    assert "has left the cluster; 1 node left" in left
    watch.look({"a": LAPTOP, "c": SERVER})
    assert "has joined" in notices.said[-1]
    with pytest.raises(ClusterLostError, match="nothing is lost"):
        watch.look({})


@pytest.mark.parametrize(
    ("names", "is_one"),
    [
        ([], False),
        (["node_" + "0a" * 28], False),
        (["local"], False),
        (["ray.worker.gpu"], True),
        (["node_pool_a"], True),
    ],
)
def test_types_that_somebody_named_mean_an_autoscaler(
    names: list[str], is_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = {"autoscaler_report": {"active_nodes": dict.fromkeys(names, 1)}}
    monkeypatch.setattr("ray.experimental.internal_kv._internal_kv_get", lambda _: json.dumps(status).encode())
    monkeypatch.setattr(state, "get_cluster_config", lambda: None)
    assert (find_autoscaler() is not None) == is_one


def test_node_groups_of_the_cluster_are_what_its_autoscaler_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [
        SimpleNamespace(name="gpu-big", resources={"CPU": 32, "GPU": 8}, max_count=4),
        SimpleNamespace(name="retired", resources={"CPU": 64}, max_count=0),
        SimpleNamespace(name="node_" + "0a" * 28, resources={"CPU": 2}, max_count=1),
    ]
    monkeypatch.setattr(state, "get_cluster_config", lambda: SimpleNamespace(node_group_configs=groups))
    assert find_autoscaler() == Autoscaler((Room("gpu-big", 32, 8),))
