"""Every registered loss: a finite scalar with gradients, and zero where there is nothing to object to."""

import pytest
import torch

from model.losses import LOSSES
from model.losses.base import Loss
from model.registry import resolve
from model.types import Gaussians
from model.weights import WEIGHTS


@pytest.fixture(params=LOSSES)
def loss(request, weights) -> Loss:
    return resolve(LOSSES, request.param, "loss")(weights)


def scene(*scales: float) -> Gaussians:
    """One scene of round Gaussians."""
    n = len(scales)
    return Gaussians(
        means=torch.zeros(1, n, 3),
        scales=torch.tensor(scales)[None, :, None].repeat(1, 1, 3).requires_grad_(),
        rotations=torch.tensor([1.0, 0, 0, 0]).expand(1, n, 4),
        opacities=torch.full((1, n, 1), 0.5),
        sh=torch.zeros(1, n, 4, 3),
    )


def test_is_a_scalar_with_a_gradient(loss):
    generator = torch.Generator().manual_seed(0)
    render = torch.rand(2, 3, 32, 32, generator=generator, requires_grad=True)
    gaussians = scene(1e-7, 0.02, 50.0)
    value = loss(render, torch.rand(2, 3, 32, 32, generator=generator), gaussians)
    assert value.shape == ()
    assert value > 0
    value.backward()
    gradients = [x.grad for x in (render, gaussians.scales) if x.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert max(gradient.abs().max() for gradient in gradients) > 0


def test_is_zero_for_a_perfect_flat_picture_of_ordinary_gaussians(loss):
    flat = torch.full((1, 3, 32, 32), 0.5)
    assert loss(flat, flat, scene(0.02, 0.03)).abs() < 1e-6


def test_names_weights_that_the_table_knows(loss):
    assert set(loss.weights) <= set(WEIGHTS)


def test_trains_nothing_of_its_own(loss):
    assert not any(parameter.requires_grad for parameter in loss.parameters())
