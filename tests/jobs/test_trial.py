import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

import jobs.trial
from jobs.checkpoint import CheckpointFolder
from jobs.config import TrialConfig
from jobs.stop import StopRequestedError
from jobs.trial import Runtime, TrialFailedError, TrialResult, run_trial
from results.records.atomic import write_json
from results.records.disk import DiskFullError
from results.records.home import training_folder
from results.records.journal import read_events
from results.records.trial_folder import PRUNE_FILENAME, trial_status
from tests.jobs.iterations import killed_at

RUNTIME = Runtime(threads=1, log_every=3, checkpoint_every=5)


def training_of(result: TrialResult) -> Path:
    return training_folder(result.folder.parents[1], result.training)


def final_weights(result: TrialResult) -> dict[str, torch.Tensor]:
    return load_file(training_of(result) / "weights.safetensors")


def forget(result: TrialResult, kept: Path) -> Path:
    """Moves a trial and its training out of the home; returns the new folder of the trial."""
    kept.mkdir()
    training_of(result).rename(kept / "training")
    return result.folder.rename(kept / "trial")


def measured(folder) -> dict[tuple[int, str], float]:
    """All metrics in a journal except times; asserts that values measured again after resuming are equal."""
    values: dict[tuple[int, str], float] = {}
    for event in read_events(folder):
        for name, value in event.get("values", {}).items():
            if not name.startswith("time/"):
                assert values.setdefault((event["step"], name), value) == value
    return values


def test_a_trial_leaves_everything_that_its_result_stands_on(home, tiny):
    result = run_trial(TrialConfig.model_validate(tiny()), home, RUNTIME)
    assert trial_status(result.folder) == "finished"
    assert result.step == 18

    frame = pd.read_parquet(result.folder / "per_object.parquet")
    assert list(frame) == ["object", "category", "split", "view_kind", "metric", "value"]
    assert frame["object"].nunique() == 2
    assert set(frame["category"]) == {"chair"}
    assert set(frame["split"]) == {"test"}
    novel = frame[(frame["view_kind"] == "novel") & (frame["metric"] == "psnr")]
    assert result.metrics["novel/psnr"] == novel["value"].mean()

    with np.load(result.folder / "samples.npz", allow_pickle=False) as samples:
        assert samples["source"].shape == (2, 3, 16, 16)
        assert samples["target"].shape == samples["render"].shape == (2, 3, 3, 16, 16)
    assert Image.open(result.folder / "samples.png").size[0] > 100
    with Image.open(result.folder / "turntable.gif") as turntable:
        assert (turntable.n_frames, turntable.info["comment"]) == (24, frame["object"].iloc[0].encode())
    assert (result.folder / "turntable.gif").stat().st_size < 300_000

    values = measured(result.folder)
    assert {step for step, name in values if name == "train/loss"} == {3, 6, 9, 12, 15, 18}
    assert {step for step, name in values if name == "train/l1"} == {15, 18}
    assert {step for step, name in values if name == "val/psnr"} == {6, 12, 18}
    assert json.loads((result.folder / "config.json").read_text())["seed"] == 0
    environment = json.loads((result.folder / "environment.json").read_text())
    assert environment["packages"]["torch"]
    computed = {"backend": "cpu", "execution": "eager", "precision": "float32", "device": "cpu"}
    assert environment["arithmetic"] == [computed]
    assert json.loads((result.folder / "result.json").read_text())["arithmetic"] == [computed]


def test_training_lowers_the_loss(home, tiny):
    stages = [{"iterations": 60, "lr": 2e-3, "losses": {"l2": 1.0}}]
    config = TrialConfig.model_validate(tiny(train={"batch_size": 4, "views_per_object": 3, "stages": stages}))
    result = run_trial(config, home, Runtime(log_every=20, checkpoint_every=100))
    losses = [value for (_, name), value in sorted(measured(result.folder).items()) if name == "train/loss"]
    assert losses[-1] < 0.8 * losses[0]


