"""One driver runs a sweep; another process can stop it from the moment at which it holds the lock."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from filelock import FileLock

from results.records.disk import DiskFullError
from results.records.home import driver_lock_file, sweep_folder
from sweep.file.schema import Sweep
from sweep.run import driver_lock
from sweep.run.driver import run_sweep
from sweep.run.driver_lock import SweepIdleError, is_driven, sole_driver, stop_sweep
from sweep.run.stop import stop_requested
from sweep.terminal import Terminal

SWEEP = Sweep(name="s")


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the sweep after its driver was killed behind a request to stop."""
    monkeypatch.setattr(driver_lock, "_RECORD_S", math.inf)
    folder = sweep_folder(tmp_path, "s")
    folder.mkdir(parents=True)
    (folder / "driver.json").write_text(json.dumps({"pid": 4711, "host": "elsewhere"}))
    (folder / "stop").write_text("{}")
    return folder


def test_a_driver_takes_over_from_one_that_was_killed_and_leaves_nothing(left: Path, tmp_path: Path) -> None:
    output = io.StringIO()
    with sole_driver(SWEEP, tmp_path, Terminal(file=output)):
        assert is_driven("s", tmp_path)
        assert json.loads((left / "driver.json").read_text())["pid"] == os.getpid()
        assert stop_requested(left / "stop") is None
        assert stop_sweep(SWEEP, tmp_path).startswith(f"process {os.getpid()} on ")
    assert "Taking over from process 4711 on elsewhere, which died" in output.getvalue()
    assert {path.name for path in left.iterdir()} <= {"driver.lock"}
    with pytest.raises(SweepIdleError):
        stop_sweep(SWEEP, tmp_path)
    assert not (left / "stop").exists()
    with sole_driver(SWEEP, tmp_path, Terminal(file=output)):
        assert output.getvalue().count("Taking over") == 1


def test_a_stop_reaches_a_driver_that_just_took_the_lock(
    left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It removes the stop file of its predecessor, and would remove the new request with it."""
    unlink, sleep, has_looked = Path.unlink, time.sleep, threading.Event()

    def stop() -> None:
        stop_sweep(SWEEP, tmp_path)
        has_looked.set()

    def wait(seconds: float) -> None:
        has_looked.set()
        sleep(seconds)

    def unlink_after_a_look(path: Path, **options: Any) -> None:
        if path.name == "stop" and stopper.ident is None:
            stopper.start()
            has_looked.wait()
        unlink(path, **options)

    stopper = threading.Thread(target=stop)
    monkeypatch.setattr(driver_lock.time, "sleep", wait)
    monkeypatch.setattr(Path, "unlink", unlink_after_a_look)
    with sole_driver(SWEEP, tmp_path, Terminal(file=io.StringIO())):
        stopper.join()
        asked = stop_requested(left / "stop")
    assert asked is not None
    assert asked.reason == "by `splatsweep stop`"


def test_a_driver_whose_record_was_deleted_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_lock, "_RECORD_S", 0.0)
    lock = driver_lock_file(tmp_path, "s")
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        assert stop_sweep(SWEEP, tmp_path) == "an unknown driver"
    assert stop_requested(lock.with_name("stop")) is not None


def test_a_disk_without_room_for_the_record_is_named_and_the_lock_is_free_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _text: str) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskFullError, match=r"driver\.json; make room and run it again"):
        run_sweep(SWEEP, tmp_path, console=Terminal(file=io.StringIO()))
    assert not is_driven("s", tmp_path)
