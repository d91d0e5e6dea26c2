"""The cluster that trials run on: connecting to it, comparing its resources with requests, and watching its nodes."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import secrets
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.pause_gc import garbage_collection_paused
from sweep.run.executors.base import ExecutorOptions, Notices
from sweep.terminal import counted

ADDRESS_VARIABLE, FOLDER_VARIABLE = "RAY_ADDRESS", "RAY_TMPDIR"
_TLS_VARIABLE = "RAY_USE_TLS"

#: Seconds that a machine may take to accept a connection, and Ray to answer.
_ANSWER_S, _GREETING_S = 5.0, 10.0
_RAY_PORT, _CLIENT_PORT = 6379, 10001


class ClusterError(RuntimeError):
    """Ray cannot be reached, or cannot be started on this machine."""


class ResourcesError(ValueError):
    """Trials request resources that no node of the cluster has, now or later."""


class ClusterLostError(RuntimeError):
    """All nodes of Ray and the trials' workers are dead; the trials' folders are intact."""


# Connecting


def named_address() -> str | None:
    """The cluster named by RAY_ADDRESS; None where Ray is started on this machine."""
    address = os.environ.get(ADDRESS_VARIABLE, "").strip()
    return None if address in ("", "local") else address


def require_answer() -> None:
    """Raises `ClusterError` within seconds where no Ray answers at RAY_ADDRESS."""
    address = named_address()
    place = None if address is None else _host_and_port(address)
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=_ANSWER_S).close()
        _check_grpc(*place)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ClusterError(_unreachable(reason)) from error


def connect() -> None:
    """Attaches to the cluster named by RAY_ADDRESS, or starts Ray on this machine.  Raises `ClusterError`."""
    import ray

    if ray.is_initialized():
        return
    require_answer()
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        with _sighup_blocked_in_children():
            if named_address() is not None:
                ray.init(**quiet)
            else:
                _provide_token()
                ray.init(address="local", include_dashboard=False, runtime_env=_python_of_workers(), **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(_not_started(error)) from error
    if named_address() is None:
        with suppress(OSError):  # Ray did not write it, as where a variable has the token
            _token_file().chmod(0o600)  # it writes it with read permission for all users


def _provide_token() -> None:
    """Sets a token for a Ray on this machine where Ray could not store its own, for want of a writable home directory.

    So it is in a container that runs as a user whom its image does not know: its home directory is the root.
    """
    if any(os.environ.get(variable) for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    folder = _token_file().parent
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _token_file() -> Path:
    """The file in which Ray stores the token of this user."""
    return Path.home() / ".ray" / "auth_token"


def _python_of_workers() -> dict[str, str]:
    """The runtime environment in which workers on this machine find this Python.

    A shell starts them, to which Ray 2.60 passes the interpreter's path as it is, with its spaces.
    """
    executable = shlex.quote(sys.executable)
    return {} if executable == sys.executable else {"py_executable": executable}


def logs_folder() -> Path:
    """The folder of the logs of the Ray that was started last on this machine."""
    return Path(os.environ.get(FOLDER_VARIABLE) or tempfile.gettempdir()) / "ray" / "session_latest" / "logs"


def disconnect() -> None:
    """Ends the connection, and Ray if `connect` started it.

    Garbage is collected before and not meanwhile: where the collection of another thread frees an object of Ray's
    during the shutdown, Ray 2.60 ends the process.
    """
    import ray

    gc.collect()
    with garbage_collection_paused():
        ray.shutdown()


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Host and port of an address; None for one that only Ray can resolve, such as `auto`."""
    scheme, separator, rest = address.rpartition("://")
    if separator and scheme != "ray":
        return None
    host, colon, port = rest.rpartition(":")
    if not colon:
        return (rest, _CLIENT_PORT if separator else _RAY_PORT) if "." in rest or separator else None
    return (host.strip("[]"), int(port)) if port.isdecimal() else None


def _check_grpc(host: str, port: int) -> None:
    """Raises OSError where the listening server does not speak gRPC, as Ray does.

    Where Ray encrypts its connections, a greeting would require its certificates; none is sent.
    """
    if os.environ.get(_TLS_VARIABLE, "").lower() in ("1", "true"):
        return
    import grpc

    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:  # as Ray connects
        try:
            grpc.channel_ready_future(channel).result(timeout=_GREETING_S)
        except grpc.FutureTimeoutError:
            raise OSError("something listens there, but it does not answer as Ray does") from None


def _unreachable(reason: str) -> str:
    return (
        f"{ADDRESS_VARIABLE} is {os.environ[ADDRESS_VARIABLE]!r}, but no Ray cluster answers there ({reason}); "
        f"start that cluster, correct {ADDRESS_VARIABLE}, or run `unset {ADDRESS_VARIABLE}` to use this machine"
    )


def _not_started(error: Exception) -> str:
    reason = " ".join(str(error).split())
    if "AF_UNIX path length" in reason:
        variable = FOLDER_VARIABLE if os.environ.get(FOLDER_VARIABLE) else "TMPDIR"
        folder = os.environ.get(variable) or tempfile.gettempdir()
        return (
            f"Ray cannot start: {variable} is {folder!r}, too long for the names of its sockets ({reason}); "
            f"set {FOLDER_VARIABLE} to a short local folder, for instance {FOLDER_VARIABLE}=/tmp"
        )
    if named_address() is not None:
        return _unreachable(reason)
    return f"Ray cannot be started on this machine: {reason}"