# In the first stage, behind a checkpoint; on the border of the stages; in the second; before any checkpoint.
@pytest.mark.parametrize("at", [8, 12, 17, 3])
def test_a_killed_trial_ends_with_the_bits_of_an_undisturbed_one(at, home, tiny, tmp_path):
    config = TrialConfig.model_validate(tiny())
    undisturbed = run_trial(config, home, RUNTIME)
    kept_weights = final_weights(undisturbed)
    kept = forget(undisturbed, tmp_path / "undisturbed")

    with killed_at(at):
        run_trial(config, home, RUNTIME)
    resumed = run_trial(config, home, RUNTIME)
    starts = [event["step"] for event in read_events(resumed.folder) if event["event"] == "start"]
    assert starts == [0, at // 5 * 5]
    assert resumed.metrics == undisturbed.metrics
    assert measured(resumed.folder) == measured(kept)
    ours, theirs = final_weights(resumed), kept_weights
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("at", [8, 12, 17])
def test_a_moving_average_survives_being_killed_too(at, home, tiny, tmp_path):
    config = tiny()
    config["train"] = config["train"] | {"ema": {"every": 2, "start": 3, "max_decay": 0.9}}
    config = TrialConfig.model_validate(config)
    undisturbed = run_trial(config, home, RUNTIME)
    forget(undisturbed, tmp_path / "undisturbed")
    with killed_at(at):
        run_trial(config, home, RUNTIME)
    assert run_trial(config, home, RUNTIME).metrics == undisturbed.metrics


def test_the_moving_average_is_evaluated(home, tiny):
    config = tiny(eval={"objects": 2})
    config["train"] = config["train"] | {"stages": config["train"]["stages"][:1], "ema": {"start": 11}}
    with_average = run_trial(TrialConfig.model_validate(config), home, RUNTIME)
    # The last update, after iteration 11 of 12, still takes in the network as it is.
    config["train"] = config["train"] | {"stages": [config["train"]["stages"][0] | {"iterations": 11}], "ema": None}
    without = run_trial(TrialConfig.model_validate(config), home, RUNTIME)
    assert with_average.metrics == without.metrics


def test_a_stop_file_stops_a_trial_behind_a_checkpoint(home, tiny, tmp_path):
    config = TrialConfig.model_validate(tiny())
    undisturbed = run_trial(config, home, RUNTIME)
    forget(undisturbed, tmp_path / "undisturbed")
    stop_file = tmp_path / "stop"
    stop_file.touch()
    with pytest.raises(StopRequestedError, match="stopped after 1 of 18 iterations"):
        run_trial(config, home, replace(RUNTIME, stop_file=str(stop_file)))
    assert trial_status(undisturbed.folder) == "interrupted"
    assert CheckpointFolder(training_of(undisturbed) / "checkpoints").latest().step == 1
    stop_file.unlink()
    assert run_trial(config, home, replace(RUNTIME, stop_file=str(stop_file))).metrics == undisturbed.metrics


@pytest.mark.parametrize("request_name", ["stop", PRUNE_FILENAME])
def test_a_stop_ends_an_evaluation_which_a_pruning_does_not(request_name, home, tiny, tmp_path, monkeypatch):
    config = TrialConfig.model_validate(tiny())
    undisturbed = run_trial(config, home, RUNTIME)
    forget(undisturbed, tmp_path / "undisturbed")
    request = (tmp_path if request_name == "stop" else undisturbed.folder) / request_name
    runtime = replace(RUNTIME, stop_file=str(tmp_path / "stop"))
    train_once = jobs.trial.train_once

    def train(*arguments, **options):
        trained = train_once(*arguments, **options)
        request.write_text("others are better")
        return trained

    monkeypatch.setattr("jobs.trial.train_once", train)
    if request_name == PRUNE_FILENAME:
        assert run_trial(config, home, runtime).metrics == undisturbed.metrics
        return
    with pytest.raises(StopRequestedError, match="stopped in its evaluation, after 0 of 2 objects"):
        run_trial(config, home, runtime)
    assert trial_status(undisturbed.folder) == "interrupted"
    request.unlink()
    monkeypatch.undo()
    assert run_trial(config, home, runtime).metrics == undisturbed.metrics


def test_a_pruned_trial_records_that_and_can_resume(home, tiny, tmp_path):
    config = TrialConfig.model_validate(tiny())
    undisturbed = run_trial(config, home, RUNTIME)
    forget(undisturbed, tmp_path / "undisturbed")
    undisturbed.folder.mkdir()
    (undisturbed.folder / PRUNE_FILENAME).write_text("others are better")
    with pytest.raises(StopRequestedError):
        run_trial(config, home, RUNTIME)
    assert trial_status(undisturbed.folder) == "pruned"
    reasons = [event["reason"] for event in read_events(undisturbed.folder) if event["event"] == "pruned"]
    assert reasons == ["stopped after 1 of 18 iterations: others are better"]
    (undisturbed.folder / PRUNE_FILENAME).unlink()
    assert run_trial(config, home, RUNTIME).metrics == undisturbed.metrics


@pytest.mark.parametrize("request_name", ["stop", PRUNE_FILENAME])
def test_a_stop_reaches_a_trial_that_another_process_runs(request_name, home, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.lock._WAIT_S", 0.01)
    config = TrialConfig.model_validate(tiny(model={"name": "blank"}))
    folder = run_trial(config, home, RUNTIME).folder
    (folder / "result.json").unlink()
    events = read_events(folder)
    ((tmp_path if request_name == "stop" else folder) / request_name).touch()
    with FileLock(folder / "lock"), pytest.raises(StopRequestedError, match="which another process runs"):
        run_trial(config, home, replace(RUNTIME, stop_file=str(tmp_path / "stop")))
    assert read_events(folder) == events, "the journal is the other process's"
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize(
    ("error", "raised", "end"),
    [
        (ValueError("no"), TrialFailedError, {"event": "failed", "error": "ValueError: no"}),
        (StopRequestedError("stopped"), StopRequestedError, {"event": "stopped", "reason": "stopped"}),
        (OSError(errno.ENOSPC, "full"), DiskFullError, {"event": "stopped"}),
        (torch.OutOfMemoryError("too large"), torch.OutOfMemoryError, {"event": "start"}),  # the executor decides
        (KeyboardInterrupt(), KeyboardInterrupt, {"event": "stopped"}),
    ],
)
def test_the_journal_says_how_a_trial_ended_and_the_log_why(error, raised, end, home, tiny, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("jobs.trial.evaluate_predictions", fail)
    with pytest.raises(raised):
        run_trial(TrialConfig.model_validate(tiny(model={"name": "blank"})), home, RUNTIME)
    (folder,) = (home / "trials").iterdir()
    last = read_events(folder)[-1]
    assert last | end == last
    reason = "no space left" if raised is DiskFullError else str(error)
    assert reason in (folder / "log.txt").read_text()


def test_a_disk_without_room_for_the_result_leaves_the_trial_interrupted(home, tiny, monkeypatch):
    def write(path, content):
        if path.name == "result.json":
            raise DiskFullError("no space left")
        write_json(path, content)

    config = TrialConfig.model_validate(tiny(model={"name": "blank"}))
    monkeypatch.setattr("jobs.trial.write_json", write)
    with pytest.raises(DiskFullError):
        run_trial(config, home, RUNTIME)
    (folder,) = (home / "trials").iterdir()
    assert trial_status(folder) == "interrupted", "its process lives and runs other trials"
    monkeypatch.undo()
    assert run_trial(config, home, RUNTIME).folder == folder
    assert trial_status(folder) == "finished"


def test_two_source_views_are_better_known_than_one(home, tiny):
    one = run_trial(TrialConfig.model_validate(tiny()), home, RUNTIME)
    model = tiny()["model"] | {"input_views": 2, "camera_embedding": True}
    two = run_trial(TrialConfig.model_validate(tiny(model=model)), home, RUNTIME)
    counts = [
        pd.read_parquet(trial.folder / "per_object.parquet").groupby("view_kind").size().to_dict()
        for trial in (one, two)
    ]
    assert counts[0] == counts[1]  # one row an object, metric and kind, however many views
    assert two.metrics["conditioned/psnr"] != one.metrics["conditioned/psnr"]


def test_a_finished_trial_is_not_run_again(home, tiny, monkeypatch):
    config = TrialConfig.model_validate(tiny())
    first = run_trial(config, home, RUNTIME)
    monkeypatch.setattr("jobs.trial.train_once", None)
    assert run_trial(config, home, RUNTIME).metrics == first.metrics


@pytest.mark.parametrize("name", ["blank", "copy_input"])
def test_trivial_predictors_are_evaluated_like_trained_ones(name, home, tiny):
    sections = tiny(model={"name": name}, eval={"objects": 2})
    result = run_trial(TrialConfig.model_validate(sections), home, RUNTIME)
    with np.load(result.folder / "samples.npz") as samples:
        expected = 255 if name == "blank" else samples["source"][:, None]
        assert (samples["render"] == expected).all()
    if name == "copy_input":
        assert result.metrics["conditioned/psnr"] == float("inf")
        assert result.metrics["conditioned/lpips"] == 0
    assert result.metrics["novel/psnr"] < 30
    assert not (result.folder / "turntable.gif").exists()


@pytest.mark.parametrize(
    "section",
    [
        {"depth": {"model": "oracle", "fusion": "input"}},
        {"depth": {"model": "oracle", "fusion": "xattn"}},
        {"semantic": {"encoder": "efficientnet_lite0", "fusion": "concat", "resolution": 32}},
        {"semantic": {"encoder": "efficientnet_lite0", "fusion": "xattn", "resolution": 32}},
    ],
    ids=lambda section: "-".join(map(str, next(iter(section.values())).values())),
)
def test_conditioning_changes_what_is_learnt(section, home, tiny):
    plain = run_trial(TrialConfig.model_validate(tiny()), home, RUNTIME)
    conditioned = run_trial(TrialConfig.model_validate(tiny(**section)), home, RUNTIME)
    assert conditioned.key != plain.key
    assert conditioned.metrics != plain.metrics


def test_a_loss_that_is_not_finite_stops_the_trial_with_a_report(home, tiny, monkeypatch):
    spoil_loss(monkeypatch, at=4)
    config = TrialConfig.model_validate(tiny())
    with pytest.raises(TrialFailedError, match=r"iteration 4: loss 'l2' is nan; Gaussians: means .* opacities"):
        run_trial(config, home, RUNTIME)
    (folder,) = (home / "trials").iterdir()
    assert trial_status(folder) == "failed"
    assert "NonFiniteError" in (folder / "log.txt").read_text()


def test_a_loss_that_is_not_finite_skips_the_step_on_request(home, tiny, monkeypatch):
    spoil_loss(monkeypatch, at=4)
    config = tiny()
    config["train"] = config["train"] | {"nonfinite": "skip"}
    result = run_trial(TrialConfig.model_validate(config), home, RUNTIME)
    values = measured(result.folder)
    assert values[6, "train/skipped"] == pytest.approx(1 / 3)
    assert all(np.isfinite(value) for value in values.values())


def test_a_loss_that_is_not_finite_is_ignored_on_request(home, tiny, monkeypatch):
    spoil_loss(monkeypatch, at=4)
    config = tiny()
    config["train"] = config["train"] | {"nonfinite": "ignore"}
    result = run_trial(TrialConfig.model_validate(config), home, RUNTIME)
    assert any(tensor.isnan().any() for tensor in final_weights(result).values())
    with np.load(result.folder / "samples.npz") as samples:
        assert (samples["render"] == 255).all()  # nothing is left but the background
    assert np.isfinite(result.metrics["novel/psnr"])


def spoil_loss(monkeypatch, at: int) -> None:
    """Makes the squared error of one iteration NaN."""
    from model.losses.l2 import L2

    forward, calls = L2.forward, iter(range(1000))

    def spoilt(self, rendering, target, scene):
        value = forward(self, rendering, target, scene)
        return value * float("nan") if next(calls) == at else value

    monkeypatch.setattr(L2, "forward", spoilt)


def test_a_damaged_checkpoint_costs_time_but_no_bits(home, tiny, tmp_path):
    config = TrialConfig.model_validate(tiny())
    undisturbed = run_trial(config, home, RUNTIME)
    forget(undisturbed, tmp_path / "undisturbed")
    with killed_at(13):
        run_trial(config, home, RUNTIME)
    newest = max(training_of(undisturbed).glob("checkpoints/*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:100])
    assert run_trial(config, home, RUNTIME).metrics == undisturbed.metrics
