"""The connection to the cluster that RAY_ADDRESS names, or to Ray on this machine."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from results.pause_gc import garbage_collection_paused

ADDRESS_VARIABLE, FOLDER_VARIABLE = "RAY_ADDRESS", "RAY_TMPDIR"
_TLS_VARIABLE = "RAY_USE_TLS"

#: Seconds that a machine may take to accept a connection, and Ray to answer.
_ANSWER_S, _GREETING_S = 5.0, 10.0
_RAY_PORT, _CLIENT_PORT = 6379, 10001


class ClusterError(RuntimeError):
    """Ray cannot be reached, or cannot be started on this machine."""


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
    address = named_address()
    settings: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "runtime_env": python_of_workers(address),
    }
    try:
        with _sighup_blocked_in_children():
            if address is not None:
                ray.init(**settings)
            else:
                _provide_token()
                ray.init(address="local", include_dashboard=False, **settings)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(_not_started(error)) from error
    if address is None:
        with suppress(OSError):  # Ray did not write it, as where a variable has the token
            _token_file().chmod(0o600)  # it writes it with read permission for all users


def _provide_token() -> None:
    """Sets a token for a Ray on this machine where Ray could not store its own, for want of a writable home directory.

    The home directory of a user whom a container's image does not know is the root.
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


def python_of_workers(address: str | None) -> dict[str, str]:
    """The runtime environment in which workers start where the path of Python has spaces; an empty one elsewhere.

    A shell starts them, to which Ray 2.60 passes the path as it is.  A driver that is on a node of its cluster takes
    the path of all nodes for its own; one that is not (`ray://`) does not know theirs.
    """
    executable = shlex.quote(sys.executable)
    is_usual = executable == sys.executable or (address or "").startswith("ray://")
    return {} if is_usual else {"py_executable": executable}


def logs_folder() -> Path:
    """The folder of the logs of the Ray that this process started."""
    import ray

    context = ray.get_runtime_context()
    return Path(context.get_temp_dir(), context.get_session_name(), "logs")


def _folder_of_sessions() -> tuple[str, str]:
    """The variable that determines where Ray stores its state on this machine, and the folder."""
    variable = FOLDER_VARIABLE if os.environ.get(FOLDER_VARIABLE) else "TMPDIR"
    return variable, os.environ.get(variable) or tempfile.gettempdir()


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
        variable, folder = _folder_of_sessions()
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
