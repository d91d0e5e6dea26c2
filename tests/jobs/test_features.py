"""Cached features of frozen models: equal to the model's output, computed once, for every possible source frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jobs.config import TrialConfig
from jobs.contexts import frozen_class, frozen_options
from jobs.data.prepare import open_dataset
from jobs.feature_file import FeatureFile
from jobs.features import ContextReader, source_frames
from model.fusion import FUSION
from model.fusion.base import context_type_for
from model.registry import resolve
from model.weights import WeightStore
from tests.tiny_checkpoints import write_tiny_checkpoint

SECTIONS = {
    "vector": {"semantic": {"encoder": "dinov2_small", "fusion": "xattn", "resolution": 56}},
    "tokens": {"semantic": {"encoder": "dinov2_small", "fusion": "xattn_tokens", "resolution": 56}},
    "map": {"depth": {"model": "depth_anything_v2_small", "fusion": "input", "resolution": 56}},
}


@pytest.fixture(scope="module")
def tiny_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("feature_standins")
    for name in ("dinov2_small", "depth_anything_v2_small"):
        write_tiny_checkpoint(name, folder)
    return WeightStore(folder)


@pytest.fixture
def configured(tiny):
    return lambda **sections: TrialConfig.model_validate(tiny(**sections))


@pytest.fixture
def store(configured, home):
    data = configured().data
    return open_dataset(data.name, data.options, home)


def source_views(store, frames):
    return store.views(np.asarray(frames)[:, None], 16)


def fresh(config, weights):
    """The frozen model of the only active source."""
    ((source, section),) = [(s, section) for s, section in config.sources.items() if section.choice != "none"]
    return frozen_class(section)(
        weights,
        output_type=context_type_for(resolve(FUSION, section.fusion, "fusion"), source),
        preprocess=section.preprocess,
        resolution=section.resolution,
        options=frozen_options(section),
    )


def feature_files(folder):
    return sorted(folder.glob("features/*.npy"))


@pytest.mark.parametrize("kind", SECTIONS)
def test_cached_features_equal_the_models_output(kind, configured, store, tiny_checkpoints, tmp_path):
    config = configured(**SECTIONS[kind])
    views = source_views(store, [3, 11])
    reader = ContextReader(config, store, tiny_checkpoints, tmp_path)
    context, model = reader(views), fresh(config, tiny_checkpoints)
    kept, other = (context.get(name) for name in (("depth", "semantic") if kind == "map" else ("semantic", "depth")))
    expected = model(views)
    assert other is None
    assert kept.dtype == torch.float32
    assert kept.shape == expected.shape
    assert list(reader.widths.values()) == [model.width]
    # Half precision, and another batch size.
    torch.testing.assert_close(kept, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize("kind", SECTIONS)
def test_no_model_is_built_for_cached_features(kind, configured, store, tiny_checkpoints, tmp_path, monkeypatch):
    config = configured(**SECTIONS[kind])
    first = ContextReader(config, store, tiny_checkpoints, tmp_path)
    monkeypatch.setattr(WeightStore, "load", lambda *_: pytest.fail("weights were loaded"))
    again = ContextReader(config, store, tiny_checkpoints, tmp_path)
    views = source_views(store, [0, 7])
    for source, values in vars_of(first(views)).items():
        assert torch.equal(values, vars_of(again(views))[source])
    assert again.widths == first.widths
    assert len(feature_files(tmp_path)) == 1


def vars_of(context):
    named = {source: context.get(source) for source in ("semantic", "depth")}
    return {source: values for source, values in named.items() if values is not None}


def test_an_evaluation_computes_those_of_its_split_or_reads_those_of_all(configured, store, tiny_checkpoints, tmp_path):
    config = configured(**SECTIONS["vector"])

    def read(folder):
        return ContextReader(config, store, tiny_checkpoints, folder, splits=("test",))(views).get("semantic")

    views = source_views(store, source_frames(store, 1, ("test",)))
    alone = read(tmp_path)
    assert len(FeatureFile(feature_files(tmp_path)[0]).frames) == (store.objects["split"] == "test").sum()
    everything = ContextReader(config, store, tiny_checkpoints, tmp_path / "all")(views).get("semantic")
    assert torch.equal(read(tmp_path / "all"), everything)
    assert len(feature_files(tmp_path / "all")) == 1
    torch.testing.assert_close(alone, everything, rtol=1e-3, atol=1e-3)  # another batch size


@pytest.mark.parametrize(
    "change", [{"resolution": 70}, {"preprocess": "published", "resolution": None}, {"model": "random"}]
)
def test_everything_that_changes_the_values_changes_the_file(change, configured, store, tiny_checkpoints, tmp_path):
    ContextReader(configured(**SECTIONS["map"]), store, tiny_checkpoints, tmp_path)
    ContextReader(
        configured(depth={"model": "depth_anything_v2_small", "resolution": 56}), store, tiny_checkpoints, tmp_path
    )
    assert len(feature_files(tmp_path)) == 1
    section = SECTIONS["map"]["depth"] | change
    if change.get("model") == "random":
        section |= {"resolution": 32, "options": {"of": "midas_small"}}
    ContextReader(configured(depth=section), store, tiny_checkpoints, tmp_path)
    assert len(feature_files(tmp_path)) == 2


def test_other_weights_are_another_file(configured, store, tiny_checkpoints, tmp_path):
    config = configured(**SECTIONS["map"])
    ContextReader(config, store, tiny_checkpoints, tmp_path)
    # The same name, other tensors.
    write_tiny_checkpoint("depth_anything_v2_base", tmp_path / "weights")
    (tmp_path / "weights" / "depth_anything_v2_base").rename(tmp_path / "weights" / "depth_anything_v2_small")
    ContextReader(config, store, WeightStore(tmp_path / "weights"), tmp_path)
    assert len(feature_files(tmp_path)) == 2


def test_options_with_their_defaults_written_out_are_the_same_file(configured, store, tiny_checkpoints, tmp_path):
    for options in ({}, {"sigma": 0.05}, {"sigma": 0.05, "levels": None, "seed": 0}):
        ContextReader(
            configured(depth={"model": "oracle_noisy", "options": options}), store, tiny_checkpoints, tmp_path
        )
    assert len(feature_files(tmp_path)) == 1
    ContextReader(
        configured(depth={"model": "oracle_noisy", "options": {"sigma": 0.1}}), store, tiny_checkpoints, tmp_path
    )
    assert len(feature_files(tmp_path)) == 2


@pytest.mark.parametrize("input_views", [1, 2])
def test_only_frames_that_can_be_sources_are_kept(input_views, configured, store, tiny_checkpoints, tmp_path):
    config = configured(**SECTIONS["map"], model={**configured().model.model_dump(), "input_views": input_views})
    reader = ContextReader(config, store, tiny_checkpoints, tmp_path)
    (path,) = feature_files(tmp_path)
    frames = FeatureFile(path).frames
    assert np.array_equal(frames, source_frames(store, input_views))
    training = store.split("train")["num_frames"].sum()
    others = len(store.objects[store.objects["split"] != "train"])
    assert len(frames) == training + others * input_views
    reader(source_views(store, frames))


def test_a_frame_that_is_never_a_source_is_refused(configured, store, tiny_checkpoints, tmp_path):
    reader = ContextReader(configured(**SECTIONS["map"]), store, tiny_checkpoints, tmp_path)
    test_object = store.split("test").iloc[-1]
    reader(source_views(store, [test_object.first_frame]))
    for frame in (test_object.first_frame + 1, len(store.images) - 1):
        with pytest.raises(ValueError, match="never a source"):
            reader(source_views(store, [test_object.first_frame, frame]))


def test_several_views_of_an_object_each_have_their_own(configured, store, tiny_checkpoints, tmp_path):
    reader = ContextReader(configured(**SECTIONS["map"]), store, tiny_checkpoints, tmp_path)
    together = reader(store.views(np.array([[0, 3], [6, 8]]), 16)).get("depth")
    apart = reader(source_views(store, [0, 3, 6, 8])).get("depth")
    assert torch.equal(together.flatten(0, 1), apart.flatten(0, 1))


def test_what_needs_no_keeping_is_not_kept(configured, store, tiny_checkpoints, tmp_path):
    reader = ContextReader(
        configured(depth={"model": "constant", "options": {"value": 2.0}}), store, tiny_checkpoints, tmp_path
    )
    assert (reader(source_views(store, [0])).get("depth") == 2).all()
    assert reader.widths == {"depth": 1}
    assert feature_files(tmp_path) == []


def test_no_conditioning_is_an_empty_context(configured, store, tiny_checkpoints, tmp_path):
    reader = ContextReader(configured(), store, tiny_checkpoints, tmp_path)
    assert vars_of(reader(source_views(store, [0]))) == {}
    assert reader.widths == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_gpu_reads_the_same(share, configured, store, tiny_checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.features._GPU_CACHE_SHARE", share)
    config = configured(**SECTIONS["map"])
    views = source_views(store, [0, 7])
    expected = ContextReader(config, store, tiny_checkpoints, tmp_path)(views).get("depth")
    reader = ContextReader(config, store, tiny_checkpoints, tmp_path, "cuda")
    kept = reader(views.to("cuda")).get("depth")
    assert kept.is_cuda
    assert torch.equal(kept.cpu(), expected)
    computed = ContextReader(config, store, tiny_checkpoints, tmp_path / "other", "cuda")(views.to("cuda")).get("depth")
    torch.testing.assert_close(computed.cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_a_frame_that_is_never_a_source_is_no_number(configured, store, tiny_checkpoints, tmp_path):
    reader = ContextReader(configured(**SECTIONS["map"]), store, tiny_checkpoints, tmp_path, "cuda")
    frame = store.split("test").iloc[-1].first_frame + 1
    assert reader(source_views(store, [frame]).to("cuda")).get("depth").isnan().all()
