"""A trial's folder on a node that does not see the home is always consistent with the one under the home."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch
from filelock import FileLock, Timeout

from jobs.checkpoint import Checkpoint, CheckpointFolder
from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.keys import keys_of
from jobs.trial import Runtime, run_trial, weight_identities
from results.records.disk import DiskFullError
from results.records.journal import Journal, read_events
from results.records.trial_folder import (
    PRUNE_FILENAME,
    RESULT_FILENAME,
    read_result,
    trial_status,
)
from sweep.run.executors.ray import remote_worker as away
from sweep.run.executors.ray.file_server import TrialFileServer, TrialMovedError
from sweep.run.executors.ray.remote_worker import TrialSync, run_remotely, scratch_home
from sweep.run.executors.ray.worker_deaths import DeadTrials
from sweep.run.stop import request_prune, stop_requested, withdraw_prune
from tests.homes import write_result
from tests.processes import wait_for

KEY, TRAINING = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def there(tmp_path) -> Path:
    """The driver's home."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPLATSWEEP_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(away, "_PIECE", 100)  # so that files have several pieces
    monkeypatch.setattr(away, "INTERVAL_S", 3600)  # so that only the test triggers transfers
    return scratch_home()


@pytest.fixture
def file_server(there) -> TrialFileServer:
    return TrialFileServer(str(there), str(there / "stop"))


def caller(file_server: TrialFileServer, allowed: int | None = None) -> Callable[..., Any]:
    """A function that calls the file_server as a worker does; the connection breaks after `allowed` calls."""
    calls = 0

    def call(method: str, *values: Any) -> Any:
        nonlocal calls
        calls += 1
        if allowed is not None and calls > allowed:
            raise ConnectionError
        return getattr(file_server, method)(*values)

    return call


def trial_in(home: Path) -> Path:
    return home / "trials" / KEY


def training_in(home: Path) -> Path:
    return home / "trainings" / TRAINING


def train(home: Path, first: int, last: int) -> None:
    """Writes a trial's files: a log, a journal line for each iteration, a training checkpoint for every second one."""
    folder = trial_in(home)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").touch()
    with Journal(folder) as journal, Journal(training_in(home)) as own:
        journal.start(first)
        for step in range(first + 1, last + 1):
            for each in (own, journal):
                each.metrics(step, {"train/loss": 1 / step})
            if step % 2 == 0:
                weight = torch.full((50,), float(step))
                checkpoints(home).save(Checkpoint(step, {"network.w": weight}, {}))


def checkpoints(home: Path) -> CheckpointFolder:
    return CheckpointFolder(training_in(home) / "checkpoints")


def end_training(home: Path) -> None:
    folder = training_in(home)
    (folder / "weights.safetensors").write_bytes(b"weights" * 40)
    (folder / "training.json").write_text(json.dumps({"key": TRAINING}))
    shutil.rmtree(folder / "checkpoints")


def contents(home: Path) -> dict[str, bytes]:
    """The content of all files of the trial and its training, except the lock."""
    paths = [path for folder in (trial_in(home), training_in(home)) for path in folder.rglob("*")]
    return {str(path.relative_to(home)): path.read_bytes() for path in paths if path.is_file() and path.name != "lock"}


def test_files_of_a_trial_arrive_and_the_next_worker_resumes_from_them(there, file_server, scratch):
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        train(scratch, 0, 5)
        made = contents(scratch)
    assert contents(there) == made
    assert not contents(scratch)
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        assert contents(scratch) == made
        assert checkpoints(scratch).latest().step == 4
        train(scratch, 4, 9)
        made = contents(scratch)
    assert contents(there) == made
    assert {path.stem for path in (training_in(there) / "checkpoints").iterdir()} == {"000000006", "000000008"}
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        end_training(scratch)
        write_result(trial_in(scratch), b"measured" * 40)
        made = contents(scratch)
    assert contents(there) == made
    assert not any("checkpoints" in name for name in made)
    assert trial_status(trial_in(there)) == "finished"


def test_a_training_has_one_worker_at_a_time(there, file_server, scratch, monkeypatch):
    monkeypatch.setattr(away, "INTERVAL_S", 0.01)
    other = "another trial of the same training"
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        train(scratch, 0, 2)
        assert file_server.take_over(other, TRAINING, "worker") is None
        assert file_server.take_over("a control", None, "worker") == []
        with pytest.raises(Timeout):  # trials that see the home are kept from it too
            FileLock(training_in(there) / "lock").acquire(timeout=0)
    assert f"trainings/{TRAINING}/journal.jsonl" in file_server.take_over(other, TRAINING, "worker")
    (there / "stop").write_text("enough")
    with TrialSync(caller(file_server), KEY, TRAINING, scratch) as sync:  # waits, until there is no sense in it
        assert sync.stop_file.exists()
        assert not contents(scratch)


