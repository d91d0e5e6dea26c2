"""Every registered encoder and depth model: the promised shape, the same twice, never trained."""

import pytest
import torch

from model.depth import DEPTH
from model.registry import resolve
from model.semantic import SEMANTIC
from model.types import Cameras, Views
from model.weights import WEIGHTS

MODELS = [("semantic", name) for name in SEMANTIC] + [("depth", name) for name in DEPTH]
SIZE = 32


@pytest.fixture(params=MODELS, ids=lambda param: "-".join(param))
def frozen(request, weights):
    kind, name = request.param
    cls = resolve({"semantic": SEMANTIC, "depth": DEPTH}[kind], name, kind)
    return kind, cls(weights, preprocess=cls.preprocessings[0], resolution=64)


@pytest.fixture
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
        images=torch.rand(2, 2, 3, SIZE, SIZE, generator=generator),
        cameras=cameras,
        near=torch.full((2,), 1.0),
        far=torch.full((2,), 3.0),
        background=torch.ones(2, 3),
        frames=torch.arange(4).view(2, 2),
        depth=depth,
    )


def test_has_the_promised_shape_and_is_the_same_twice(frozen, views):
    kind, model = frozen
    values = model(views)
    shape = (2, 2, model.width) if kind == "semantic" else (2, 2, model.width, SIZE, SIZE)
    assert values.shape == shape
    assert values.isfinite().all()
    assert torch.equal(values, model(views))


def test_tells_views_apart(frozen, views):
    values = frozen[1](views)
    assert not torch.allclose(values[0, 0], values[1, 1])


def test_never_trains(frozen):
    model = frozen[1]
    model.train()
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_names_weights_that_the_table_knows(frozen):
    assert set(frozen[1].weights) <= set(WEIGHTS)


def test_refuses_a_preprocessing_it_does_not_know(frozen, weights):
    with pytest.raises(ValueError, match="'upside down'; allowed"):
        type(frozen[1])(weights, preprocess="upside down", resolution=None)
