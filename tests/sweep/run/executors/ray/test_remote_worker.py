"""A trial's folder on a node that does not see the home, and the one under the home, say the same at every moment."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.checkpoint import Checkpoint, CheckpointFolder
from jobs.config import TrialConfig
from jobs.trial import Runtime
from results.records.journal import Journal, read_events
from results.records.trial_folder import (
    MEASUREMENTS_FILENAME,
    PRUNE_FILENAME,
    RESULT_FILENAME,
    read_result,
    trial_status,
)
from sweep.run.executors.ray import remote_worker as away
from sweep.run.executors.ray.file_server import Keeper, TrialMovedError
from sweep.run.executors.ray.remote_worker import Courier, attempt_away, scratch_home
from sweep.run.stop import request_prune, withdraw_prune
from tests.processes import wait_for

KEY = "0123456789abcdef"


@pytest.fixture
def there(tmp_path) -> Path:
    """The driver's home."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPLATSWEEP_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(away, "_PIECE", 100)  # files of several pieces
    monkeypatch.setattr(away, "_INTERVAL_S", 3600)  # what is sent is sent when a test says so
    return scratch_home()


@pytest.fixture
def keeper(there) -> Keeper:
    return Keeper(str(there), str(there / "stop"))


def caller(keeper: Keeper, allowed: int | None = None) -> Callable[..., Any]:
    """Calls the keeper as a worker does; a connection that breaks after so many calls."""
    calls = 0

    def call(method: str, *values: Any) -> Any:
        nonlocal calls
        calls += 1
        if allowed is not None and calls > allowed:
            raise ConnectionError
        return getattr(keeper, method)(*values)

    return call