def test_a_training_is_free_when_the_worker_that_ran_it_died(there, file_server, scratch):
    """Else the trial that waits for it would keep the CPUs that a restart of the dead one needs."""
    sync = TrialSync(caller(file_server), KEY, TRAINING, scratch).__enter__()
    train(scratch, 0, 2)
    with Journal(trial_in(scratch)) as journal:
        journal.start(2)
    sync.send()
    assert file_server.take_over("another", TRAINING, "worker") is None
    dead = SimpleNamespace(config={"point": {"key": KEY}})
    DeadTrials(there, 2, None, file_server.release).on_trial_recover(0, [], dead)
    assert file_server.take_over("another", TRAINING, "worker") is not None
    train(scratch, 2, 4)
    with pytest.raises(TrialMovedError):  # it was alive, behind a broken connection
        sync.send()
    assert file_server.take_over(KEY, TRAINING, "its next worker") is None


def test_wherever_the_connection_breaks_the_home_is_sound(there, scratch):
    for allowed in range(200):
        home = there / str(allowed)
        train(home, 0, 2)
        try:
            with TrialSync(caller(TrialFileServer(str(home), str(home / "stop")), allowed), KEY, TRAINING, scratch):
                train(scratch, 2, 6)
                write_result(trial_in(scratch), b"measured" * 40)
            break
        except ConnectionError:
            saved = checkpoints(home).latest()
            for folder in (trial_in(home), training_in(home)):
                recorded = {event["step"] for event in read_events(folder) if event["event"] == "metrics"}
                assert recorded >= set(range(1, saved.step + 1))
            assert read_result(trial_in(home)) is None or saved.step == 6
    else:
        pytest.fail("it never got through")
    assert allowed > 20
    assert read_result(trial_in(home)) is not None
    assert checkpoints(home).latest().step == 6


def test_checkpoints_that_are_replaced_while_they_are_sent_arrive(there, file_server, scratch):
    """Else a node with a slow connection would delete the home's checkpoint and not send another."""
    calls, send = [], caller(file_server)

    def call(method: str, *values: Any) -> Any:
        calls.append(method)
        if calls.count("replace") == 1:
            train(scratch, 4, 8)
        return send(method, *values)

    with TrialSync(call, KEY, TRAINING, scratch) as sync:
        train(scratch, 0, 4)
        sync.send()
        assert checkpoints(there).latest().step == 4
    assert checkpoints(there).latest().step == 8


def test_line_that_was_cut_short_in_the_home_is_written_anew(there, file_server, scratch):
    theirs = trial_in(there)
    train(there, 0, 1)
    with (theirs / "journal.jsonl").open("a") as stream:
        stream.write('{"event": "metr')
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        train(scratch, 1, 2)
    assert [event["event"] for event in read_events(theirs)] == ["start", "metrics", "start", "metrics"]


def test_worker_whose_trial_moved_writes_nothing_more_and_stops(there, file_server, scratch, monkeypatch):
    monkeypatch.setattr(away, "INTERVAL_S", 0.01)
    sync = TrialSync(caller(file_server), KEY, TRAINING, scratch).__enter__()
    file_server.take_over(KEY, TRAINING, "another")
    train(scratch, 0, 3)
    sync._thread.join(10)
    assert sync.stop_file.exists()
    assert not (there / "stop").exists(), "the sweep goes on"
    with pytest.raises(TrialMovedError):
        sync.__exit__(None, None, None)
    assert not contents(there)


def test_stop_is_passed_on_both_ways(there, file_server, scratch, monkeypatch):
    monkeypatch.setattr(away, "INTERVAL_S", 0.01)
    with TrialSync(caller(file_server), KEY, TRAINING, scratch) as sync:
        assert not sync.stop_file.exists()
        (there / "stop").write_text("enough")
        wait_for(sync.stop_file.exists, "a stop")
        assert sync.stop_file.read_text() == "enough"
    (there / "stop").unlink()
    with TrialSync(caller(file_server), KEY, TRAINING, scratch) as sync:
        sync.stop_file.write_text("no room")
    assert (there / "stop").read_text() == "no room"


def test_prune_requests_reach_the_worker_and_are_not_sent_back(there, file_server, scratch, monkeypatch):
    monkeypatch.setattr(away, "INTERVAL_S", 0.01)
    mine, theirs = scratch / "trials" / KEY, there / "trials" / KEY
    theirs.mkdir(parents=True)
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        request_prune(theirs, "worse than the median")
        wait_for((mine / PRUNE_FILENAME).exists, "the wish")
        assert (mine / PRUNE_FILENAME).read_text() == "worse than the median"
        withdraw_prune(theirs)
    assert not (theirs / PRUNE_FILENAME).exists()


def test_a_prune_request_before_the_start_reaches_the_worker(there, file_server, scratch):
    (there / "trials" / KEY).mkdir(parents=True)
    request_prune(there / "trials" / KEY, "worse than the median")
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        assert (scratch / "trials" / KEY / PRUNE_FILENAME).read_text() == "worse than the median"


