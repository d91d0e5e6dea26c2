"""Contract of every encoder and depth model, on stand-in weights: output shape, determinism, frozen parameters."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from model.depth import DEPTH
from model.options import parse_options
from model.registry import resolve
from model.semantic import SEMANTIC
from model.types import Cameras, Views
from model.weights import WeightStore, find_weight
from tests.tiny_checkpoints import MAKERS, dinov2, timm_folder, write_tiny_checkpoint

REGISTRIES = {"semantic": SEMANTIC, "depth": DEPTH}
MODELS = [(source, name) for source, registry in REGISTRIES.items() for name in registry]
SIZE = 32

#: Options of those that do not work without.
OPTIONS = {"timm": {"name": "vit_tiny_patch16_224.augreg_in21k"}, "transformers": {"name": "standin/dinov2"}}


@pytest.fixture(scope="module")
def tiny_checkpoints(tmp_path_factory) -> WeightStore:
    folder = tmp_path_factory.mktemp("frozen_standins")
    small = {"embed_dim": 24, "depth": 2, "num_heads": 2}
    timm_folder(folder / "timm--vit_tiny_patch16_224.augreg_in21k", "vit_tiny_patch16_224", **small)
    repository = folder / "hub--standin--dinov2"
    dinov2(repository)
    described = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 56}}
    (repository / "preprocessor_config.json").write_text(json.dumps(described))
    return WeightStore(folder)


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def choice(request, tiny_checkpoints):
    """The class of a name, and its options; the store has the weights that it loads."""
    source, name = request.param
    cls = resolve(REGISTRIES[source], name, source)
    options = parse_options(cls.Options, OPTIONS.get(name, {}), choice=name, where="options")
    for weight in cls.weights(options):
        if weight in MAKERS and not tiny_checkpoints.has(weight):
            write_tiny_checkpoint(weight, tiny_checkpoints.folder)
    return cls, options


@pytest.fixture(scope="module")
def models(choice, tiny_checkpoints):
    """One model for each of its output types, as (output_type, model)."""
    cls, options = choice
    settings = {"preprocess": cls.preprocessings[-1], "resolution": None, "options": options}
    return [
        (output_type, cls(tiny_checkpoints, output_type=output_type, **settings)) for output_type in cls.output_types
    ]


@pytest.fixture(scope="module")
def outputs(models, views):
    """(output_type, model, the model's output for the views) for each output type."""
    return [(output_type, model, model(views)) for output_type, model in models]


@pytest.fixture(scope="module")
def views() -> Views:
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(2, 2, 1, SIZE, SIZE, generator=generator) + 1
    depth[:, :, :, :4] = 0
    cameras = Cameras(
        world_to_camera=torch.eye(4).expand(2, 2, 4, 4),
        focal=torch.full((2, 2, 2), 40.0),
        principal=torch.full((2, 2, 2), SIZE / 2),
        height=SIZE,
        width=SIZE,
    )
    return Views(
        images=F.interpolate(torch.rand(4, 3, 8, 8, generator=generator), (SIZE, SIZE), mode="bilinear").view(
            2, 2, 3, SIZE, SIZE
        ),
        cameras=cameras,
        near=torch.full((2,), 1.0),
        far=torch.full((2,), 3.0),
        background=torch.ones(2, 3),
        frames=torch.arange(4).view(2, 2),
        depth=depth,
    )


def test_has_the_promised_shape_and_is_the_same_twice(outputs, views):
    for output_type, model, values in outputs:
        assert values.shape[:2] == (2, 2)
        if output_type == "vector":
            assert values.shape[2:] == (model.width,)
        elif output_type == "tokens":
            assert values.dim() == 4
            assert values.shape[-1] == model.width
        else:
            assert values.shape[2:] == (model.width, SIZE, SIZE)
            assert values.min() >= 0
        assert values.isfinite().all()
        assert not values.requires_grad
        assert torch.equal(values, model(views))


def test_each_view_stands_for_itself(outputs, views, choice):
    alone = replace(views.select(1, 2), images=views.images[:1, 1:], depth=views.depth[:1, 1:])
    alone = replace(alone, frames=views.frames[:1, 1:], near=views.near[:1], far=views.far[:1])
    for _, model, values in outputs:
        scale = values.abs().max().item()
        torch.testing.assert_close(model(alone)[0, 0], values[0, 1], rtol=1e-4, atol=1e-4 * scale)
        if choice[0] is not resolve(DEPTH, "constant", "depth"):
            assert (values[0, 0] - values[1, 1]).abs().max() > 1e-4 * scale


def test_never_trains(models):
    for _, model in models:
        model.train()
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_what_reads_depth_is_cached(choice):
    """Training reads none."""
    cls, _ = choice
    assert cls.cached or not cls.needs_depth


def test_names_weights_that_the_table_knows(choice):
    cls, options = choice
    for weight in cls.weights(options):
        assert find_weight(weight).name == weight


def test_every_preprocessing_works(choice, tiny_checkpoints, views):
    cls, options = choice
    for preprocess in cls.preprocessings[:-1]:
        model = cls(
            tiny_checkpoints, output_type=cls.output_types[0], preprocess=preprocess, resolution=None, options=options
        )
        assert model(views).isfinite().all()


@pytest.mark.parametrize(("setting", "value"), [("preprocess", "upside down"), ("output_type", "smell")])
def test_refuses_what_it_does_not_know(setting, value, choice, tiny_checkpoints):
    cls, options = choice
    settings = {
        "output_type": cls.output_types[0],
        "preprocess": cls.preprocessings[0],
        "resolution": None,
        "options": options,
    }
    with pytest.raises(ValueError, match=f"{setting} '{value}'; allowed"):
        cls(tiny_checkpoints, **settings | {setting: value})
