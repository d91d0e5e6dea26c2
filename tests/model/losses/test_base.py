"""Losses that break the promise of their interface."""

import pytest
import torch

from model.losses.base import Loss
from model.types import Rendering


class Returning(Loss):
    """Returns what a function makes of the error."""

    def __init__(self, store, make):
        super().__init__(store)
        self.make = make

    def forward(self, rendering, target, scene):
        return self.make((rendering.images - target.images).abs())


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda error: error.mean(dim=(1, 2, 3, 4)), r"Returning returned a tensor of shape \(2,\), not a scalar"),
        (lambda _: 0.5, "Returning returned float, not a scalar"),
        (lambda _: None, "Returning returned NoneType, not a scalar"),
        (lambda error: error.mean().detach(), "without a gradient, which would train nothing"),
    ],
)
def test_a_value_that_cannot_train_is_refused(weights, make, problem):
    images = torch.full((2, 1, 3, 4, 4), 0.5)
    with pytest.raises(TypeError, match=problem):
        Returning(weights, make)(Rendering(images.clone().requires_grad_()), Rendering(images), None)


def test_a_value_without_a_gradient_is_fine_where_none_is_asked_for(weights):
    images = torch.full((2, 1, 3, 4, 4), 0.5)
    assert Returning(weights, torch.mean)(Rendering(images), Rendering(images), None) == 0
    with torch.no_grad():
        assert Returning(weights, torch.mean)(Rendering(images.requires_grad_()), Rendering(images), None) == 0
