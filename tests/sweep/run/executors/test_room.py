"""The resources of machines and nodes against those that trials request."""

from __future__ import annotations

import pytest

from sweep.run.executors.base import ExecutorOptions
from sweep.run.executors.room import Autoscaler, ResourcesError, Room, check_room

LAPTOP, SERVER = Room("10.0.0.1", 2, 0), Room("10.0.0.2", 16, 4)


def options(cpus: int = 1, gpus: float = 0.0) -> ExecutorOptions:
    return ExecutorOptions(cpus_per_trial=cpus, gpus_per_trial=gpus)


@pytest.mark.parametrize(("cpus", "gpus"), [(1, 0), (16, 1), (2, 0.25), (1, 1)])
def test_what_fits_on_a_node_is_accepted(cpus: int, gpus: float) -> None:
    assert check_room(options(cpus, gpus), [LAPTOP, SERVER], None, "head:6379") is None


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "words"),
    [
        (64, 0, [LAPTOP], ["run.cpus_per_trial is 64", "at most 2 CPUs", "--set run.cpus_per_trial=2"]),
        (1, 1, [LAPTOP], ["run.gpus_per_trial is 1", "at most 0 GPUs", "--set run.gpus_per_trial=0", "submit"]),
        (1, 0.25, [LAPTOP], ["run.gpus_per_trial is 0.25"]),
        (64, 1, [LAPTOP], ["run.cpus_per_trial is 64", "run.gpus_per_trial is 1", "at most 0 GPUs"]),
        (8, 1, [Room("a", 16, 0), Room("b", 4, 2)], ["on no node together", "a: 16 CPUs, 0 GPUs"]),
    ],
)
def test_what_no_node_can_ever_have_is_refused(cpus: int, gpus: float, nodes: list[Room], words: list[str]) -> None:
    with pytest.raises(ResourcesError) as caught:
        check_room(options(cpus, gpus), nodes, None, None)
    for word in words:
        assert word in str(caught.value)


def test_what_an_autoscaler_can_add_is_waited_for_by_name() -> None:
    autoscaler = Autoscaler((Room("cpu-small", 4, 0), Room("gpu-big", 32, 8)))
    lacking = check_room(options(8, 1), [LAPTOP], autoscaler, "head:6379")
    assert lacking is not None
    assert "gpu-big" in lacking
    assert "cpu-small" not in lacking
    with pytest.raises(ResourcesError, match="nor one that its autoscaler adds"):
        check_room(options(64), [LAPTOP], autoscaler, "head:6379")
    assert "autoscaler" in str(check_room(options(64, 1), [LAPTOP], Autoscaler(()), "head:6379"))


def test_workers_are_waited_for_where_only_a_head_without_cpus_has_joined() -> None:
    lacking = check_room(options(2, 1), [Room("head", 0, 0)], None, "head:6379")
    assert lacking == "a worker node to join the cluster, with 2 CPUs and 1 GPU; no node has CPUs yet"
