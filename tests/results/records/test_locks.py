"""Locks that are looked at."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from results.records.locks import is_held


def test_a_lock_is_held_from_its_acquisition_to_its_release(tmp_path: Path) -> None:
    path = tmp_path / "driver.lock"
    with FileLock(path):
        assert is_held(path)
        path.chmod(0o444)  # looking opens nothing for writing
        assert is_held(path)
    with path.open("rb") as another:
        fcntl.flock(another, fcntl.LOCK_SH)  # another process looks at the same time
        assert not is_held(path)


def test_looking_makes_no_file(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "no folder" / "driver.lock")
    assert not is_held(tmp_path / "driver.lock")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_on_storage_without_locks_is_held_by_a_living_process(tmp_path: Path, monkeypatch) -> None:
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    path, ended = tmp_path / "driver.lock", subprocess.Popen(["true"])
    ended.wait()
    path.touch()  # as copied from storage with locks
    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert not is_held(path)
    path.unlink()
    lock = FileLock(path)
    with pytest.warns(UserWarning, match="flock"):
        lock.acquire()
    with lock:
        assert is_held(path)
        marker = path.read_text()
    lock.release()
    assert not is_held(path)
    path.write_text(marker.replace(str(os.getpid()), str(ended.pid)))
    assert not is_held(path)
    path.write_text(path.read_text().replace(socket.gethostname(), "elsewhere"))
    assert is_held(path)