def train(folder: Path, first: int, last: int) -> None:
    """What a trial leaves behind: a log, a line every iteration, a checkpoint every second one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").touch()
    with Journal(folder) as journal:
        journal.start(first)
        for step in range(first + 1, last + 1):
            journal.metrics(step, {"train/loss": 1 / step})
            if step % 2 == 0:
                weight = torch.full((50,), float(step))
                CheckpointFolder(folder / "checkpoints").save(Checkpoint(step, {"network.w": weight}, {}))


def finish(folder: Path) -> None:
    measurements = b"measured" * 40
    (folder / MEASUREMENTS_FILENAME).write_bytes(measurements)
    (folder / RESULT_FILENAME).write_text(json.dumps({"per_object_sha256": sha256(measurements).hexdigest()}))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_trial_makes_arrives_and_the_next_worker_goes_on_from_it(there, keeper, scratch):
    mine, theirs = scratch / "trials" / KEY, there / "trials" / KEY
    with Courier(caller(keeper), KEY, scratch):
        train(mine, 0, 5)
        made = contents(mine)
    assert contents(theirs) == made
    assert not mine.exists()
    with Courier(caller(keeper), KEY, scratch):
        assert contents(mine) == made
        assert CheckpointFolder(mine / "checkpoints").latest().step == 4
        train(mine, 4, 9)
        finish(mine)
        made = contents(mine)
    assert contents(theirs) == made
    assert {path.stem for path in (theirs / "checkpoints").iterdir()} == {"000000006", "000000008"}
    assert trial_status(theirs) == "finished"


def test_wherever_the_connection_breaks_the_home_is_sound(there, scratch):
    mine = scratch / "trials" / KEY
    for allowed in range(200):
        home = there / str(allowed)
        theirs = home / "trials" / KEY
        train(theirs, 0, 2)
        try:
            with Courier(caller(Keeper(str(home), str(home / "stop")), allowed), KEY, scratch):
                train(mine, 2, 6)
                finish(mine)
            break
        except ConnectionError:
            saved = CheckpointFolder(theirs / "checkpoints").latest()
            recorded = {event["step"] for event in read_events(theirs) if event["event"] == "metrics"}
            assert recorded >= set(range(1, saved.step + 1))
            assert read_result(theirs) is None or CheckpointFolder(theirs / "checkpoints").latest().step == 6
    else:
        pytest.fail("it never got through")
    assert allowed > 20
    assert read_result(theirs) is not None
    assert CheckpointFolder(theirs / "checkpoints").latest().step == 6


def test_line_that_was_cut_short_in_the_home_is_written_anew(there, keeper, scratch):
    theirs = there / "trials" / KEY
    train(theirs, 0, 1)
    with (theirs / "journal.jsonl").open("a") as stream:
        stream.write('{"event": "metr')
    with Courier(caller(keeper), KEY, scratch):
        train(scratch / "trials" / KEY, 1, 2)
    assert [event["event"] for event in read_events(theirs)] == ["start", "metrics", "start", "metrics"]


def test_worker_whose_trial_moved_writes_nothing_more_and_stops(there, keeper, scratch, monkeypatch):
    monkeypatch.setattr(away, "_INTERVAL_S", 0.01)
    mine, theirs = scratch / "trials" / KEY, there / "trials" / KEY
    courier = Courier(caller(keeper), KEY, scratch).__enter__()
    keeper.take_over(KEY, "another")
    train(mine, 0, 3)
    wait_for(courier.stop_file.exists, "a stop")
    with pytest.raises(TrialMovedError):
        courier.__exit__(None, None, None)
    assert not theirs.exists()


def test_stop_is_passed_on_both_ways(there, keeper, scratch, monkeypatch):
    monkeypatch.setattr(away, "_INTERVAL_S", 0.01)
    with Courier(caller(keeper), KEY, scratch) as courier:
        assert not courier.stop_file.exists()
        (there / "stop").write_text("enough")
        wait_for(courier.stop_file.exists, "a stop")
        assert courier.stop_file.read_text() == "enough"
    (there / "stop").unlink()
    with Courier(caller(keeper), KEY, scratch) as courier:
        courier.stop_file.write_text("no room")
    assert (there / "stop").read_text() == "no room"


def test_trial_that_a_search_gives_up_hears_of_it_and_the_wish_is_not_sent_back(there, keeper, scratch, monkeypatch):
    monkeypatch.setattr(away, "_INTERVAL_S", 0.01)
    mine, theirs = scratch / "trials" / KEY, there / "trials" / KEY
    theirs.mkdir(parents=True)
    with Courier(caller(keeper), KEY, scratch):
        request_prune(theirs, "worse than the median")
        wait_for((mine / PRUNE_FILENAME).exists, "the wish")
        assert (mine / PRUNE_FILENAME).read_text() == "worse than the median"
        withdraw_prune(theirs)
    assert not (theirs / PRUNE_FILENAME).exists()


def test_full_disk_under_the_home_stops_the_trial_and_loses_nothing(there, keeper, scratch, monkeypatch):
    monkeypatch.setattr(away, "_INTERVAL_S", 0.01)
    mine, theirs = scratch / "trials" / KEY, there / "trials" / KEY

    opened = os.open

    def full(path: Path | str, *options: int) -> int:
        if Path(path).is_relative_to(theirs):
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *options)

    with Courier(caller(keeper), KEY, scratch) as courier:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", full)
            train(mine, 0, 4)
            wait_for(courier.stop_file.exists, "a stop")
        assert json.loads((there / "stop").read_text())["cause"] == "disk"
        made = contents(mine)
    assert contents(theirs) == made


def test_node_without_the_dataset_says_where_it_belongs(there, keeper, scratch):
    config = TrialConfig.model_validate({"data": {"name": "srn_cars"}})
    attempt_away(caller(keeper), KEY, config, there, Runtime(), fail_fast=True)
    (failed,) = read_events(there / "trials" / KEY)
    assert failed["event"] == "failed"
    assert f"does not see {there} and works in {scratch}" in failed["error"]
    assert "splatsweep data prepare srn_cars" in failed["error"]
    assert f"--home {scratch}, or set SPLATSWEEP_SCRATCH" in failed["error"]
    assert (there / "stop").exists(), "fail_fast"


def test_node_with_other_data_than_planned_trains_nothing(home, keeper, there, scratch, tiny):
    (home / "data").rename(scratch / "data")
    config = TrialConfig.model_validate(tiny())
    attempt_away(caller(keeper), KEY, config, there, Runtime(), fail_fast=False)
    (failed,) = read_events(there / "trials" / KEY)
    assert "the dataset or weights differ from those that were planned" in failed["error"]
