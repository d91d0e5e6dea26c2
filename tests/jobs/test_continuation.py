"""A longer training continues a finished one, and ends with the bits of a training in one go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from jobs.checkpoint import CheckpointFolder
from jobs.config import TrialConfig
from jobs.continuation import Beginning, Beginnings
from jobs.trial import Runtime, TrialResult, run_trial, weight_identities
from results.records.home import training_folder
from results.records.journal import read_events
from results.records.training_folder import lineage_text, read_training
from tests.jobs.iterations import killed_at

FORGETFUL = Runtime(threads=1, log_every=3, checkpoint_every=5)
KEEPING = replace(FORGETFUL, keep_optimizer=True)
EMA = {"every": 2, "start": 3, "max_decay": 0.9}


def configured(tiny, *iterations: int, eval: dict[str, Any] | None = None, **train: Any) -> TrialConfig:
    """Stages of these lengths: the first with l2, the second with l1 as well."""
    sections = tiny()
    losses = ({"l2": 1.0}, {"l2": 0.9, "l1": {"weight": 0.1, "start": 2, "ramp": 3}})
    stages = [
        {"iterations": count, "lr": lr, "losses": terms}
        for count, lr, terms in zip(iterations, (1e-3, 1e-4), losses, strict=False)
    ]
    sections["train"] |= {"stages": stages, **train}
    sections["eval"] |= eval or {}
    return TrialConfig.model_validate(sections)


def folder_of(result: TrialResult) -> Path:
    return training_folder(result.folder.parents[1], str(result.training))


def record_of(result: TrialResult) -> dict[str, Any]:
    record = read_training(folder_of(result))
    assert record is not None
    return record


def tensors(result: TrialResult) -> dict[str, torch.Tensor]:
    return load_file(folder_of(result) / "weights.safetensors")


def are_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def scores(folder: Path) -> dict[tuple[int, str], float]:
    """Validation scores of a journal by step and name; asserts that none was measured twice with other values."""
    found: dict[tuple[int, str], float] = {}
    for event in read_events(folder):
        for name, value in event.get("values", {}).items():
            if name.startswith("val/"):
                assert found.setdefault((event["step"], name), value) == value
    return found


class Whole(NamedTuple):
    """A training in one go."""

    key: str
    metrics: dict[str, float]
    tensors: dict[str, torch.Tensor]
    scores: dict[tuple[int, str], float]
    record: dict[str, Any]


#: configurations as JSON -> their trainings
_WHOLE: dict[str, Whole] = {}


@pytest.fixture
def in_one_go(home, tmp_path) -> Callable[[TrialConfig], Whole]:
    """Trains in a home of its own, in which there is nothing to continue; each configuration once."""

    def train(config: TrialConfig) -> Whole:
        key = config.model_dump_json()
        if key not in _WHOLE:
            alone = tmp_path / "alone"
            shutil.copytree(home, alone)
            result = run_trial(config, alone, FORGETFUL)
            _WHOLE[key] = Whole(result.key, result.metrics, tensors(result), scores(result.folder), record_of(result))
        return _WHOLE[key]

    return train


# Inside the first stage, at its end (also while its state was kept), and inside the second.
@pytest.mark.parametrize("iterations", [(7,), (12,), (12, 4)])
@pytest.mark.parametrize("ema", [None, EMA], ids=["live", "averaged"])
def test_continued_training_ends_with_the_bits_of_one_in_one_go(iterations, ema, home, tiny, in_one_go, steps):
    whole = in_one_go(configured(tiny, 12, 8, ema=ema))
    shorter = run_trial(configured(tiny, *iterations, ema=ema), home, KEEPING)
    steps.clear()
    longer = run_trial(configured(tiny, 12, 8, ema=ema), home, FORGETFUL)
    assert steps == list(range(sum(iterations), 20))
    assert are_equal(tensors(longer), whole.tensors)
    assert longer.metrics == whole.metrics
    assert longer.key == whole.key
    assert whole.scores.items() <= scores(longer.folder).items()
    record = record_of(longer)
    assert record["continued_from"] == [{"training": shorter.training, "step": sum(iterations)}]
    assert not (folder_of(longer) / "checkpoints").exists()
    assert len(list((folder_of(shorter) / "checkpoints").glob("*.safetensors"))) == 1, "it can be continued again"


@pytest.mark.parametrize("ema", [None, EMA], ids=["live", "averaged"])
def test_whole_stages_are_continued_from_the_weights_alone(ema, home, tiny, in_one_go, steps):
    whole = in_one_go(configured(tiny, 12, 8, ema=ema))
    shorter = run_trial(configured(tiny, 12, ema=ema), home, FORGETFUL)
    assert not (folder_of(shorter) / "checkpoints").exists()
    steps.clear()
    longer = run_trial(configured(tiny, 12, 8, ema=ema), home, FORGETFUL)
    assert steps == list(range(12, 20))
    assert are_equal(tensors(longer), whole.tensors)


def test_without_the_state_training_starts_anew_and_says_why(home, tiny, steps):
    shorter = run_trial(configured(tiny, 7), home, FORGETFUL)
    steps.clear()
    longer = run_trial(configured(tiny, 12), home, FORGETFUL)
    assert steps == list(range(12))
    record = record_of(longer)
    assert record["continued_from"] == []
    log = (longer.folder / "log.txt").read_text()
    assert f"starts anew: training {shorter.training} is its beginning, but cannot be continued" in log
    assert "its optimiser state was not kept (run.keep_optimizer)" in log


def test_damaged_state_is_not_continued(home, tiny, in_one_go, steps):
    whole = in_one_go(configured(tiny, 12, 8))
    for iterations, name in (((7,), "checkpoints/*.safetensors"), ((12,), "weights.safetensors")):
        (path,) = folder_of(run_trial(configured(tiny, *iterations), home, KEEPING)).glob(name)
        path.write_bytes(path.read_bytes()[:-1])
    steps.clear()
    longer = run_trial(configured(tiny, 12, 8), home, FORGETFUL)
    assert steps == list(range(20))
    assert are_equal(tensors(longer), whole.tensors)


def test_state_of_an_earlier_version_is_not_continued_and_the_plan_says_so(home, tiny, steps):
    shorter = run_trial(configured(tiny, 7), home, KEEPING)
    checkpoints = CheckpointFolder(folder_of(shorter) / "checkpoints")
    former = {name.replace("optimizer.", "optimizer.0."): t for name, t in checkpoints.latest().tensors.items()}
    checkpoints.save(replace(checkpoints.latest(), tensors=former))
    config = configured(tiny, 12)
    found = of(config, home)
    assert found is not None
    assert found.obstacle == "its optimiser state was written by an earlier version"
    steps.clear()
    assert record_of(run_trial(config, home, FORGETFUL))["continued_from"] == []
    assert steps == list(range(12))


def test_a_state_from_before_the_end_is_not_continued(home, tiny, steps):
    """The last checkpoint may be damaged, and the one before it still there."""
    checkpoints = CheckpointFolder(folder_of(run_trial(configured(tiny, 7), home, KEEPING)) / "checkpoints")
    checkpoints.save(replace(checkpoints.latest(), step=5))
    steps.clear()
    longer = run_trial(configured(tiny, 12), home, FORGETFUL)
    assert steps == list(range(12))
    assert record_of(longer)["continued_from"] == []


def test_what_continued_names_all_trainings_before_it(home, tiny, in_one_go, steps):
    whole = in_one_go(configured(tiny, 12, 8))
    first = run_trial(configured(tiny, 5), home, KEEPING)
    second = run_trial(configured(tiny, 12), home, KEEPING)
    steps.clear()
    third = run_trial(configured(tiny, 12, 8), home, KEEPING)
    assert steps == list(range(12, 20)), "of two beginnings it continues the longer"
    assert are_equal(tensors(third), whole.tensors)
    lineage = [{"training": first.training, "step": 5}, {"training": second.training, "step": 12}]
    assert json.loads((third.folder / "result.json").read_text())["continued_from"] == lineage
    continued = [event for event in read_events(third.folder) if event["event"] == "continued"]
    assert [{"training": event["training"], "step": event["step"]} for event in continued] == lineage
    assert lineage_text(lineage) == (
        f"training {first.training} at iteration 5, then training {second.training} at iteration 12"
    )
    losses = [step for event in read_events(third.folder) for step in [event["step"]] if event["event"] == "metrics"]
    assert losses == sorted(losses)
    assert losses[0] == 3, "the curve is whole"


@pytest.mark.parametrize("beginning", ["there", "removed"])
def test_killed_while_it_continues_it_resumes_and_stays_traceable(beginning, home, tiny, in_one_go, steps):
    whole = in_one_go(configured(tiny, 12, 8))
    shorter = run_trial(configured(tiny, 7), home, KEEPING)
    with killed_at(13):
        run_trial(configured(tiny, 12, 8), home, FORGETFUL)
    if beginning == "removed":
        shutil.rmtree(folder_of(shorter))
    steps.clear()
    longer = run_trial(configured(tiny, 12, 8), home, FORGETFUL)
    assert steps == list(range(10, 20)), "it goes on from its own checkpoint"
    assert are_equal(tensors(longer), whole.tensors)
    record = record_of(longer)
    assert record["continued_from"] == [{"training": shorter.training, "step": 7}]
    assert [entry["device"] for entry in record["environment"]["arithmetic"]] == ["cpu"]


def of(config: TrialConfig, home: Path) -> Beginning | None:
    (result,) = (home / "trainings").glob("*/training.json")
    record = json.loads(result.read_text())
    return Beginnings(home).of(config, record["data_fingerprint"], weight_identities(config, home))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"model": {"base_dim": 12, "channel_mult": [1, 2], "attention_resolutions": [8]}},
        {"train": {"batch_size": 3}},
        {"train": {"ema": EMA}},
        {"train": {"keep": "best"}},
        {"train": {"stages": [{"iterations": 12, "lr": 2e-3, "losses": {"l2": 1.0}}]}},
        {"train": {"stages": [{"iterations": 12, "lr": 1e-3, "losses": {"l1": 1.0}}]}},
        {"train": {"stages": [{"iterations": 5, "lr": 1e-3, "losses": {"l2": 1.0}}] * 2}},
        {"train": {"stages": [{"iterations": 7, "lr": 1e-3, "losses": {"l2": 1.0}}]}},
    ],
    ids=lambda change: json.dumps(change)[:60],
)
def test_only_the_same_settings_are_a_beginning(change, home, tiny):
    run_trial(configured(tiny, 7), home, KEEPING)
    plain = configured(tiny, 12).model_dump(mode="json")
    found = of(TrialConfig.model_validate(plain), home)
    assert found is not None
    assert (found.step, found.obstacle, found.is_whole) == (7, "", False)
    for section, values in change.items():
        plain[section] = plain[section] | values if section == "train" else values
    assert of(TrialConfig.model_validate(plain), home) is None


def test_another_way_of_judging_is_no_obstacle(home, tiny):
    run_trial(configured(tiny, 7), home, KEEPING)
    assert of(configured(tiny, 12, eval={"split": "val", "every": None}), home) is not None


def test_best_weights_are_continued_where_both_compare_the_same_scores(home, tiny, in_one_go, steps):
    config = configured(tiny, 12, 8, keep="best", eval={"every": 4})
    whole = in_one_go(config)
    shorter = run_trial(configured(tiny, 8, keep="best", eval={"every": 4}), home, KEEPING)
    steps.clear()
    longer = run_trial(config, home, FORGETFUL)
    assert steps == list(range(8, 20))
    assert are_equal(tensors(longer), whole.tensors)
    assert record_of(longer)["judged_step"] == whole.record["judged_step"]
    shutil.rmtree(folder_of(shorter))
    shutil.rmtree(folder_of(longer))
    shutil.rmtree(longer.folder)
    run_trial(configured(tiny, 7, keep="best", eval={"every": 4}), home, KEEPING)
    found = of(config, home)
    assert found is not None
    assert found.obstacle == "it compared its weights at iteration 7, and this one would not (eval.every)"


def test_training_that_kept_its_state_loses_it_to_no_other_trial_of_it(home, tiny):
    first = run_trial(configured(tiny, 7), home, KEEPING)
    run_trial(configured(tiny, 7, eval={"split": "val"}), home, FORGETFUL)
    assert len(list((folder_of(first) / "checkpoints").glob("*.safetensors"))) == 1
