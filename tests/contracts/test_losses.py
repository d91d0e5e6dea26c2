"""Every registered loss: a finite scalar that is differentiable, and zero for a perfect flat picture."""

import pytest
import torch

from model.losses import LOSSES
from model.losses.base import Loss
from model.registry import resolve
from model.weights import WEIGHTS


@pytest.fixture(params=LOSSES)
def loss(request, weights) -> Loss:
    return resolve(LOSSES, request.param, "loss")(weights)


def test_is_a_scalar_with_a_gradient(loss):
    generator = torch.Generator().manual_seed(0)
    render = torch.rand(2, 3, 32, 32, generator=generator, requires_grad=True)
    value = loss(render, torch.rand(2, 3, 32, 32, generator=generator))
    assert value.shape == ()
    assert value > 0
    value.backward()
    assert render.grad.isfinite().all()
    assert render.grad.abs().max() > 0


def test_is_zero_for_a_perfect_flat_picture(loss):
    flat = torch.full((1, 3, 32, 32), 0.5)
    assert loss(flat, flat).abs() < 1e-6


def test_names_weights_that_the_table_knows(loss):
    assert set(loss.weights) <= set(WEIGHTS)


def test_trains_nothing_of_its_own(loss):
    assert not any(parameter.requires_grad for parameter in loss.parameters())
