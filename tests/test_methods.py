"""Several reconstruction methods on the whole path, with one table and one report; PixelNeRF learns an object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset, prepare
from jobs.evaluate import drawing, evaluate, no_context, predicting
from jobs.metrics.metric_set import MetricSet
from jobs.reconstructor import build_reconstructor
from jobs.trained import load_trained
from jobs.trial import Runtime, run_trial
from model.scenes import Reconstructor
from model.weights import WeightStore
from tests.processes import run

SWEEP = """
name: methods
base:
  data: {name: chairs, resolution: 16, options: {train: 6, val: 2, test: 3, views: 5, image_size: 16}}
  model: {base_dim: 8, channel_mult: [1, 2], attention_resolutions: [8]}
  train: {batch_size: 2, views_per_object: 3, stages: [{iterations: 6, lr: 1.0e-3, losses: {l2: 1.0}}]}
trials:
  Splatter Image: {}
  PixelNeRF from scratch:
    model:
      name: pixelnerf
      pretrained: false
      encoder_width: 8
      first_pool: false
      hidden: 16
      coarse_samples: 4
      importance_samples: 2
      depth_samples: 2
      rays_per_object: 8
tables: [auto, paper]
"""


def test_a_sweep_of_two_methods_has_one_table_and_one_report(weights, tmp_path):  # noqa: ARG001 - by their variable
    sweep = tmp_path / "methods.yaml"
    sweep.write_text(SWEEP)
    home = tmp_path / "home"
    home.mkdir()
    output = run("run", sweep, "--executor", "inline", home=home)
    assert "2 trials: 0 finished before, 2 to run" in output
    plan = json.loads((home / "sweeps" / "methods" / "plan.json").read_text())
    configs = {trial["name"]: trial["config"] for trial in plan["trials"]}
    assert configs["Splatter Image"]["model"]["base_dim"] == 8
    assert "base_dim" not in configs["PixelNeRF from scratch"]["model"]
    report = home / "reports" / "methods"
    text = "\n".join(path.read_text() for path in sorted(report.glob("*.md")))
    page = (report / "index.html").read_text()
    for name in ("Splatter Image", "PixelNeRF from scratch"):
        assert name in text
        assert name in page
    # Table 1 has found its first row: our score beside the published one.
    key = {trial["name"]: trial["key"] for trial in plan["trials"]}["PixelNeRF from scratch"]
    scores = json.loads((home / "trials" / key / "result.json").read_text())["metrics"]
    assert any(f"{scores['novel/psnr']:.2f}" in line for line in text.splitlines() if "21.76" in line)


@pytest.fixture
def one_chair(tmp_path: Path, weights: WeightStore, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """A home with one chair for training, and the configuration section that selects it."""
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(weights.folder))
    options = {"train": 1, "val": 1, "test": 1, "views": 4, "image_size": 16}
    prepare("chairs", options, tmp_path, workers=1)
    return tmp_path, {"name": "chairs", "resolution": 16, "options": options}


def test_pixelnerf_learns_an_object_from_its_pictures(one_chair, weights):
    """A trial becomes 3 dB better on novel views than a copy of the source."""
    home, data = one_chair
    model = {
        "name": "pixelnerf",
        "pretrained": False,
        "encoder_width": 16,
        "first_pool": False,
        "hidden": 64,
        "blocks": 3,
        "density": "softplus",
        "coarse_samples": 16,
        "importance_samples": 4,
        "depth_samples": 4,
        "rays_per_object": 128,
        "no_bbox_step": 150,
    }
    stages = [
        {"iterations": 250, "lr": 2e-3, "losses": {"l2": 1.0}},
        {"iterations": 100, "lr": 2e-4, "losses": {"l2": 1.0}},
    ]
    train = {"batch_size": 1, "views_per_object": 3, "stages": stages}
    config = TrialConfig.model_validate({"data": data, "model": model, "train": train})
    result = run_trial(config, home, Runtime(checkpoint_every=1000))
    trained = load_trained(home, result.key).reconstructor
    copy = config.model_validate({"data": data, "model": {"name": "copy_input"}})

    def novel_psnr(network: Reconstructor, its: TrialConfig) -> float:
        evaluation = evaluate(
            drawing(predicting(network, no_context, its)),
            open_dataset("chairs", data["options"], home),
            split="train",
            resolution=16,
            limit=None,
            metrics=MetricSet(("psnr",), "vgg", weights),
            device=torch.device("cpu"),
        )
        return evaluation.means()["novel/psnr"]

    ours, copied = novel_psnr(trained, config), novel_psnr(build_reconstructor(copy, {}, weights), copy)
    assert ours > copied + 3
