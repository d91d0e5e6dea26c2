import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from jobs.checkpoint import Checkpoint, CheckpointFolder
from jobs.continuation import Beginning
from jobs.keys import NUMERICS_VERSION, training_identity
from model.methods import controls
from results.records.frozen_plans import freeze
from results.records.home import training_folder
from results.records.journal import Journal
from results.records.monitor import Monitor
from results.records.trial_folder import CHECKPOINTS_FOLDER, MEASUREMENTS_FILENAME
from sweep.file.schema import Sweep
from sweep.plan import planner as plan_module
from sweep.plan.plan_diff import Reason, beginnings, reasons, repeated, why_table
from sweep.plan.planner import Identities, Plan, PlannedTrial, make_plan, plan_table
from tests.datasets import planned_dataset
from tests.homes import write_result

STAGES = [{"iterations": 5, "lr": 1e-4, "losses": {"l2": 1.0}}]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The only dataset."""
    store = planned_dataset()
    monkeypatch.setattr(plan_module, "open_dataset", lambda *_: store)
    return store


def _plan(home: Path, *, name: str = "a", base: dict[str, Any] | None = None, **content: Any) -> Plan:
    tree = {"name": name, "base": {"train.stages": STAGES, **(base or {})}, **content}
    return make_plan(Sweep.model_validate(tree), home)


def _finish(plan: Plan, home: Path, numerics: int = NUMERICS_VERSION) -> None:
    """Writes the files of a plan's trials as if all had finished."""
    identities = Identities(home)
    for trial in plan.everything:
        folder, identity = home / "trials" / trial.key, identities(trial.config)
        write_result(folder, data_fingerprint=identity.fingerprint, weights=identity.weights, numerics=numerics)
        (folder / "config.json").write_text(json.dumps(trial.config.identity()))
    freeze(plan, home)


def _why(plan: Plan, home: Path) -> dict[str, Reason]:
    found = reasons(plan, home)
    return {trial.name: found[trial.key] for trial in plan.trials if trial.key in found}


def _changes(reason: Reason) -> list[tuple[str, Any, Any]]:
    return [(change.key, change.before, change.after) for change in reason.changes]


