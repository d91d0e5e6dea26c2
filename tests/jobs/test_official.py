import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.evaluate import evaluate
from jobs.feature_file import FeatureFile
from jobs.metrics.metric_set import MetricSet
from jobs.model_file import OwnNetwork
from jobs.official import OfficialCheckpoint, evaluate_checkpoint
from jobs.reconstructor import build_reconstructor
from model.methods.pixelnerf.reconstructor import PixelNerfReconstructor
from model.official import PUBLISHED, OfficialPredictor, official_state_dict, pixelnerf_state_dict
from model.types import Context
from model.weights import WeightStore
from results.metrics import PUBLISHED as METRICS
from tests.model.methods.pixelnerf.scenery import small_options


def save(path: Path, predictor, **extra) -> Path:
    """Writes a checkpoint in the format of the published training code."""
    ours = OfficialPredictor(predictor.backbone, predictor.head, PUBLISHED["cars"])
    content = {
        "iteration": 25_001,
        "optimizer_state_dict": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 5e-5}]},
        "loss": 0.01,
        "best_PSNR": np.float64(20.5),
        "model_state_dict": official_state_dict(ours),
    }
    torch.save(content | extra, path)
    return path


@pytest.fixture
def trained(tiny, weights):
    """A function: sections of a configuration -> the configuration, and a network whose images differ."""

    def make(widths=None, **model):
        sections = tiny(model=tiny()["model"] | model)
        config = TrialConfig.model_validate({name: sections[name] for name in ("data", "model", "eval")})
        predictor = build_reconstructor(config, widths or {}, weights)
        torch.manual_seed(1)
        for parameter in predictor.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        return config, predictor.eval()

    return make


def merged(config: dict, data: dict, **sections) -> TrialConfig:
    return TrialConfig.model_validate(config | {"data": config["data"] | {"options": data["options"]}} | sections)


@pytest.mark.parametrize("views", [1, 2])
def test_a_published_file_is_evaluated_like_the_network_in_it(views, trained, tiny, home, weights, tmp_path):
    config, predictor = trained(camera_embedding=views == 2, input_views=views)
    checkpoint = OfficialCheckpoint.read(save(tmp_path / "model_latest.pth", predictor))
    settings = checkpoint.settings("chairs")
    assert settings["model"] == json.loads(config.model.model_dump_json(include=set(settings["model"])))
    result = evaluate_checkpoint(checkpoint, merged(settings, tiny()["data"], eval={"objects": 2}), home)

    def draw(source, targets):
        return predictor(source, Context()).render(targets.cameras, targets.background)

    expected = evaluate(
        draw,
        open_dataset("chairs", tiny()["data"]["options"], home),
        split="test",
        resolution=16,
        limit=2,
        metrics=MetricSet(METRICS, "vgg", weights),
        device=torch.device("cpu"),
        input_views=views,
    )
    assert result.metrics == pytest.approx(expected.means(), rel=1e-3)
    measured = pd.read_parquet(result.folder / "per_object.parquet")
    assert len(measured) == len(expected.per_object)
    record = json.loads((result.folder / "result.json").read_text())
    computed = {"backend": "cpu", "execution": "eager", "precision": "float32", "device": "cpu"}
    assert record["arithmetic"] == [computed]
    assert record["checkpoint"] == {"name": "model_latest.pth", "sha256": checkpoint.sha256}
    assert record["step"] == 25_001
    assert record["metrics"] == result.metrics


