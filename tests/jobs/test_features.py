import numpy as np
import pytest
import torch

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.features import ContextReader
from model.semantic.efficientnet_lite0 import EfficientNetLite0


@pytest.fixture
def conditioned(tiny) -> TrialConfig:
    return TrialConfig.model_validate(tiny(semantic={"encoder": "efficientnet_lite0", "resolution": 32}))


@pytest.fixture
def store(conditioned, home):
    return open_dataset(conditioned.data.name, conditioned.data.options, home)


def source_views(store, frames):
    return store.views(np.asarray(frames)[:, None], 16)


def test_kept_features_are_what_the_encoder_says(conditioned, store, weights, tmp_path):
    views = source_views(store, [3, 11])
    kept = ContextReader(conditioned, store, weights, tmp_path)(views)
    fresh = EfficientNetLite0(weights, resolution=32)(views)
    assert kept.depth is None
    torch.testing.assert_close(kept.semantic, fresh, rtol=1e-3, atol=1e-3)  # another batch size


def test_features_are_computed_once(conditioned, store, weights, tmp_path, monkeypatch):
    first = ContextReader(conditioned, store, weights, tmp_path)
    monkeypatch.setattr(EfficientNetLite0, "forward", None)
    again = ContextReader(conditioned, store, weights, tmp_path)
    views = source_views(store, [0])
    assert torch.equal(first(views).semantic, again(views).semantic)
    assert len(list(tmp_path.glob("features/*.npy"))) == 1
    assert first.widths == {"semantic": 1280}


def test_another_input_size_is_another_file(conditioned, store, weights, tmp_path):
    ContextReader(conditioned, store, weights, tmp_path)
    other = conditioned.model_copy(update={"semantic": conditioned.semantic.model_copy(update={"resolution": 64})})
    ContextReader(other, store, weights, tmp_path)
    assert len(list(tmp_path.glob("features/*.npy"))) == 2


def test_a_frame_that_is_never_a_source_is_refused(conditioned, store, weights, tmp_path):
    reader = ContextReader(conditioned, store, weights, tmp_path)
    test_object = store.split("test").iloc[0]
    reader(source_views(store, [test_object.first_frame]))
    with pytest.raises(ValueError, match="never a source"):
        reader(source_views(store, [test_object.first_frame + 1]))


def test_oracle_depth_is_the_datasets_with_the_far_bound_behind(tiny, home, weights, tmp_path):
    config = TrialConfig.model_validate(tiny(depth={"model": "oracle"}))
    store = open_dataset(config.data.name, config.data.options, home)
    views = source_views(store, [0, 7])
    depth = ContextReader(config, store, weights, tmp_path)(views).depth
    surface = views.depth > 0
    assert torch.equal(depth[surface], views.depth[surface])
    assert (depth[~surface] == store.manifest.far).all()


def test_no_conditioning_is_an_empty_context(tiny, home, weights, tmp_path):
    config = TrialConfig.model_validate(tiny())
    store = open_dataset(config.data.name, config.data.options, home)
    reader = ContextReader(config, store, weights, tmp_path)
    context = reader(source_views(store, [0]))
    assert (context.semantic, context.depth, reader.widths) == (None, None, {})