@pytest.mark.usefixtures("store")
def test_the_first_trials_are_new(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    assert set(reasons(plan, tmp_path)) == {trial.key for trial in plan.everything}
    assert str(_why(plan, tmp_path)["base"]) == "new: nothing like it is finished"
    _finish(replace(plan, trials=()), tmp_path)
    assert str(_why(plan, tmp_path)["base"]) == "new: nothing like it is finished", "but trivial baselines"


@pytest.mark.usefixtures("store")
def test_what_is_finished_needs_no_reason(tmp_path: Path) -> None:
    _finish(_plan(tmp_path), tmp_path)
    assert reasons(_plan(tmp_path), tmp_path) == {}


@pytest.mark.usefixtures("store")
def test_a_new_trial_is_compared_with_the_nearest(tmp_path: Path) -> None:
    finished = _plan(tmp_path, trials={"small": {"train.batch_size": 2}, "depth": {"depth.model": "oracle"}})
    _finish(finished, tmp_path)
    trials = {"more depth": {"depth": {"model": "oracle", "fusion": "xattn"}}, "tiny": {"train.batch_size": 1}}
    why = _why(_plan(tmp_path, trials=trials, seeds=[0]), tmp_path)
    assert {name: (r.kind, r.nearest_name, _changes(r)) for name, r in why.items()} == {
        "more depth": ("new", "depth", [("depth.fusion", "input", "xattn")]),
        "tiny": ("new", "small", [("train.batch_size", 2, 1)]),
    }
    key = finished.trials[0].key
    assert str(why["tiny"]) == f"new, nearest is small ({key}): train.batch_size from 2 to 1"
    _finish(_plan(tmp_path, trials={"other": {"train.batch_size": 7, "depth.model": "oracle"}}), tmp_path)
    later = _why(_plan(tmp_path, trials=trials, seeds=[0]), tmp_path)
    assert later["tiny"].nearest_name == "small", "of an earlier plan"


@pytest.mark.usefixtures("store")
def test_a_changed_trial_is_compared_with_what_had_its_name(tmp_path: Path) -> None:
    _finish(_plan(tmp_path, trials={"a": {"train.batch_size": 2}, "b": {"train.batch_size": 4}}), tmp_path)
    edited = {"a": {"train.batch_size": 2}, "b": {"train.batch_size": 2, "train.views_per_object": 3}}
    why = _why(_plan(tmp_path, trials=edited), tmp_path)
    assert list(why) == ["b"]
    assert (why["b"].kind, why["b"].nearest_name) == ("changed", "b"), "although a is nearer"
    assert _changes(why["b"]) == [("train.batch_size", 4, 2), ("train.views_per_object", 4, 3)]
    elsewhere = _why(_plan(tmp_path, name="other", trials=edited), tmp_path)
    assert (elsewhere["b"].kind, elsewhere["b"].nearest_name) == ("new", "a")


@pytest.mark.usefixtures("store")
def test_keys_that_only_one_of_them_has_are_absent_in_the_other(tmp_path: Path) -> None:
    _finish(_plan(tmp_path), tmp_path)
    why = _why(_plan(tmp_path, base={"depth.model": "oracle"}), tmp_path)
    assert ("depth.model", "none", "oracle") in _changes(why["base"])
    assert ("depth.fusion", "absent", "input") in _changes(why["base"])


@pytest.mark.usefixtures("store")
def test_keys_that_came_later_have_their_default_where_they_are_omitted(tmp_path: Path) -> None:
    for before, after in (("last", "best"), ("best", "last")):
        _finish(_plan(tmp_path, base={"train.keep": before, "eval.every": 5}), tmp_path)
        why = _why(_plan(tmp_path, base={"train.keep": after, "eval.every": 5}), tmp_path)
        assert ("train.keep", before, after) in _changes(why["base"])
        shutil.rmtree(tmp_path / "trials")


def test_new_data_is_a_reason(tmp_path: Path, store: SimpleNamespace) -> None:
    _finish(_plan(tmp_path), tmp_path)
    store.fingerprint = "e" * 64
    reason = _why(_plan(tmp_path), tmp_path)["base"]
    assert reason.kind == "data"
    assert "fingerprint of the data from ffffffff... to eeeeeeee..." in str(reason)


@pytest.mark.usefixtures("store")
def test_a_changed_list_is_shown_as_a_whole(tmp_path: Path) -> None:
    _finish(_plan(tmp_path), tmp_path)
    reason = _why(_plan(tmp_path, base={"eval.metrics": ["psnr", "ssim", "lpips", "iou"]}), tmp_path)["base"]
    assert 'eval.metrics from ["psnr", "ssim", "lpips"] to ["psnr", "ssim", "lpips", "iou"]' in str(reason)


@pytest.mark.usefixtures("store")
def test_of_a_long_value_the_beginning_is_shown(tmp_path: Path) -> None:
    """As mistakes in a sweep file show it; eight characters are enough for a hash alone."""
    metrics = ["psnr", "ssim", "lpips", "dists", "psnr_masked", "ssim_masked"]
    _finish(_plan(tmp_path), tmp_path)
    reason = _why(_plan(tmp_path, base={"eval.metrics": metrics}), tmp_path)["base"]
    assert f"to {json.dumps(metrics)[:57]}..." in str(reason)


@pytest.mark.usefixtures("store")
def test_new_weights_are_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module.WeightStore, "identity", lambda *_: sha256)
    sha256 = "0" * 64
    _finish(_plan(tmp_path), tmp_path)
    sha256 = "1" * 64
    reason = _why(_plan(tmp_path), tmp_path)["base"]
    assert (reason.kind, [change.key for change in reason.changes]) == ("weights", ["weights vgg16"])


