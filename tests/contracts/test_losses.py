"""Contract of every loss: a finite scalar with gradients, and zero for a perfect result."""

import pytest
import torch
from pydantic import ValidationError

from jobs.config import TrialConfig
from model.losses import LOSSES
from model.losses.base import Loss
from model.methods.base import NEEDS
from model.methods.splatter_image import SplatterImage
from model.registry import resolve
from model.scenes import GaussianScene, PictureScene
from model.types import Gaussians, Rendering
from model.weights import WEIGHTS


@pytest.fixture(params=LOSSES)
def loss(request, weights) -> Loss:
    return resolve(LOSSES, request.param, "loss")(weights)


def scene(*scales: float) -> GaussianScene:
    """One scene of round Gaussians."""
    n = len(scales)
    gaussians = Gaussians(
        means=torch.zeros(1, n, 3),
        scales=torch.tensor(scales)[None, :, None].repeat(1, 1, 3).requires_grad_(),
        rotations=torch.tensor([1.0, 0, 0, 0]).expand(1, n, 4),
        opacities=torch.full((1, n, 1), 0.5),
        sh=torch.zeros(1, n, 4, 3),
    )
    return GaussianScene(gaussians)


#: Whole views, and single pixels.
SHAPES = [(2, 2, 3, 32, 32), (2, 40, 3)]


@pytest.fixture
def shapes(loss) -> list[tuple[int, ...]]:
    """The shapes of the images that the loss accepts."""
    return [shape for shape in SHAPES if len(shape) == 5 or "views" not in loss.needs]


def test_is_a_scalar_with_a_gradient(loss, shapes):
    generator = torch.Generator().manual_seed(0)
    for shape in shapes:
        images = torch.rand(shape, generator=generator, requires_grad=True)
        made = scene(1e-7, 0.02, 50.0)
        value = loss(Rendering(images), Rendering(torch.rand(shape, generator=generator)), made)
        assert value.shape == ()
        assert value > 0
        value.backward()
        gradients = [x.grad for x in (images, made.gaussians.scales) if x.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert max(gradient.abs().max() for gradient in gradients) > 0


def test_is_zero_for_a_perfect_flat_picture_of_ordinary_gaussians(loss, shapes):
    for shape in shapes:
        flat = Rendering(torch.full(shape, 0.5))
        assert loss(flat, flat, scene(0.02, 0.03)).abs() < 1e-6


def test_asks_for_gaussians_exactly_where_it_uses_them(loss):
    """A loss declares in `needs` that it reads Gaussians, because validation of configurations relies on that."""
    flat = Rendering(torch.full(SHAPES[0], 0.5))
    flat_scene = PictureScene(torch.full((2, 3, 32, 32), 0.5))
    if "gaussians" in loss.needs:
        with pytest.raises(AssertionError, match="'pictures' has no scales"):
            loss(flat, flat, flat_scene)
    else:
        assert loss(flat, flat, flat_scene).isfinite()


def test_a_method_without_what_it_needs_is_refused(loss, request, monkeypatch):
    """Validation fails for a loss that needs what the method does not offer, and lists the losses that fit."""
    name = request.node.callspec.params["loss"]
    lacking = {need for need in NEEDS if need in loss.needs}
    monkeypatch.setattr(SplatterImage, "offers", classmethod(lambda *_: frozenset(NEEDS - lacking)))
    stage = {"iterations": 1, "lr": 1e-3, "losses": {"l2": 1.0, name: 1.0}}
    sections = {"train": {"stages": [stage]}}
    if not lacking:
        assert TrialConfig.model_validate(sections)
        return
    with pytest.raises(ValidationError, match=rf"losses\.{name} needs .* splatter_image .*; allowed: .*\bl2\b"):
        TrialConfig.model_validate(sections)


def test_names_weights_that_the_table_knows(loss):
    assert set(loss.weights) <= set(WEIGHTS)


def test_trains_nothing_of_its_own(loss):
    assert not any(parameter.requires_grad for parameter in loss.parameters())
