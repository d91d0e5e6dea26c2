"""The two penalties on the size of Gaussians."""

import math

import pytest
import torch

from model.losses.big_gaussians import BigGaussians
from model.losses.small_gaussians import SmallGaussians
from model.types import Rendering

NOTHING = Rendering(torch.zeros(1, 1, 3, 4, 4))


def test_big_ones_cost_the_mean_of_what_is_above_twenty(weights, gaussians):
    scene = gaussians((30.0, 0.1, 21.0), (20.0, 1e-7, 60.0))
    value = BigGaussians(weights)(NOTHING, NOTHING, scene)
    value.backward()
    assert value.item() == pytest.approx((30 + 21 + 60) / 3)
    torch.testing.assert_close(scene.gaussians.scales.grad, torch.tensor([[[1, 0, 1], [0, 0, 1]]]) / 3)


def test_small_ones_cost_the_mean_of_minus_their_logarithm(weights, gaussians):
    scene = gaussians((30.0, 8e-6, 0.1), (1e-5, 1e-8, 2.0))
    value = SmallGaussians(weights)(NOTHING, NOTHING, scene)
    value.backward()
    assert value.item() == pytest.approx((math.log(1 / 8e-6) + math.log(1e8)) / 2)
    torch.testing.assert_close(scene.gaussians.scales.grad, torch.tensor([[[0, -1 / 8e-6, 0], [0, -1e8, 0]]]) / 2)


@pytest.mark.parametrize("loss", [BigGaussians, SmallGaussians])
def test_ordinary_ones_cost_nothing_and_are_not_pulled(loss, weights, ordinary):
    value = loss(weights)(NOTHING, NOTHING, ordinary)
    value.backward()
    assert value == 0
    assert (ordinary.gaussians.scales.grad == 0).all()


@pytest.mark.parametrize(("other", "slopes"), [(math.inf, [0.5, 0.0, 0.5]), (1.0, [1.0, 0.0, 0.0])])
def test_a_scale_of_zero_among_large_ones_leaves_their_gradient_alone(other, slopes, weights, gaussians):
    scene = gaussians((30.0, 0.0, other))
    BigGaussians(weights)(NOTHING, NOTHING, scene).backward()
    assert scene.gaussians.scales.grad.tolist() == [[slopes]]
