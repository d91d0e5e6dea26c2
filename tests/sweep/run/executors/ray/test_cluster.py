"""A cluster's resources against those that trials request; unreachable addresses; nodes that come and go."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sweep.run.executors.base import ExecutorOptions
from sweep.run.executors.ray import cluster
from sweep.run.executors.ray.cluster import (
    Autoscaler,
    ClusterError,
    ClusterLostError,
    NodeWatch,
    ResourcesError,
    Room,
    check_room,
    named_address,
    require_answer,
)
from tests.processes import free_port
from tests.works import Silent

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


@pytest.mark.parametrize("address", ["127.0.0.1:PORT", "ray://127.0.0.1:PORT", "no-such-machine.invalid:6379"])
def test_a_dead_address_is_named_with_its_variable(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = address.replace("PORT", str(free_port()))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError) as caught:
        require_answer()
    assert f"RAY_ADDRESS is {address!r}" in str(caught.value)
    assert "unset RAY_ADDRESS" in str(caught.value)


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port with a listening server that is not Ray."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        done = threading.Event()

        def answer() -> None:
            server.settimeout(0.1)
            while not done.is_set():
                try:
                    connection, _ = server.accept()
                    connection.close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        done.set()
        thread.join()


def test_a_port_of_something_else_is_no_cluster(deaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{deaf}")
    monkeypatch.setattr(cluster, "_GREETING_S", 0.5)
    with pytest.raises(ClusterError, match="does not answer as Ray does"):
        require_answer()


def test_ray_is_greeted_directly_although_there_is_a_proxy(deaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import grpc

    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{deaf}")
    for variable in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "grpc_proxy", "RAY_USE_TLS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(cluster, "_GREETING_S", 5.0)
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    try:
        require_answer()
    finally:
        server.stop(None).wait()


def test_ray_that_encrypts_is_not_greeted_in_plain_text(deaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{deaf}")
    monkeypatch.setenv("RAY_USE_TLS", "1")
    monkeypatch.setattr(cluster, "_GREETING_S", 0.5)
    require_answer()


@pytest.mark.parametrize("value", ["", " ", "local"])
def test_no_address_is_this_machine(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert named_address() is None
    require_answer()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("head:6379", ("head", 6379)),
        ("[::1]:6379", ("::1", 6379)),
        ("ray://head:10001", ("head", 10001)),
        ("ray://head", ("head", 10001)),
        ("10.0.0.1", ("10.0.0.1", 6379)),
        ("auto", None),
        ("anyscale://x", None),
    ],
)
def test_addresses_are_read(address: str, place: tuple[str, int] | None) -> None:
    assert cluster._host_and_port(address) == place


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_long_for_sockets_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, "/scratch/" + "job" * 40)
    said = cluster._not_started(OSError("AF_UNIX path length cannot exceed 107 bytes: /scratch/..."))
    assert f"{variable} is '/scratch/jobjob" in said
    assert "RAY_TMPDIR=/tmp" in said


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


def test_children_started_while_connecting_never_see_a_closed_terminal() -> None:
    import signal
    import subprocess
    import sys

    with cluster._sighup_blocked_in_children():
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"], stdout=subprocess.PIPE
        )
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    alive = child.poll() is None
    child.kill()
    child.wait()
    assert alive
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


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
    import json

    from ray._private.state import state

    status = {"autoscaler_report": {"active_nodes": dict.fromkeys(names, 1)}}
    monkeypatch.setattr("ray.experimental.internal_kv._internal_kv_get", lambda _: json.dumps(status).encode())
    monkeypatch.setattr(state, "get_cluster_config", lambda: None)
    assert (cluster.find_autoscaler() is not None) == is_one


def test_node_groups_of_the_cluster_are_what_its_autoscaler_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from ray._private.state import state

    groups = [
        SimpleNamespace(name="gpu-big", resources={"CPU": 32, "GPU": 8}, max_count=4),
        SimpleNamespace(name="retired", resources={"CPU": 64}, max_count=0),
        SimpleNamespace(name="node_" + "0a" * 28, resources={"CPU": 2}, max_count=1),
    ]
    monkeypatch.setattr(state, "get_cluster_config", lambda: SimpleNamespace(node_group_configs=groups))
    assert cluster.find_autoscaler() == Autoscaler((Room("gpu-big", 32, 8),))
