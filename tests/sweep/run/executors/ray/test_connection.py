"""Addresses of clusters that answer, do not answer, or are something else; Ray's processes on this machine."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sweep.run.executors.ray import connection
from sweep.run.executors.ray.connection import ClusterError, named_address, require_answer
from tests.processes import free_port


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
                    accepted, _ = server.accept()
                    accepted.close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        done.set()
        thread.join()


def test_a_port_of_something_else_is_no_cluster(deaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{deaf}")
    monkeypatch.setattr(connection, "_GREETING_S", 0.5)
    with pytest.raises(ClusterError, match="does not answer as Ray does"):
        require_answer()


def test_ray_is_greeted_directly_although_there_is_a_proxy(deaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import grpc

    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{deaf}")
    for variable in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "grpc_proxy", "RAY_USE_TLS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(connection, "_GREETING_S", 5.0)
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
    monkeypatch.setattr(connection, "_GREETING_S", 0.5)
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
    assert connection._host_and_port(address) == place


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_long_for_sockets_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, "/scratch/" + "job" * 40)
    said = connection._not_started(OSError("AF_UNIX path length cannot exceed 107 bytes: /scratch/..."))
    assert f"{variable} is '/scratch/jobjob" in said
    assert "RAY_TMPDIR=/tmp" in said


def test_children_started_while_connecting_never_see_a_closed_terminal() -> None:
    with connection._sighup_blocked_in_children():
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