def test_a_published_pixelnerf_is_evaluated_like_the_network_in_it(tiny, home, weights, tmp_path):
    torch.manual_seed(0)
    network = PixelNerfReconstructor(
        small_options(pixel_point="corner", bounds="distance", feature_alignment="corners")
    )
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    torch.save(pixelnerf_state_dict(network), tmp_path / "pixel_nerf_latest")
    checkpoint = OfficialCheckpoint.read(tmp_path / "pixel_nerf_latest")
    settings = checkpoint.settings("chairs")
    settings["data"]["resolution"] = 16
    settings["model"] |= {"first_pool": False, "coarse_samples": 6, "importance_samples": 3, "depth_samples": 2}
    result = evaluate_checkpoint(checkpoint, merged(settings, tiny()["data"], eval={"objects": 1}), home)

    def draw(source, targets):
        return network.eval()(source, Context()).render(targets.cameras, targets.background)

    expected = evaluate(
        draw,
        open_dataset("chairs", tiny()["data"]["options"], home),
        split="test",
        resolution=16,
        limit=1,
        metrics=MetricSet(METRICS, "vgg", weights),
        device=torch.device("cpu"),
    )
    assert result.metrics == pytest.approx(expected.means(), rel=1e-3)
    record = json.loads((result.folder / "result.json").read_text())
    assert record["step"] is None
    assert record["arithmetic"][0]["backend"] is None, "its scenes are no Gaussians"


def test_a_trained_pixelnerf_needs_none_of_the_weights_that_its_training_started_from(
    tiny, home, weights, tmp_path, monkeypatch
):
    model = {"name": "pixelnerf", "hidden": 8, "blocks": 1, "view_blocks": 1, "first_pool": False}
    model |= {"coarse_samples": 4, "importance_samples": 2, "depth_samples": 1}
    config = TrialConfig.model_validate(tiny(model=model, eval={"objects": 1}))
    assert config.model.pretrained
    network = build_reconstructor(config, {}, weights, initial=False)
    own = OwnNetwork(tmp_path / "own.safetensors", "5" * 64, config, network.state_dict(), 1)
    monkeypatch.setattr(WeightStore, "has", lambda _, name: name != "resnet34")
    monkeypatch.setattr(WeightStore, "_acquire", lambda _, weight: pytest.fail(f"{weight.name} was looked for"))
    assert math.isfinite(evaluate_checkpoint(own, config, home).metrics["novel/psnr"])


def test_a_result_that_stands_is_not_computed_again(trained, tiny, home, tmp_path, monkeypatch):
    _, predictor = trained()
    checkpoint = OfficialCheckpoint.read(save(tmp_path / "model.pth", predictor))
    config = merged(checkpoint.settings("chairs"), tiny()["data"], eval={"objects": 1})
    first = evaluate_checkpoint(checkpoint, config, home)
    monkeypatch.setattr("jobs.official.evaluate_predictions", None)
    assert evaluate_checkpoint(checkpoint, config, home) == first
    other = config.model_copy(update={"eval": config.eval.model_copy(update={"objects": 2})})
    with pytest.raises(TypeError):
        evaluate_checkpoint(checkpoint, other, home)


@pytest.mark.parametrize(
    ("lacking", "sections", "problem"),
    [
        ("mask", {"eval": {"metrics": ["iou"]}}, "eval.metrics iou: dataset 'chairs' has no mask; allowed: psnr"),
        ("depth", {"depth": {"model": "oracle"}}, "depth.model oracle: it reads the dataset's own depth"),
    ],
)
def test_a_dataset_without_what_the_evaluation_needs_is_refused(
    lacking, sections, problem, trained, tiny, home, tmp_path, monkeypatch
):
    _, predictor = trained()
    checkpoint = OfficialCheckpoint.read(save(tmp_path / "model.pth", predictor))
    monkeypatch.setattr(
        "jobs.official.open_dataset", lambda *arguments: replace(open_dataset(*arguments), **{lacking: None})
    )
    with pytest.raises(ValueError, match=problem):
        evaluate_checkpoint(checkpoint, merged(checkpoint.settings("chairs"), tiny()["data"], **sections), home)


def test_a_conditioned_network_requires_its_model_and_receives_its_maps(trained, tiny, home, weights, tmp_path):
    config, _ = trained()
    depth = {"model": "oracle_noisy", "fusion": "input"}
    conditioned = TrialConfig.model_validate(config.model_dump(mode="json") | {"depth": depth})
    checkpoint = OfficialCheckpoint.read(
        save(tmp_path / "model.pth", build_reconstructor(conditioned, {"depth": 1}, weights))
    )
    settings = checkpoint.settings("chairs")
    assert settings["depth"] == {"fusion": "input"}
    with pytest.raises(ValueError, match=r"takes depth context of width 1 by input; .*--set depth\.model="):
        evaluate_checkpoint(checkpoint, merged(settings, tiny()["data"], eval={"objects": 1}), home)
    named = merged(settings, tiny()["data"], eval={"objects": 1}, depth=depth)
    assert evaluate_checkpoint(checkpoint, named, home).metrics["novel/psnr"] > 0
    (features,) = (home / "cache" / "features").glob("*.npy")
    store = open_dataset("chairs", tiny()["data"]["options"], home)
    assert len(FeatureFile(features).frames) == len(store.split("test"))  # and none of training


