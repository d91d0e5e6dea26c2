"""A training runs once, however many trials evaluate it, and its weights can be read."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save

from jobs import feature_file
from jobs.config import TrialConfig
from jobs.model_file import OwnNetwork, export_trial
from jobs.official import evaluate_checkpoint
from jobs.predict import load_reconstructor
from jobs.reconstructor import build_reconstructor
from jobs.stop import StopRequestedError
from jobs.trained import load_network, load_trained
from jobs.trial import Runtime, TrialResult, run_trial
from results.records.frozen_plans import freeze
from results.records.home import trial_folder
from results.records.journal import read_events
from results.records.plan import Plan, PlannedTrial
from results.records.training_folder import read_training, training_of
from results.records.trial_folder import trial_status

RUNTIME = Runtime(threads=1, log_every=3, checkpoint_every=5)


def run(home: Path, tiny, **sections) -> TrialResult:
    return run_trial(TrialConfig.model_validate(tiny(**sections)), home, RUNTIME)


def training(result: TrialResult) -> Path:
    return result.folder.parents[1] / "trainings" / str(result.training)


def measured(folder: Path) -> dict[tuple[int, str], float]:
    return {
        (event["step"], name): value
        for event in read_events(folder)
        if event["event"] == "metrics"
        for name, value in event["values"].items()
    }


def of_training(folder: Path) -> dict[tuple[int, str], float]:
    return {key: value for key, value in measured(folder).items() if key[1].startswith(("train/", "val/"))}


@pytest.mark.parametrize("change", [{"lpips": "alex"}, {"split": "val"}, {"objects": 1}])
def test_another_evaluation_trains_nothing(change, home, tiny, steps):
    data = tiny()["data"]  # of the size that LPIPS (alex) needs
    data = data | {"resolution": 32, "options": data["options"] | {"image_size": 32}}
    sections = {"data": data, "model": {"base_dim": 4, "channel_mult": [1, 1]}}
    first = run(home, tiny, **sections, eval={"objects": 2, "every": 6})
    assert steps == list(range(18))
    second = run(home, tiny, **sections, eval={"objects": 2, "every": 6} | change)
    assert steps == list(range(18)), "18 iterations for both"
    assert second.key != first.key
    assert second.training == first.training
    assert second.metrics != first.metrics
    assert of_training(second.folder) == of_training(first.folder) == measured(training(first))
    (start,) = [event for event in read_events(second.folder) if event["event"] == "start"]
    assert start["step"] == 18
    assert set(pd.read_parquet(second.folder / "per_object.parquet")["split"]) == {change.get("split", "test")}


def test_training_is_watched_on_the_first_objects_of_the_validation_split(home, tiny):
    judging = {"split": "val", "objects": 1, "every": 9, "val_objects": 1, "metrics": ["psnr"]}
    result = run(home, tiny, eval=judging)
    assert measured(result.folder)[18, "val/psnr"] == result.metrics["novel/psnr"]


def test_validation_curves_do_not_change_the_key(home, tiny, steps):
    first = run(home, tiny, eval={"objects": 2})
    assert run(home, tiny, eval={"objects": 2, "every": 3}).key == first.key
    assert len(steps) == 18


def test_a_finished_training_keeps_its_weights_alone(home, tiny):
    result = run(home, tiny)
    files = {path.name for path in training(result).rglob("*")}
    assert files == {
        "config.json", "environment.json", "journal.jsonl", "lock", "training.json", "weights.safetensors",
    }  # fmt: skip
    record = read_training(training(result))
    assert record is not None
    assert (record["key"], record["step"]) == (result.training, 18)
    assert record["environment"]["packages"]["torch"]
    assert training_of(result.folder) == result.training
    assert not (result.folder / "checkpoints").exists()


def test_a_training_is_taken_up_by_another_trial_where_it_stopped(home, tiny, steps, tmp_path):
    whole = run(home, tiny)
    expected = load_file(training(whole) / "weights.safetensors")
    shutil.rmtree(training(whole))
    steps.clear()
    stop = tmp_path / "stop"
    stop.touch()
    with pytest.raises(StopRequestedError):
        run_trial(
            TrialConfig.model_validate(tiny(eval={"split": "val", "objects": 1})),
            home,
            Runtime(log_every=1, checkpoint_every=5, stop_file=str(stop)),
        )
    assert steps == [0]
    shutil.rmtree(whole.folder)
    again = run(home, tiny)
    assert steps == list(range(18))
    assert again.metrics == whole.metrics
    assert [event["step"] for event in read_events(again.folder) if event["event"] == "start"] == [1]
    assert (1, "train/loss") in measured(again.folder), "measured for the other trial"
    assert all(
        torch.equal(tensor, expected[name]) for name, tensor in load_trained(home, again.key)[1].state_dict().items()
    )


def _run_in_a_process(config: TrialConfig, home: Path) -> None:
    run_trial(config, home, RUNTIME)


def test_two_trials_of_one_training_at_the_same_time_train_it_once(home, tiny):
    run(home, tiny, model={"name": "blank"})  # makes the dataset
    configs = [TrialConfig.model_validate(tiny(eval={"objects": count, "every": 6})) for count in (1, 2)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_run_in_a_process, args=(config, home)) for config in configs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    (folder,) = (home / "trainings").iterdir()
    assert [event["step"] for event in read_events(folder) if event["event"] == "start"] == [0]
    judged = [path for path in (home / "trials").iterdir() if training_of(path) == folder.name]
    assert len(judged) == 2
    for trial in judged:
        assert trial_status(trial) == "finished"
        assert of_training(trial) == measured(folder)


def test_a_stop_reaches_a_trial_that_waits_for_a_training(home, tiny, tmp_path, monkeypatch, steps):
    monkeypatch.setattr("jobs.lock._WAIT_S", 0.01)
    finished = run(home, tiny)
    shutil.rmtree(finished.folder)
    steps.clear()
    stop = tmp_path / "stop"
    stop.touch()
    with (
        FileLock(training(finished) / "lock"),
        pytest.raises(StopRequestedError, match="which another process runs"),
    ):
        run_trial(TrialConfig.model_validate(tiny()), home, Runtime(stop_file=str(stop)))
    assert trial_status(finished.folder) == "interrupted"
    assert run(home, tiny).metrics == finished.metrics
    assert not steps


def test_a_trial_is_running_while_features_are_computed(home, tiny, monkeypatch):
    def watched(*given: Any) -> None:
        states.extend(trial_status(folder) for folder in (home / "trials").iterdir())
        write(*given)

    states, write = [], feature_file._write
    monkeypatch.setattr(feature_file, "_write", watched)
    run(home, tiny, depth={"model": "oracle", "fusion": "input"})
    assert states == ["running"]


def test_damaged_weights_are_trained_again(home, tiny, steps):
    first = run(home, tiny)
    weights = training(first) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    steps.clear()
    second = run(home, tiny, eval={"split": "val", "objects": 1})
    assert steps == list(range(18))
    assert second.training == first.training
    shutil.rmtree(first.folder)
    assert run(home, tiny).metrics == first.metrics


def test_a_trained_network_is_found_by_the_key_of_its_trial_or_training(home, tiny):
    result = run(home, tiny)
    saved = load_file(training(result) / "weights.safetensors")
    for key in (result.key, result.training):
        config, network, context = load_trained(home, key)
        assert config.train == TrialConfig.model_validate(tiny()).train
        assert not network.training
        assert context.widths == {}
        assert all(torch.equal(tensor, saved[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(ValueError, match="neither a trial nor a training"):
        load_trained(home, "0" * 16)
    with pytest.raises(ValueError, match=r"has no network \(blank\)"):
        load_trained(home, run(home, tiny, model={"name": "blank"}).key)


@pytest.mark.parametrize("use", ["load", "predict", ".safetensors", ".pth"])
def test_data_that_were_prepared_anew_since_the_training_are_reported(use, home, tiny, tmp_path, caplog):
    result = run(home, tiny)
    uses = {
        "load": lambda: load_trained(home, result.key),
        "predict": lambda: load_reconstructor(home, result.key, device="cpu"),
    }
    act = uses.get(use, lambda: export_trial(result.folder, tmp_path / f"network{use}"))
    act()
    assert not caplog.records
    (path,) = home.glob("data/*/manifest.json")
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"fingerprint": "f00d" * 16}))
    act()
    assert not caplog.records, "the same data with a fingerprint of another version"
    path.write_text(json.dumps(manifest | {"fingerprint": "f00d" * 16, "checksum": "beef" * 16}))
    act()
    (record,) = caplog.records
    said = f"training {result.training} was of other data ({manifest['fingerprint'][:8]}) than dataset chairs"
    assert record.message.startswith(f"{said} as it is prepared now (f00df00d)")


def test_frozen_weights_that_were_replaced_since_the_training_are_reported(home, tiny, tmp_path, caplog):
    encoder = {"encoder": "efficientnet_lite0", "fusion": "concat", "resolution": 32}
    result = run(home, tiny, semantic=encoder)
    load_trained(home, result.key)
    assert not caplog.records
    path = training(result) / "training.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"weights": dict.fromkeys(record["weights"], "f00d" * 16)}))
    exported = tmp_path / "model.safetensors"
    export_trial(result.folder, exported)

    def evaluate(network: OwnNetwork) -> None:
        settings = network.settings("chairs") | {"eval": {"objects": 1, "metrics": ["psnr"]}}
        evaluate_checkpoint(network, TrialConfig.model_validate(settings), home)

    for use in (
        lambda: load_trained(home, result.key, device="cpu"),
        lambda: load_reconstructor(home, result.key, device="cpu"),
        lambda: load_reconstructor(home, exported, device="cpu"),
        lambda: evaluate(OwnNetwork.read(exported)),
        lambda: evaluate(OwnNetwork.of_trial(result.folder)),
    ):
        caplog.clear()
        use()
        (found,) = caplog.records
        assert "trained with other weights efficientnet_lite0 (f00df00d)" in found.message


def test_a_trained_network_is_loaded_without_the_weights_that_its_training_started_from(tmp_path, monkeypatch):
    stages = [{"iterations": 1, "lr": 1e-3, "losses": {"l2": 1.0}}]
    model = {"name": "pixelnerf", "hidden": 8, "blocks": 1, "view_blocks": 1}
    config = TrialConfig.model_validate({"model": model, "train": {"stages": stages}})

    def read(name: str) -> None:
        pytest.fail(f"{name} was read")

    weights: Any = SimpleNamespace(load=read, identity=read)
    built = build_reconstructor(config, {}, weights, initial=False).state_dict()
    saved = {name: tensor + 1 for name, tensor in built.items()}
    monkeypatch.setattr("jobs.trained.read_weights", lambda _: ({}, save(saved)))
    network = load_network(tmp_path, config, {}, weights, "cpu")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in network.state_dict().items())


def test_a_trial_that_is_to_be_evaluated_has_the_network_of_its_training(home, tiny):
    result = run(home, tiny)
    planned = PlannedTrial(
        "k1", ("baseline",), 0, tiny(eval={"split": "val"}), "to be evaluated", training=result.training
    )
    freeze(Plan("quick", "2026-03-01T12:00:00+00:00", (planned,), ()), home)
    found = load_trained(home, "k1")
    assert found.config.eval.split == "val"
    expected = load_trained(home, result.key).reconstructor.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.reconstructor.state_dict().items())


def test_a_planned_trial_that_has_not_begun_is_named_with_the_command_that_runs_it(tmp_path):
    planned = PlannedTrial("k1", ("baseline",), 3, {}, "pending")
    freeze(Plan("quick", "2026-03-01T12:00:00+00:00", (planned,), ()), tmp_path)
    hint = rf"run its sweep file with: splatsweep run SWEEP --home {tmp_path}$"
    with pytest.raises(ValueError, match=rf"^trial 'baseline', seed 3, of sweep 'quick' has not begun; {hint}"):
        load_reconstructor(tmp_path, trial_folder(tmp_path, "k1"))
