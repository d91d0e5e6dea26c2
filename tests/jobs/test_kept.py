"""`train.keep: best` evaluates the weights with the best score on the validation split."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

import jobs.training
from jobs.checkpoint import Checkpoint
from jobs.config import TrainConfig, TrialConfig
from jobs.kept import KeptWeights
from jobs.trained import load_trained
from jobs.trial import Runtime, TrialResult, run_trial
from results.records.home import training_folder
from results.records.journal import read_events
from tests.jobs.iterations import killed_at

RUNTIME = Runtime(threads=1, log_every=3, checkpoint_every=5)
BEST = TrainConfig(keep="best")


def network(value: float) -> nn.Module:
    linear = nn.Linear(1, 1)
    nn.init.constant_(linear.weight, value)
    nn.init.constant_(linear.bias, value)
    return linear


def offered(config: TrainConfig, *scores: float, metric: str = "psnr") -> KeptWeights:
    kept = KeptWeights(config)
    for step, score in enumerate(scores, 1):
        kept.offer(step, {f"val/{metric}": score}, network(step))
    return kept


@pytest.mark.parametrize(
    ("scores", "best"),
    [((1, 3, 2), 2), ((3, 3, 1), 1), ((math.nan, 2, math.nan), 2), ((-math.inf, -5), 2), ((1, 2, math.inf), 3)],
)
def test_the_highest_score_wins_and_the_first_of_equal_ones(scores, best):
    live = network(99)
    assert offered(BEST, *scores).load_into(live, last=10) == best
    assert all((tensor == best).all() for tensor in live.state_dict().values())


def test_a_metric_that_is_better_when_low():
    config = TrainConfig(keep="best", keep_by="lpips")
    assert offered(config, 0.3, 0.1, 0.2, metric="lpips").load_into(network(9), last=10) == 2


@pytest.mark.parametrize(("config", "scores"), [(TrainConfig(), (3, 1)), (BEST, ()), (BEST, (math.nan,))])
def test_the_last_weights_stay_where_they_are_kept_or_no_score_is_known(config, scores):
    live, kept = network(99), offered(config, *scores)
    assert kept.load_into(live, last=10) == 10
    assert (live.state_dict()["weight"] == 99).all()
    assert kept.plain() == {}
    assert kept.tensors == {}


def test_later_steps_change_no_kept_weights():
    live = network(1)
    kept = KeptWeights(BEST)
    kept.offer(1, {"val/psnr": 5.0}, live)
    with torch.no_grad():
        live.weight.fill_(7)  # type: ignore[union-attr, operator]
    kept.offer(2, {"val/psnr": 4.0}, live)
    kept.load_into(live, last=2)
    assert (live.state_dict()["weight"] == 1).all()


def test_a_checkpoint_has_them_and_evaluates_them():
    kept = offered(BEST, 3, 1)
    tensors = {"network.weight": torch.zeros(1)} | {f"best.{name}": each for name, each in kept.tensors.items()}
    saved = Checkpoint(2, tensors, json.loads(json.dumps(kept.plain())))
    again = KeptWeights(BEST, saved)
    again.offer(3, {"val/psnr": 2.0}, network(3))
    assert again.load_into(network(9), last=3) == 1
    assert saved.evaluated.keys() == kept.tensors.keys()
    assert KeptWeights(TrainConfig(), saved).tensors == {}
    assert KeptWeights(BEST, Checkpoint(2, {}, {})).plain() == {}, "it was written before the first score"


# Whole trainings


def configured(tiny, **train: Any) -> TrialConfig:
    sections = tiny()
    sections["train"] |= train
    sections["eval"] |= {"every": 3}
    return TrialConfig.model_validate(sections)


def weights(result: TrialResult) -> dict[str, torch.Tensor]:
    return load_file(training_folder(result.folder.parents[1], str(result.training)) / "weights.safetensors")


def declining(monkeypatch, best: int) -> None:
    """Scores on the validation split that are highest after `best` iterations."""
    real = jobs.training.validation_scores
    steps = iter(range(3, 100, 3))

    def scored(evaluation):
        return real(evaluation) | {"val/psnr": -abs(next(steps) - best)}

    monkeypatch.setattr(jobs.training, "validation_scores", scored)


@pytest.mark.parametrize("ema", [None, {"every": 2, "start": 3, "max_decay": 0.9}], ids=["live", "averaged"])
def test_best_weights_are_those_of_a_training_that_ended_there(ema, home, tiny, monkeypatch):
    stages = tiny()["train"]["stages"]
    ended = run_trial(configured(tiny, ema=ema, stages=[stages[0] | {"iterations": 9}]), home, RUNTIME)
    declining(monkeypatch, best=9)
    result = run_trial(configured(tiny, ema=ema, keep="best"), home, RUNTIME)
    assert result.metrics == ended.metrics
    ours, theirs = weights(result), weights(ended)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert json.loads((result.folder / "result.json").read_text())["judged_step"] == 9
    assert result.step == 18, "it trained to its end"
    assert max(event["step"] for event in read_events(result.folder) if event["event"] == "metrics") == 18
    reread = load_trained(home, result.key).reconstructor.state_dict()
    assert all(torch.equal(reread[name], ours[name]) for name in ours)


@pytest.mark.parametrize("at", [8, 14, 17])
def test_a_killed_training_keeps_the_same_weights(at, home, tiny, tmp_path):
    undisturbed = run_trial(configured(tiny, keep="best"), home, RUNTIME)
    kept, metrics = weights(undisturbed), undisturbed.metrics
    undisturbed.folder.rename(tmp_path / "trial")
    training_folder(home, str(undisturbed.training)).rename(tmp_path / "training")
    with killed_at(at):
        run_trial(configured(tiny, keep="best"), home, RUNTIME)
    result = run_trial(configured(tiny, keep="best"), home, RUNTIME)
    assert result.metrics == metrics
    assert all(torch.equal(weights(result)[name], kept[name]) for name in kept)


def test_the_next_stage_goes_on_from_the_last_weights(home, tiny, monkeypatch):
    """`keep` only chooses what is evaluated: training itself is the same."""
    last = run_trial(configured(tiny), home, RUNTIME)
    declining(monkeypatch, best=18)
    best = run_trial(configured(tiny, keep="best"), home, RUNTIME)
    assert best.key != last.key
    assert best.training != last.training
    assert all(torch.equal(weights(best)[name], each) for name, each in weights(last).items())


def problem(**sections: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        TrialConfig.model_validate(sections)
    return str(caught.value)


def test_a_best_one_needs_scores_to_compare():
    assert "there are none: set eval.every" in problem(train={"keep": "best"})
    text = problem(train={"keep": "best", "keep_by": "iou"}, eval={"every": 5})
    assert "train.keep_by iou is not among eval.metrics; allowed: psnr, ssim, lpips" in text
    assert "'fid'" in problem(train={"keep_by": "fid"})
    TrialConfig.model_validate({"model": {"name": "blank"}, "train": {"keep": "best"}})  # trains nothing