class Surprise:
    """An object whose unpickling would execute code."""

    def __reduce__(self):
        return (Path.touch, (Path("surprise"),))


def test_files_that_are_no_checkpoints_are_refused(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, predictor = trained()
    sound = save(tmp_path / "sound.pth", predictor).read_bytes()
    for content in (b"", b"hi\n", b"no checkpoint", bytes(range(256)), sound[: len(sound) // 2]):
        (tmp_path / "damaged.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged\.pth is no checkpoint that can be read safely: [^`]+$"):
            OfficialCheckpoint.read(tmp_path / "damaged.pth")
    with pytest.raises(ValueError, match="is no checkpoint that can be read safely"):
        OfficialCheckpoint.read(save(tmp_path / "evil.pth", predictor, loss=Surprise()))
    assert not Path("surprise").exists()
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list"):
        OfficialCheckpoint.read(tmp_path / "list.pth")
    torch.save({"model_state_dict": {"fc.weight": torch.rand(2)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: no Splatter Image network"):
        OfficialCheckpoint.read(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("iteration", "recorded"),
    [
        (np.int64(7), 7),
        (7.0, 7),
        pytest.param(10**400, 10**400, id="huge"),
        (math.nan, None),
        (-math.inf, None),
        ([7], None),
    ],
)
def test_an_iteration_that_is_no_number_is_not_recorded(iteration, recorded, trained, tmp_path):
    path = save(tmp_path / "model.pth", trained()[1], iteration=iteration)
    assert OfficialCheckpoint.read(path).iteration == recorded


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("16x16_conv.weight", lambda tensor: tensor[:0], "other shapes"),
        ("16x16_conv.weight", lambda tensor: tensor.sum(), "other shapes"),
        ("16x16_block0.conv1.weight", lambda tensor: tensor.sum(), "other shapes"),
        (
            "16x16_block0.norm0.bias",
            lambda tensor: tensor[:1],
            r"do not fit the network: 1 of another shape: .*norm0\.bias",
        ),
    ],
)
def test_tensors_of_other_shapes_are_refused_with_the_files_name(name, change, problem, trained, tiny, home, tmp_path):
    _, predictor = trained()
    content = torch.load(save(tmp_path / "model.pth", predictor), weights_only=False)
    (changed,) = (full for full in content["model_state_dict"] if full.endswith(f"enc.{name}"))
    content["model_state_dict"][changed] = change(content["model_state_dict"][changed])
    torch.save(content, tmp_path / "model.pth")

    def evaluated():
        checkpoint = OfficialCheckpoint.read(tmp_path / "model.pth")
        return evaluate_checkpoint(checkpoint, merged(checkpoint.settings("chairs"), tiny()["data"]), home)

    with pytest.raises(ValueError, match=rf"model\.pth: .*{problem}"):
        evaluated()


def test_a_file_of_another_method_is_called_what_it_is(trained, tmp_path: Path) -> None:
    config, predictor = trained()
    checkpoint = OfficialCheckpoint.read(save(tmp_path / "model.pth", predictor))
    other = TrialConfig.model_validate({"data": config.data.model_dump(), "model": {"name": "blank"}})
    with pytest.raises(ValueError, match=r"model\.pth is a file of model\.name splatter_image, not of blank"):
        evaluate_checkpoint(checkpoint, other, tmp_path)
    with pytest.raises(ValueError, match=r"splatter_image, not of pixelnerf; leave model\.name out"):
        checkpoint.check_method("pixelnerf", "chairs")
    checkpoint.check_method("splatter_image", "chairs")