@contextmanager
def _sighup_blocked_in_children() -> Iterator[None]:
    """Blocks SIGHUP in processes started inside, to which a closed terminal sends it too; ours arrives afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Resources


@dataclass(frozen=True)
class Room:
    """The resources of one node, or of one kind of node that an autoscaler adds."""

    name: str
    cpus: float
    gpus: float

    @classmethod
    def of(cls, name: str, resources: Mapping[str, float]) -> Room:
        """Reads a mapping from Ray's resource names to amounts."""
        return cls(name, resources.get("CPU", 0.0), resources.get("GPU", 0.0))

    def holds(self, cpus: float, gpus: float) -> bool:
        """Whether a trial of this size fits."""
        # A share of a GPU lies within one GPU.
        return self.cpus >= cpus and self.gpus >= gpus

    def __str__(self) -> str:
        return f"{self.name}: {counted(self.cpus, 'CPU')}, {counted(self.gpus, 'GPU')}"


@dataclass(frozen=True)
class Autoscaler:
    """The cluster's autoscaler; `kinds` is empty where it does not list the kinds of node that it adds."""

    kinds: tuple[Room, ...]

    def may_add(self, cpus: float, gpus: float) -> bool:
        """Whether it may add a node that fits a trial of this size."""
        return not self.kinds or any(kind.holds(cpus, gpus) for kind in self.kinds)


def check_room(
    options: ExecutorOptions, nodes: Sequence[Room], autoscaler: Autoscaler | None, cluster: str | None
) -> str | None:
    """A phrase for what trials have to wait for; None where an existing node can run them.

    cluster: the value of RAY_ADDRESS; None for this machine.  Raises `ResourcesError` where no node can ever run one.
    """
    cpus, gpus = options.cpus_per_trial, options.gpus_per_trial
    if any(node.holds(cpus, gpus) for node in nodes):
        return None
    if autoscaler is not None and autoscaler.may_add(cpus, gpus):
        kinds = ", ".join(kind.name for kind in autoscaler.kinds if kind.holds(cpus, gpus))
        return f"the cluster's autoscaler to add a node{f' ({kinds})' if kinds else ''} with {requested(cpus, gpus)}"
    rooms = (*nodes, *(autoscaler.kinds if autoscaler else ()))
    if not any(room.cpus for room in rooms):  # only a head that runs no trials
        return f"a worker node to join the cluster, with {requested(cpus, gpus)}; no node has CPUs yet"
    most = {
        "cpus_per_trial": (cpus, int(max((room.cpus for room in rooms), default=0)), "CPU"),
        "gpus_per_trial": (gpus, int(max((room.gpus for room in rooms), default=0)), "GPU"),
    }
    where = "this machine" if cluster is None else f"a node of the cluster {cluster}"
    whole = "" if autoscaler is None else ", nor one that its autoscaler adds,"
    lacking = [
        f"run.{key} is {value:g}, but {where}{whole} has at most {counted(largest, unit)}; "
        f"lower it: --set run.{key}={largest}"
        for key, (value, largest, unit) in most.items()
        if value > largest
    ]
    if not lacking:
        listed = "; ".join(map(str, rooms))
        lacking = [f"run.cpus_per_trial {cpus} and run.gpus_per_trial {gpus:g} are on no node together ({listed})"]
    if cluster is None and gpus > most["gpus_per_trial"][1]:
        lacking.append("or run it on a cluster that has GPUs: `splatsweep submit`")
    raise ResourcesError("no trial could ever start: " + "\n".join(lacking))


def requested(cpus: float, gpus: float) -> str:
    """The resources that a trial requests, in words: 2 CPUs and 1 GPU."""
    return counted(cpus, "CPU") + (f" and {counted(gpus, 'GPU')}" if gpus else "")


def living_nodes() -> dict[str, Room]:
    """The nodes that are alive now, by Ray's identifier."""
    import ray

    return {
        node["NodeID"]: Room.of(node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]
    }


def find_autoscaler() -> Autoscaler | None:
    """The cluster's autoscaler; None where it has none."""
    from ray._private.state import state

    config = state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    kinds = [Room.of(g.name, dict(g.resources)) for g in groups if g.max_count and not _is_generated(g.name)]
    if kinds:
        return Autoscaler(tuple(kinds))
    return Autoscaler(()) if _names_node_types() else None


def _names_node_types() -> bool:
    """Whether the monitor of Ray's older autoscaler reports real node types; without one it invents one per node."""
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.experimental.internal_kv import _internal_kv_get

    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}") or {}
    active = (status.get("autoscaler_report") or {}).get("active_nodes") or {}
    return any(not _is_generated(name) for name in active)


def _is_generated(name: str) -> bool:
    """Whether a node type's name was generated by Ray from the node, because none was configured."""
    return name == "local" or re.fullmatch(r"node_[0-9a-f]{16,}", name) is not None


# Nodes that come and go


class NodeWatch:
    """Reports nodes that join or leave the cluster."""

    def __init__(self, notices: Notices, nodes: Mapping[str, Room]) -> None:
        self._notices, self._nodes = notices, dict(nodes)

    def look(self, nodes: Mapping[str, Room]) -> None:
        """Reports the changes since the last call; nodes: those alive now.  Raises `ClusterLostError` where none is."""
        if not nodes:
            raise ClusterLostError("Ray's last node died; nothing is lost: run the same command again")
        for identifier in self._nodes.keys() - nodes.keys():
            self._notices.say(
                f"Node {self._nodes[identifier]} has left the cluster; {counted(len(nodes), 'node')} left. "
                "Its trials continue on other nodes, from their last checkpoints."
            )
        for identifier in nodes.keys() - self._nodes.keys():
            self._notices.say(f"Node {nodes[identifier]} has joined the cluster.")
        self._nodes = dict(nodes)
