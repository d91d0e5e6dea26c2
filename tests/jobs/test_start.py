"""A training starts from the weights of a trained network, or evaluates that network as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.batch import draw_batch
from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.feature_file import FeatureFile
from jobs.features import source_frames
from jobs.keys import keys_of
from jobs.model_file import OwnNetwork, export_trial
from jobs.official import OfficialCheckpoint, evaluate_checkpoint
from jobs.reconstructor import build_reconstructor
from jobs.trained import load_trained
from jobs.trial import Runtime, TrialFailedError, TrialResult, run_trial, weight_identities
from model.methods.pixelnerf.reconstructor import PixelNerfReconstructor
from model.official import pixelnerf_state_dict
from model.scenes import Reconstructor
from model.types import Context, Views
from model.weights import WeightStore
from results.records.journal import read_events
from tests.conftest import tiny_configuration
from tests.jobs.iterations import killed_at
from tests.model.methods.pixelnerf.scenery import small_options

RUNTIME = Runtime(threads=1, log_every=3, checkpoint_every=5)
ORACLE = {"model": "oracle", "fusion": "input"}


@pytest.fixture(scope="module")
def first(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialResult]:
    """A finished trial, in the home of all tests here.

    The store has its network as `network:own`, and in the published layout as `network:theirs`.
    """
    home = tmp_path_factory.mktemp("start") / "home"
    shutil.copytree(prepared_home, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATSWEEP_WEIGHTS", str(home / "weights"))
        result = run_trial(TrialConfig.model_validate(tiny_configuration()), home, RUNTIME)
        adopt(result, "network:own", ".safetensors")
        adopt(result, "network:theirs", ".pth")
        yield result


@pytest.fixture
def home(first: TrialResult) -> Path:
    return first.folder.parents[1]


@pytest.fixture
def build(home: Path, tiny) -> Callable[..., Reconstructor]:
    """A function: starting weights, sections and widths of a context -> the network that training starts with."""

    def build(start: str | None, widths: dict[str, int] | None = None, **sections: Any) -> Reconstructor:
        stages = [{"iterations": 1, "lr": 1e-3, "losses": {"l2": 1.0}}]
        config = TrialConfig.model_validate(tiny(train={"start": start, "stages": stages}, **sections))
        return build_reconstructor(config, widths or {}, WeightStore(home / "weights")).eval()

    return build


def adopt(result: TrialResult, name: str, suffix: str) -> Path:
    """Stores the network of a trial in its home, by way of a file, whose path is returned."""
    home = result.folder.parents[1]
    export_trial(result.folder, path := home / f"{name.partition(':')[2]}{suffix}")
    WeightStore(home / "weights").adopt(name, path)
    return path


def given(tiny, start: str = "network:own", **sections: Any) -> TrialConfig:
    """The configuration that evaluates a network as it is."""
    return TrialConfig.model_validate(tiny(train={"start": start, "stages": []}, **sections))


def means_of(network: Reconstructor, views: Views, context: Context) -> torch.Tensor:
    scene: Any = network(views, context)
    return scene.gaussians.means


@pytest.fixture
def views(home: Path, tiny) -> Views:
    """Two source views, one of each object."""
    config = TrialConfig.model_validate(tiny())
    store = open_dataset(config.data.name, config.data.options, home)
    return draw_batch(store, store.split("train"), config, 0).source


@pytest.mark.parametrize("start", ["network:own", "network:theirs"])
def test_the_network_has_the_weights_of_the_trained_one(start, first, home, build):
    trained = load_trained(home, first.key).reconstructor.state_dict()
    found = build(start).state_dict()
    assert found.keys() == trained.keys()
    assert all(torch.equal(found[name], trained[name]) for name in trained)


@pytest.mark.parametrize("start", ["network:own", "network:theirs"])
def test_a_further_input_channel_changes_nothing_at_first(start, build, views):
    depth = torch.rand(2, 1, 1, 16, 16)
    wider = build(start, {"depth": 1}, depth=ORACLE)
    assert wider.backbone.stem.weight.shape[1] == 4
    expected = means_of(build(start), views, Context())
    assert torch.allclose(means_of(wider, views, Context(depth=depth)), expected, atol=1e-6)
    wider.backbone.stem.weight.data[:, 3] = 0.1
    assert not torch.allclose(means_of(wider, views, Context(depth=depth)), expected, atol=1e-3)


def test_layers_of_further_context_are_new_and_those_of_the_file_are_its_own(build):
    film = {"depth": {"model": "oracle", "fusion": "film"}}
    trained, new = build("network:own").state_dict(), build(None, {"depth": 1}, **film).state_dict()
    found = build("network:own", {"depth": 1}, **film).state_dict()
    added = found.keys() - trained.keys()
    assert added
    assert all(torch.equal(found[name], (new if name in added else trained)[name]) for name in found)


@pytest.mark.parametrize("start", ["network:own", "network:theirs"])
@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"model": {"base_dim": 16, "channel_mult": [1, 2], "attention_resolutions": [8]}}, "base_dim 8, .*trial 16"),
        ({"model": {"base_dim": 8, "channel_mult": [1, 1], "attention_resolutions": [8]}}, r"\[1, 2\], .*\[1, 1\]"),
        ({"model": {"name": "pixelnerf", "pretrained": False}}, "splatter_image"),
        ({"model": {"backbone": "transformer"}}, "transformer|unet"),
    ],
)
def test_another_network_is_refused_with_what_differs(start, sections, reason, build, tiny):
    sections["eval"] = tiny()["eval"]
    with pytest.raises(ValueError, match=f"{start} does not fit the network of this trial: .*({reason})"):
        build(start, **sections)


def test_a_network_with_context_starts_none_with_other_context(build, home, tiny):
    conditioned = run_trial(TrialConfig.model_validate(tiny(depth=ORACLE | {"fusion": "film"})), home, RUNTIME)
    adopt(conditioned, "network:film", ".safetensors")
    assert build("network:film", {"depth": 1}, depth=ORACLE | {"fusion": "film"})
    with pytest.raises(ValueError, match="left over: "):
        build("network:film")
    with pytest.raises(ValueError, match="missing: "):
        build("network:film", {"depth": 1}, depth=ORACLE | {"fusion": "xattn"})


def test_a_published_pixelnerf_can_be_trained_further(tmp_path, tiny):
    config = tiny(model=small_options(), train={"stages": [{"iterations": 1, "lr": 1e-4, "losses": {"l2": 1.0}}]})
    store = WeightStore(tmp_path / "weights")
    published = build_reconstructor(TrialConfig.model_validate(config), {}, store)
    assert isinstance(published, PixelNerfReconstructor)
    torch.save(pixelnerf_state_dict(published), tmp_path / "pixel_nerf_latest")
    store.adopt("network:nerf", tmp_path / "pixel_nerf_latest")
    config["train"]["start"] = "network:nerf"
    found = build_reconstructor(TrialConfig.model_validate(config | {"seed": 1}), {}, store).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in published.state_dict().items())


def test_without_stages_the_network_is_evaluated_as_it_is(first, home, tiny, steps):
    steps.clear()
    result = run_trial(given(tiny), home, RUNTIME)
    assert steps == []
    assert (result.step, result.metrics) == (0, first.metrics)
    assert run_trial(given(tiny, "network:theirs"), home, RUNTIME).metrics == pytest.approx(first.metrics)
    assert not any("time/step_ms" in event.get("values", {}) for event in read_events(result.folder))
    checkpoint = OfficialCheckpoint.read(home / "theirs.pth")
    assert evaluate_checkpoint(checkpoint, given(tiny), home).metrics == pytest.approx(first.metrics)


@pytest.mark.parametrize("stages", [[], [{"iterations": 2, "lr": 1e-3, "losses": {"l2": 1.0}}]])
def test_its_network_is_evaluated_elsewhere_without_the_weights_that_it_started_from(
    stages, home, tiny, prepared_home, tmp_path, monkeypatch
):
    train = {"start": "network:own", "stages": stages, "batch_size": 2, "views_per_object": 3}
    result = run_trial(TrialConfig.model_validate(tiny(train=train)), home, RUNTIME)
    export_trial(result.folder, tmp_path / "tuned.safetensors")
    shutil.copytree(prepared_home, tmp_path / "elsewhere")
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(tmp_path / "none"))
    network = OwnNetwork.read(tmp_path / "tuned.safetensors")
    config = TrialConfig.model_validate(network.settings("chairs") | {"eval": tiny()["eval"]})
    assert evaluate_checkpoint(network, config, tmp_path / "elsewhere").metrics == pytest.approx(result.metrics)


def test_layers_that_nothing_trains_are_refused(home, tiny):
    config = given(tiny, depth=ORACLE | {"fusion": "film"})
    with pytest.raises(TrialFailedError, match=r"network:own has no weights of .*fusers.*train\.stages is empty"):
        run_trial(config, home, RUNTIME)


def test_features_of_the_training_split_are_not_computed_for_a_network_as_it_is(home, tiny):
    noisy = {"depth": {"model": "oracle_noisy", "fusion": "input"}}
    conditioned = run_trial(TrialConfig.model_validate(tiny(**noisy)), home, RUNTIME)
    adopt(conditioned, "network:depth", ".pth")
    shutil.rmtree(home / "cache" / "features")
    assert run_trial(given(tiny, "network:depth", **noisy), home, RUNTIME).metrics == pytest.approx(conditioned.metrics)
    (features,) = (home / "cache" / "features").glob("*.npy")
    store = open_dataset("chairs", tiny()["data"]["options"], home)
    assert np.array_equal(FeatureFile(features).frames, source_frames(store, 1, ("test",)))


def test_the_key_covers_the_given_weights_and_no_seed_where_nothing_is_trained(home, tiny):
    def keys(config: TrialConfig, **other: str) -> Any:
        return keys_of(config, "data", weight_identities(config, home) | other)

    tuned = TrialConfig.model_validate(tiny() | {"train": tiny()["train"] | {"start": "network:own"}})
    plain = TrialConfig.model_validate(tiny())
    assert "start" not in plain.identity()["train"]
    assert keys(tuned).training != keys(plain).training
    assert keys(tuned, **{"network:own": "another file"}).training != keys(tuned).training
    assert keys(tuned.model_copy(update={"seed": 1})) != keys(tuned)
    as_given, again = given(tiny), given(tiny).model_copy(update={"seed": 1})
    assert keys(again) == keys(as_given)
    assert TrialConfig.model_validate(as_given.identity()).identity() == as_given.identity()


def test_a_killed_training_continues_from_its_checkpoint_and_not_from_the_start(home, tiny, tmp_path):
    config = TrialConfig.model_validate(tiny() | {"train": tiny()["train"] | {"start": "network:own"}})
    undisturbed = run_trial(config, home, RUNTIME)
    weights = load_trained(home, undisturbed.key).reconstructor.state_dict()
    for folder in (undisturbed.folder, home / "trainings" / str(undisturbed.training)):
        folder.rename(tmp_path / folder.name)
    with killed_at(8):
        run_trial(config, home, RUNTIME)
    assert run_trial(config, home, RUNTIME).metrics == undisturbed.metrics
    continued = load_trained(home, undisturbed.key).reconstructor.state_dict()
    assert all(torch.equal(continued[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        ({"start": "splatter_image_car"}, "unknown trained network.*did you mean 'splatter_image_cars'"),
        ({"start": "network:"}, "unknown trained network 'network:'; allowed: network:NAME, splatter_image_cars"),
        ({"start": "network:a/b"}, "unknown trained network"),
        ({"start": "clip_vit_b32"}, "unknown trained network"),
        ({"stages": []}, r"train\.stages is empty.*set train\.start"),
        ({"start": "network:own", "stages": [], "keep": "best"}, r"train\.keep best chooses among .*allowed: last"),
    ],
)
def test_mistakes_are_named(train, reason, tiny):
    with pytest.raises(ValueError, match=reason):
        TrialConfig.model_validate(tiny(train=train))
