"""Trials on a node that does not see the home: they need its dataset and weights, and their errors name the node."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.keys import keys_of
from jobs.trial import Runtime, run_trial, weight_identities
from model.weights import MissingWeightsError, WeightStore
from results.records.disk import DiskFullError
from results.records.home import weights_folder
from results.records.journal import read_events
from results.records.trial_folder import RESULT_FILENAME, trial_status
from sweep.run.executors.ray import remote_worker
from sweep.run.executors.ray.file_server import TrialFileServer
from sweep.run.executors.ray.remote_worker import run_remotely
from sweep.run.executors.ray.scratch import scratch_home
from sweep.run.stop import stop_requested
from tests.sweep.run.executors.ray.two_homes import KEY, TRAINING, caller, contents, train, trial_in


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
    monkeypatch.setattr(remote_worker, "_with_same_inputs", lambda *_: work)
    run_remotely(caller(file_server), KEY, TRAINING, TrialConfig(), there, Runtime(), fail_fast=True)
    stop = stop_requested(there / "stop")
    assert stop.cause == "disk"
    assert f"node {socket.gethostname()}: no space left to write {scratch}" in stop.reason
    assert contents(there) == before
    assert trial_status(trial_in(there)) != "failed"


@pytest.mark.parametrize(("named", "folder"), [("~/mine", "user/mine"), ("own", "work/own"), ("", "tmp/splatsweep-7")])
def test_the_scratch_home_is_the_one_that_is_named_or_this_users(tmp_path, monkeypatch, named, folder):
    for place in ("user", "work", "tmp"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("SPLATSWEEP_SCRATCH", named)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr("os.getuid", lambda: 7)  # not the owner of new folders
    if named:
        assert scratch_home() == tmp_path / folder
    else:
        with pytest.raises(PermissionError, match=f"{tmp_path / folder} belongs to another user"):
            scratch_home()
    assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("place", "inside"), [(".", ""), ("link", ""), (f"trials/{KEY}", ""), ("trainings", ""), (".", "trials/home")]
)
def test_a_scratch_home_that_shares_trials_with_the_home_is_refused(
    there: Path, file_server: TrialFileServer, monkeypatch: pytest.MonkeyPatch, place: str, inside: str
) -> None:
    train(there, 0, 2)
    (there / "link").symlink_to(there)
    monkeypatch.setenv("SPLATSWEEP_SCRATCH", str(there / place))
    before = contents(there)
    with pytest.raises(ValueError, match=f"SPLATSWEEP_SCRATCH is '{there / place}'"):
        run_remotely(caller(file_server), KEY, TRAINING, TrialConfig(), there / inside, Runtime(), fail_fast=True)
    assert contents(there) == before


def test_users_who_share_a_scratch_home_can_use_its_folders(there, file_server, scratch, monkeypatch):
    scratch.chmod(0o775)
    modes = {}

    def work(_: TrialConfig, place: Path, __: Runtime) -> NoReturn:
        modes.update((path, path.stat().st_mode) for path in place.rglob("*"))
        raise DiskFullError("no space left to write a checkpoint")

    monkeypatch.setattr(remote_worker, "_with_same_inputs", lambda *_: work)
    before = os.umask(0o022)  # of `ray start`
    try:
        run_remotely(caller(file_server), KEY, TRAINING, TrialConfig(), there, Runtime(), fail_fast=False)
    finally:
        os.umask(before)
    assert {scratch / "workers" / "lock", scratch / "trials", scratch / "trainings"} <= modes.keys()
    assert all(mode & 0o020 for mode in modes.values()), modes


def test_the_error_of_a_node_without_the_dataset_names_its_folder(there, file_server, scratch):
    config = TrialConfig.model_validate({"data": {"name": "srn_cars"}})
    run_remotely(caller(file_server), KEY, TRAINING, config, there, Runtime(), fail_fast=True)
    (failed,) = read_events(there / "trials" / KEY)
    assert failed["event"] == "failed"
    assert f"does not see {there} and works in {scratch}" in failed["error"]
    assert "splatsweep data prepare srn_cars" in failed["error"]
    assert f"--home {scratch}, or set SPLATSWEEP_SCRATCH" in failed["error"]
    assert (there / "stop").exists(), "fail_fast"


def test_the_error_of_a_node_without_weights_names_its_folder(home, file_server, there, scratch, tiny, monkeypatch):
    (home / "data").rename(scratch / "data")
    fetched = []

    def fetch(self: WeightStore, name: str) -> NoReturn:
        fetched.append((self.folder, name))
        raise MissingWeightsError("weights of clip_vit_b32 are missing")

    monkeypatch.setattr(WeightStore, "fetch", fetch)
    monkeypatch.setattr(remote_worker, "frozen_weights", lambda _: ["clip_vit_b32"])
    config = TrialConfig.model_validate(tiny())
    run_remotely(caller(file_server), KEY, TRAINING, config, there, Runtime(), fail_fast=False)
    (failed,) = read_events(there / "trials" / KEY)
    assert f"works in {scratch}: weights of clip_vit_b32 are missing\n(on that node, give" in failed["error"]
    assert fetched == [(weights_folder(scratch), "clip_vit_b32")]


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
