"""Every row of the paper's presets trains and is evaluated, on the code path of the real weights.

The tests reduce the presets' rows in size: a few procedural chairs of 16 px, a small network, two iterations per stage.
Tiny checkpoints in the published formats replace the real weights.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.config import TrialConfig
from jobs.keys import frozen_weights, keys_of
from jobs.reconstructor import build_reconstructor
from jobs.trained import load_trained
from jobs.trial import Runtime, TrialFailedError, TrialResult, run_trial
from model.methods.splatter_image.predictor import GaussianPredictor
from model.networks import NETWORKS
from model.official import PUBLISHED, OfficialPredictor, official_state_dict
from model.weights import WeightStore
from results.records.journal import read_events
from sweep.file.load import load_sweep
from sweep.plan.grid import expand
from tests.conftest import tiny_configuration
from tests.tiny_checkpoints import write_tiny_checkpoint

PAPER, CORRECTED = "paper", "paper-corrected"
#: Replacements for the architectures of the random controls, which take minutes at full size: the smaller architecture,
#: and the side of its input images.
SMALLER = {
    "dinov2_vitl14_reg_lc": ("dinov2_small", 56),
    "clip_vit_b32": ("clip_vit_b32", 64),
    "dpt_large": ("midas_small", 64),
}
#: Sizes of small networks, by method.
SMALL = {
    "splatter_image": {"base_dim": 8, "num_blocks": 1, "channel_mult": [1, 2], "attention_resolutions": [8]},
    "pixelnerf": {"hidden": 16, "coarse_samples": 4, "importance_samples": 2, "depth_samples": 2, "rays_per_object": 8},
}
RUNTIME = Runtime(log_every=1)


@cache
def rows(preset: str) -> dict[str, TrialConfig]:
    """The rows of a preset by name, with its first seed."""
    with resources.as_file(resources.files("sweep.presets") / f"{preset}.yaml") as path:
        sweep = load_sweep(path)
    return {name: config for name, config in expand(sweep) if config.seed == sweep.seeds[0]}


def small(config: TrialConfig, data: dict[str, Any], **train: Any) -> TrialConfig:
    """A row on little data with a small network; `train` overrides keys of that section."""
    values = config.model_dump(mode="json")
    values["data"] = data
    values["model"] |= SMALL[config.model.name]
    values["train"] |= {"batch_size": 2, "views_per_object": 3} | train
    for stage in values["train"]["stages"]:
        stage["iterations"] = 2
    values["eval"] |= {"objects": 1, "every": None}
    values["render"]["backend"] = "auto"
    for section in (values["semantic"], values["depth"]):
        if "of" in section["options"]:
            section["options"]["of"], section["resolution"] = SMALLER[section["options"]["of"]]
    if values["depth"]["model"] == "midas_small" and values["depth"]["preprocess"] == "correct":
        values["depth"]["resolution"] = 64  # its stand-in has full size, since there is no smaller architecture
    return TrialConfig.model_validate(values)


def write_published(path: Path) -> None:
    """Writes a published file of a Splatter Image network of the small size."""
    config = small(rows(PAPER)["baseline"], tiny_configuration()["data"])
    network = build_reconstructor(config, {}, WeightStore(path.parent))
    assert isinstance(network, GaussianPredictor)
    whole = OfficialPredictor(network.backbone, network.head, PUBLISHED["hydrants"])  # type: ignore[arg-type]
    torch.save({"iteration": 800_000, "model_state_dict": official_state_dict(whole)}, path)


@pytest.fixture
def data(tiny: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return tiny()["data"]


@pytest.fixture(scope="module")
def rows_home(prepared_home: Path, weights: WeightStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with tiny chairs and stand-ins for all weights but LPIPS's; tests share it, and so cached features."""
    home = tmp_path_factory.mktemp("rows") / "home"
    shutil.copytree(prepared_home, home)
    folder = home / "weights"
    folder.mkdir(exist_ok=True)
    for path in (weights.fetch("vgg16"), weights.fetch("vgg16").with_suffix(".json")):
        (folder / path.name).symlink_to(path)
    names = {name for preset in (PAPER, CORRECTED) for row in rows(preset).values() for name in frozen_weights(row)}
    for name in names - {"vgg16", *NETWORKS}:
        write_tiny_checkpoint(name, folder)
    for name in names & NETWORKS.keys():
        write_published(folder / f"{name}.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATSWEEP_WEIGHTS", str(folder))
        yield home


def losses(result: TrialResult) -> dict[str, list[float]]:
    """All recorded training metrics, by step."""
    recorded: dict[str, list[float]] = {}
    for event in read_events(result.folder):
        for name, value in event.get("values", {}).items():
            if name.startswith("train/"):
                recorded.setdefault(name, []).append(value)
    return recorded


def test_the_paper_has_all_its_rows():
    inputs = {f"Input {model}" for model in ("MiDaS_small", "DPT_Hybrid", "DPT_Large")}
    attention = {f"X-Attn {model}" for model in ("MiDaS_small", "DPT_Large")}
    variants = {"baseline", "DINO", "CLIP", "TV", "Edge"} | inputs | attention
    assert set(rows(PAPER)) == variants | {"PixelNeRF", "Splatter Image (800k)"}
    assert set(rows("laptop")) == variants | {"PixelNeRF from scratch"}
    assert not rows("laptop")["PixelNeRF from scratch"].model.pretrained
    assert rows(PAPER)["PixelNeRF"].model.pretrained


@pytest.mark.parametrize(("preset", "row"), [(preset, row) for preset in (PAPER, CORRECTED) for row in rows(preset)])
def test_trains_and_is_evaluated(preset, row, rows_home, data):
    config = small(rows(preset)[row], data)
    result = run_trial(config, rows_home, RUNTIME)
    assert result.step == 2 * len(config.train.stages)
    assert all(math.isfinite(value) for value in result.metrics.values())
    terms = [f"train/{name}" for stage in config.train.stages for name in stage.losses]
    assert {name: len(values) for name, values in losses(result).items()} == {
        name: 2 * terms.count(name) for name in terms
    } | ({"train/loss": result.step} if terms else {})


@pytest.mark.parametrize("preset", [PAPER, CORRECTED])
def test_no_two_rows_are_the_same(preset):
    keys = {keys_of(config, "data", dict.fromkeys(frozen_weights(config), "hash")) for config in rows(preset).values()}
    assert len(keys) == len({key.training for key in keys}) == len(rows(preset))


def test_without_eps_the_edge_loss_stops_its_trial_with_the_diagnosis(rows_home, data):
    config = small(rows(PAPER)["Edge"], data, nonfinite="stop")
    with pytest.raises(TrialFailedError, match=r"gradient of .*edge_published.* is not finite, although the losses"):
        run_trial(config, rows_home, RUNTIME)


def test_the_published_edge_loss_scores_like_a_blank_picture(rows_home, data):
    config = small(rows(PAPER)["Edge"], data)
    assert config.train.nonfinite == "ignore"
    blank = config.model_copy(update={"model": config.model.model_copy(update={"name": "blank"})})
    edge, empty = run_trial(config, rows_home, RUNTIME), run_trial(blank, rows_home, RUNTIME)
    assert edge.metrics == empty.metrics


def test_with_eps_the_edge_loss_trains(rows_home, data):
    config = small(rows(CORRECTED)["Edge"], data)
    assert config.train.nonfinite == "stop"
    _, network, _ = load_trained(rows_home, run_trial(config, rows_home, RUNTIME).key)
    assert all(parameter.isfinite().all() for parameter in network.parameters())
