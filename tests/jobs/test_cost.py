"""Costs of trials: measured when they are evaluated, or later from their weights."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from jobs.config import TrialConfig
from jobs.cost import device_name, measure_costs, measure_finished
from jobs.data.prepare import open_dataset
from jobs.reconstructor import build_reconstructor
from jobs.trial import Runtime, run_trial
from model.types import Context
from model.weights import WeightStore
from results.costs import COSTS, read_costs
from results.records.home import training_folder
from results.records.training_folder import read_training
from results.records.trial_folder import COSTS_FILENAME, RESULT_FILENAME


def test_a_trial_is_measured_when_it_is_evaluated_and_can_be_measured_again(home, tiny) -> None:
    result = run_trial(TrialConfig.model_validate(tiny()), home, Runtime(threads=1))
    path, outcome = result.folder / COSTS_FILENAME, (result.folder / RESULT_FILENAME).read_bytes()
    first = json.loads(path.read_text())
    record = read_training(training_folder(home, result.training))
    assert first["train_s"] == pytest.approx(record["seconds"])
    assert first["device"] == device_name(torch.device("cpu"))
    path.unlink()
    again = measure_finished(home, result.key, torch.device("cpu"))
    assert json.loads(path.read_text()) == again
    assert {name: again[name] for name in ("parameters", "train_s", "device")} == {
        name: first[name] for name in ("parameters", "train_s", "device")
    }
    for measured in (first, again):
        assert measured["parameters"] > 0
        assert measured["predict_ms"] > 0
        assert measured["render_ms"] > 0
        assert measured["memory_mib"] is None or measured["memory_mib"] >= 4 * measured["parameters"] / 2**20
    assert set(read_costs(path).values) >= set(COSTS) - {"memory_mib"}
    assert (result.folder / RESULT_FILENAME).read_bytes() == outcome  # the result is not touched


def test_a_control_has_no_costs(home, tiny) -> None:
    sections = tiny()
    control = {"data": sections["data"], "eval": sections["eval"], "model": {"name": "blank"}}
    result = run_trial(TrialConfig.model_validate(control), home, Runtime(threads=1))
    assert not (result.folder / COSTS_FILENAME).exists()
    with pytest.raises(ValueError, match="has no network"):
        measure_finished(home, result.key, torch.device("cpu"))


def test_gaussians_that_are_not_finite_do_not_count(home, tiny) -> None:
    config = TrialConfig.model_validate(tiny())
    data = tiny()["data"]
    store = open_dataset(data["name"], data["options"], home)
    network = build_reconstructor(config, {}, WeightStore(home))

    def predict(source):
        scene = network(source, Context())
        scales = scene.gaussians.scales.clone()
        scales[0, 0, 0] = math.nan
        return replace(scene, gaussians=replace(scene.gaussians, scales=scales))

    costs = measure_costs(network, predict, config, store, torch.device("cpu"), None)
    assert costs["render_ms"] > 0
