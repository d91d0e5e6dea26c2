"""A node's scratch home: workers delete what they and killed ones leave, and nothing else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from sweep.run.executors.ray import scratch as module
from sweep.run.executors.ray.scratch import occupied

_KILLED = """
import os, signal, sys
from pathlib import Path
from sweep.run.executors.ray import scratch
if sys.argv[2] == "before its list":
    scratch.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
place = Path(sys.argv[1])
with scratch.occupied(place, "killed", [place / "trials" / "a", place / "trainings" / "t"]) as own:
    (own / "stop").touch()
    for name in ("trials/a", "trainings/t"):
        (place / name / "checkpoints").mkdir(parents=True)
        (place / name / "checkpoints" / "1.safetensors").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_worker(scratch: Path, moment: str = "at work") -> None:
    """Starts a worker of trial `a` and training `t`, and kills it."""
    assert subprocess.run([sys.executable, "-c", _KILLED, scratch, moment], check=False).returncode == -9
    assert (scratch / "workers" / "killed" / "lock").exists()


def names(scratch: Path) -> set[str]:
    return {str(path.relative_to(scratch)) for path in scratch.glob("*/*")} - {"workers/lock"}


def test_the_next_worker_removes_what_a_killed_one_left_and_nothing_else(scratch: Path) -> None:
    kill_a_worker(scratch)
    for name in ("trials/of a sweep here", "data/chairs", "cache/features"):
        (scratch / name).mkdir(parents=True)
    others = {"trials/of a sweep here", "data/chairs", "cache/features"}
    assert names(scratch) == {"trials/a", "trainings/t", "workers/killed", *others}
    with occupied(scratch, "next", [scratch / "trials" / "b"]) as own:
        assert names(scratch) == {"workers/next", *others}
        assert own == scratch / "workers" / "next"
    assert names(scratch) == others


def test_what_another_worker_occupies_stays(scratch: Path) -> None:
    training = scratch / "trainings" / "t"
    with occupied(scratch, "waiting", [scratch / "trials" / "b", training]):
        kill_a_worker(scratch)
        with occupied(scratch, "another", [scratch / "trials" / "c", training]):
            assert names(scratch) == {"trainings/t", "workers/waiting", "workers/another"}
            (scratch / "trials" / "c").mkdir()
        assert names(scratch) == {"trainings/t", "workers/waiting"}
    assert names(scratch) == set()


@pytest.mark.parametrize("content", [None, "", "{}", '{"folders": "trials"}'])
def test_a_worker_that_was_killed_before_its_list_was_written_occupied_nothing(scratch: Path, content) -> None:
    kill_a_worker(scratch, "before its list")
    if content is not None:
        (scratch / "workers" / "killed" / "folders.json").write_text(content)
    (scratch / "trials").mkdir()
    with occupied(scratch, "next", []):
        assert names(scratch) == {"workers/next"}
    assert (scratch / "trials").is_dir()


def test_what_cannot_be_removed_is_left_and_stops_no_trial(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may belong to another user."""
    kill_a_worker(scratch)

    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        with occupied(scratch, "next", []):
            assert {"trials/a", "trainings/t", "workers/killed"} <= names(scratch)
    with occupied(scratch, "last", []):
        assert names(scratch) == {"workers/last"}


def test_folders_are_removed_after_an_error_too(scratch: Path) -> None:
    (scratch / "trials" / "a").mkdir(parents=True)
    with pytest.raises(OSError, match="no room"), occupied(scratch, "own", [scratch / "trials" / "a"]):
        raise OSError("no room")
    assert names(scratch) == set()


def test_workers_come_and_go_one_at_a_time(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one would take the folders of another that has no lock yet for those of a dead one."""
    held = []
    remove = module._remove_abandoned

    def checked(place: Path) -> None:
        held.append(module.is_held(place / "workers" / "lock"))
        remove(place)

    monkeypatch.setattr(module, "_remove_abandoned", checked)
    with occupied(scratch, "own", []):
        assert not module.is_held(scratch / "workers" / "lock")
    assert held == [True, True]
    assert not module.is_held(scratch / "workers" / "lock")