@pytest.mark.usefixtures("store")
def test_new_numerics_are_a_reason(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    _finish(plan, tmp_path, numerics=NUMERICS_VERSION - 1)
    for trial in plan.everything:  # a trial of that version has another key
        (tmp_path / "trials" / trial.key).rename(tmp_path / "trials" / trial.key[::-1])
    reason = _why(_plan(tmp_path), tmp_path)["base"]
    assert (reason.kind, _changes(reason)) == (
        "numerics",
        [("numerics version", NUMERICS_VERSION - 1, NUMERICS_VERSION)],
    )


@pytest.mark.usefixtures("store")
def test_finished_trials_that_are_trained_again_with_the_same_settings_are_announced(tmp_path: Path) -> None:
    """After an upgrade, `run` would otherwise train a finished study again without a word."""
    trials = {"one": {}, "two": {"train.batch_size": 2}, "three": {"train.batch_size": 3}}
    plan = _plan(tmp_path, trials=trials)
    _finish(plan, tmp_path, numerics=NUMERICS_VERSION - 1)
    assert repeated(plan, tmp_path) == []
    former = {trial.key: trial.key[::-1] for trial in plan.everything}  # trials of that version have other keys
    for key, other in former.items():
        (tmp_path / "trials" / key).rename(tmp_path / "trials" / other)
    freeze(replace(plan, trials=tuple(replace(trial, key=former[trial.key]) for trial in plan.trials)), tmp_path)
    version = f"numerics version from {NUMERICS_VERSION - 1} to {NUMERICS_VERSION}"
    again = _plan(tmp_path, trials=trials | {"three": {"train.batch_size": 4}})
    assert repeated(again, tmp_path) == [f"2 trials with the same settings as before must be trained again: {version}"]


def _journal(trial: PlannedTrial, home: Path) -> Journal:
    return Journal(home / "trials" / trial.key)


@pytest.mark.usefixtures("store")
def test_started_trials_have_their_state_as_reason(tmp_path: Path) -> None:
    trials = {name: {"train.batch_size": n} for n, name in enumerate(("failed", "stopped", "running"), start=1)}
    plan = _plan(tmp_path, trials=trials)
    failed, stopped, running = plan.trials
    with _journal(failed, tmp_path) as journal:
        journal.start(0)
        journal.failed("ValueError: no good")
    with _journal(stopped, tmp_path) as journal:
        journal.start(0)
        journal.metrics(3, {"train/loss": 1.0})
        journal.stopped()
    with _journal(running, tmp_path) as journal:
        journal.start(2)
    why = _why(plan.refreshed(Monitor(tmp_path)), tmp_path)
    assert {name: str(reason) for name, reason in why.items()} == {
        "failed": "failed: ValueError: no good",
        "stopped": "interrupted: at iteration 3 of 5",
        "running": "running: at iteration 2 of 5",
    }


@pytest.mark.usefixtures("store")
def test_a_checkpoint_of_an_earlier_version_is_named_before_the_trial_runs(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    (trial,) = plan.trials
    with _journal(trial, tmp_path) as journal:
        journal.start(0)
        journal.metrics(3, {"train/loss": 1.0})
        journal.stopped()
    folder = training_folder(tmp_path, str(trial.training)) / CHECKPOINTS_FOLDER
    CheckpointFolder(folder).save(Checkpoint(3, {"optimizer.0.first": torch.zeros(1)}, {}))
    why = _why(plan.refreshed(Monitor(tmp_path)), tmp_path)["base"]
    assert str(why).startswith("interrupted: at iteration 3 of 5; ")
    assert str(why).endswith(f"by an earlier version and cannot be continued; to train anew, delete {folder}")


@pytest.mark.usefixtures("store")
def test_missing_data_are_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(tmp_path / "none"))
    why = _why(_plan(tmp_path, base={"depth.model": "dpt_large"}), tmp_path)
    assert why["base"].kind == "blocked"
    assert "splatsweep weights fetch dpt_large" in str(why["base"])


@pytest.mark.usefixtures("store")
def test_damaged_results_and_plans_are_passed_over(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    _finish(plan, tmp_path)
    (tmp_path / "sweeps" / "a" / "plan.json").write_text("[]")
    (tmp_path / "trials" / plan.trials[0].key / MEASUREMENTS_FILENAME).write_bytes(b"other")
    later = plan.refreshed(Monitor(tmp_path))
    assert {later.trials[0].status, *(r.kind for r in _why(later, tmp_path).values())} == {"pending", "new"}


@pytest.mark.usefixtures("store")
def test_the_table_and_the_json_agree(tmp_path: Path) -> None:
    _finish(_plan(tmp_path), tmp_path)
    plan = _plan(tmp_path, base={"train.batch_size": 3})
    why = reasons(plan, tmp_path)
    written = io.StringIO()
    Console(file=written, width=200).print(why_table(plan, why))
    text = "train.batch_size from 8 to 3"
    assert text in written.getvalue()
    assert f"1 pending, {len(controls())} finished" in written.getvalue()
    content = json.loads(plan.to_json({key: {"why": reason.as_json()} for key, reason in why.items()}))
    assert content["trials"][0]["why"]["changes"] == [{"key": "train.batch_size", "before": 8, "after": 3}]
    assert text in content["trials"][0]["why"]["text"]
    assert all("why" not in control for control in content["controls"])


@pytest.mark.usefixtures("store")
def test_without_anything_to_run_there_is_no_table_and_the_summary_is_as_wide_as_the_terminal(tmp_path: Path) -> None:
    plan = replace(_plan(tmp_path), primary="novel_psnr, named before any trial was trained")
    written = io.StringIO()
    Console(file=written, width=80).print(why_table(plan, {}))
    assert written.getvalue().splitlines()[1:] == ["primary metric: novel_psnr, named before any trial was trained"]


def _train(plan: Plan, home: Path) -> None:
    """Writes the trainings of a plan as finished, without their optimisers."""
    for trial in plan.trials:
        folder = training_folder(home, str(trial.training))
        folder.mkdir(parents=True)
        (folder / "weights.safetensors").touch()
        (folder / "config.json").write_text(json.dumps(training_identity(trial.config)))
        (folder / "training.json").write_text(json.dumps({"key": trial.training}))


@pytest.mark.usefixtures("store")
def test_another_evaluation_of_a_finished_training_is_no_training(tmp_path: Path) -> None:
    first = _plan(tmp_path)
    _train(first, tmp_path)
    assert [trial.status for trial in _plan(tmp_path).trials] == ["to be evaluated"]
    assert str(_why(_plan(tmp_path), tmp_path)["base"]) == "to be evaluated: its training is finished"
    _finish(first, tmp_path)
    plan = _plan(tmp_path, base={"eval.split": "val", "eval.every": 3})
    (trial,) = plan.trials
    assert trial.status == "to be evaluated"
    assert trial.is_unfinished
    assert trial.training == first.trials[0].training
    reason = _why(plan, tmp_path)["base"]
    assert (reason.kind, _changes(reason)) == ("to be evaluated", [("eval.split", "test", "val")])
    key = first.trials[0].key
    assert str(reason) == f"trained, to be evaluated; differs from base ({key}): eval.split from test to val"
    written = io.StringIO()
    Console(file=written, width=120).print(plan_table(plan))
    assert "1 to be evaluated" in written.getvalue()
    seeded = _plan(tmp_path, base={"eval.split": "val"}, seeds=[0, 1])
    assert [trial.status for trial in seeded.trials] == ["to be evaluated", "pending"]


@pytest.mark.usefixtures("store")
def test_an_interrupted_evaluation_is_repeated(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    _train(plan, tmp_path)
    with _journal(plan.trials[0], tmp_path) as journal:
        journal.start(5)
        journal.stopped()
    assert [trial.status for trial in plan.refreshed(Monitor(tmp_path)).trials] == ["to be evaluated"]
    with _journal(plan.trials[0], tmp_path) as journal:
        journal.failed("ValueError: no good")
    assert [trial.status for trial in plan.refreshed(Monitor(tmp_path)).trials] == ["failed"]


def _stages(*iterations: int) -> dict[str, Any]:
    return {"train.stages": [{"iterations": n, "lr": 1e-4, "losses": {"l2": 1.0}} for n in iterations]}


@pytest.mark.usefixtures("store")
def test_what_continues_a_training_is_said(tmp_path: Path) -> None:
    first = _plan(tmp_path)
    assert beginnings(first, tmp_path) == {}
    _train(first, tmp_path)
    _finish(first, tmp_path)
    (before,) = first.trials
    longer, further = _plan(tmp_path, base=_stages(8)), _plan(tmp_path, base=_stages(5, 3))
    key = str(before.training)
    (found,) = beginnings(further, tmp_path).values()
    assert found == Beginning(key, 5, is_whole=True)
    text = str(reasons(further, tmp_path, {further.trials[0].key: found})[further.trials[0].key])
    assert text.endswith(f"; continues training {key} from iteration 5")
    (found,) = beginnings(longer, tmp_path).values()
    assert str(found) == (
        f"training {key} is its beginning, but cannot be continued: its optimiser state was not kept "
        "(run.keep_optimizer)"
    )
    checkpoints = training_folder(tmp_path, key) / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "000000005.json").touch()
    (found,) = beginnings(longer, tmp_path).values()
    assert found == Beginning(key, 5, is_whole=False)
    assert reasons(longer, tmp_path, {longer.trials[0].key: found})[longer.trials[0].key].as_json()["beginning"] == {
        "key": key, "step": 5, "is_whole": False, "obstacle": "",
    }  # fmt: skip
    begun = training_folder(tmp_path, str(longer.trials[0].training)) / "checkpoints"
    begun.mkdir(parents=True)
    (begun / "000000002.json").touch()
    assert beginnings(longer, tmp_path) == {}, "it goes on from its own checkpoint"


@pytest.mark.usefixtures("store")
def test_how_often_best_weights_are_chosen_is_a_change(tmp_path: Path) -> None:
    best = {"train.keep": "best", "eval.every": 2}
    _finish(_plan(tmp_path, base=best), tmp_path)
    reason = _why(_plan(tmp_path, base=best | {"eval.every": 1}), tmp_path)["base"]
    assert ("eval.every", 2, 1) in _changes(reason)