def test_full_disk_under_the_home_stops_the_trial_and_loses_nothing(there, file_server, scratch, monkeypatch):
    monkeypatch.setattr(away, "INTERVAL_S", 0.01)
    opened = os.open

    def full(path: Path | str, *options: int) -> int:
        if Path(path).is_relative_to(trial_in(there)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *options)

    with TrialSync(caller(file_server), KEY, TRAINING, scratch) as sync:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", full)
            train(scratch, 0, 4)
            wait_for(sync.stop_file.exists, "a stop")
        assert json.loads((there / "stop").read_text())["cause"] == "disk"
        made = contents(scratch)
    assert contents(there) == made


@pytest.mark.parametrize("moment", ["fetch", "work"])
def test_full_scratch_disk_stops_the_sweep_and_fails_no_trial(there, file_server, scratch, monkeypatch, moment):
    train(there, 0, 2)
    before, opened = contents(there), Path.open

    def full(path: Path, mode: str = "r", *options: Any, **named: Any) -> Any:
        stream = opened(path, mode, *options, **named)
        if path.is_relative_to(scratch) and mode == {"fetch": "wb", "work": "x"}[moment]:
            stream.close()  # a file without content remains
            raise OSError(errno.ENOSPC, "No space left on device")
        return stream

    def work(*_: object) -> NoReturn:
        raise DiskFullError("no space left to write a checkpoint")

    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr(away, "_with_same_inputs", lambda *_: work)
    run_remotely(caller(file_server), KEY, TRAINING, TrialConfig(), there, Runtime(), fail_fast=True)
    stop = stop_requested(there / "stop")
    assert stop.cause == "disk"
    assert f"node {socket.gethostname()}: no space left to write {scratch}" in stop.reason
    assert contents(there) == before
    assert trial_status(trial_in(there)) != "failed"


@pytest.mark.parametrize("place", [".", "link", f"trials/{KEY}", "trainings"])
def test_a_scratch_home_that_shares_trials_with_the_home_is_refused(
    there: Path, file_server: TrialFileServer, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    train(there, 0, 2)
    (there / "link").symlink_to(there)
    monkeypatch.setenv("SPLATSWEEP_SCRATCH", str(there / place))
    before = contents(there)
    with pytest.raises(ValueError, match=f"SPLATSWEEP_SCRATCH is '{there / place}'"):
        run_remotely(caller(file_server), KEY, TRAINING, TrialConfig(), there, Runtime(), fail_fast=True)
    assert contents(there) == before


def test_the_error_of_a_node_without_the_dataset_names_its_folder(there, file_server, scratch):
    config = TrialConfig.model_validate({"data": {"name": "srn_cars"}})
    run_remotely(caller(file_server), KEY, TRAINING, config, there, Runtime(), fail_fast=True)
    (failed,) = read_events(there / "trials" / KEY)
    assert failed["event"] == "failed"
    assert f"does not see {there} and works in {scratch}" in failed["error"]
    assert "splatsweep data prepare srn_cars" in failed["error"]
    assert f"--home {scratch}, or set SPLATSWEEP_SCRATCH" in failed["error"]
    assert (there / "stop").exists(), "fail_fast"


def test_node_with_other_data_than_planned_trains_nothing(home, file_server, there, scratch, tiny):
    (home / "data").rename(scratch / "data")
    config = TrialConfig.model_validate(tiny())
    run_remotely(caller(file_server), KEY, TRAINING, config, there, Runtime(), fail_fast=False)
    (failed,) = read_events(there / "trials" / KEY)
    assert "the dataset or weights differ from those that were planned" in failed["error"]


def test_training_on_such_a_node_continues_one_of_the_home(home, file_server, there, scratch, tiny):
    """As it would where the home is seen: with the same bits, and without its beginning being trained again."""
    shutil.copytree(home / "data", there / "data")
    (home / "data").rename(scratch / "data")
    stages = tiny()["train"]["stages"]
    runtime = Runtime(log_every=3, checkpoint_every=5, keep_optimizer=True)
    results = []
    for iterations in (7, 12):
        sections = tiny()
        sections["train"]["stages"] = [stages[0] | {"iterations": iterations}]
        config = TrialConfig.model_validate(sections)
        keys = keys_of(
            config, open_dataset("chairs", config.data.options, there).fingerprint, weight_identities(config, there)
        )
        run_remotely(caller(file_server), keys.trial, keys.training, config, there, runtime, fail_fast=False)
        results.append(there / "trials" / keys.trial)
    events = read_events(results[1])
    assert [event["step"] for event in events if event["event"] == "start"] == [7]
    assert [event["step"] for event in events if event["event"] == "continued"] == [7]
    assert min(event["step"] for event in events if event["event"] == "metrics") == 3
    (scratch / "data").rename(home / "data")
    alone = run_trial(config, home, Runtime(log_every=3, checkpoint_every=5))
    assert json.loads((results[1] / RESULT_FILENAME).read_text())["metrics"] == alone.metrics
