"""Frozen models that break the promise of their interface."""

from types import SimpleNamespace

import pytest
import torch

from model.frozen import FrozenModel


class Returning(FrozenModel):
    """Returns zeros of a shape."""

    output_types = ("map", "vector", "tokens")
    width = 2

    def __init__(self, store, shape, output_type):
        super().__init__(store, output_type=output_type)
        self.shape = shape

    def forward(self, views):
        return views.images.new_zeros(self.shape)


@pytest.mark.parametrize(
    ("output_type", "right", "wrong"),
    [
        ("vector", (3, 1, 2), [(3, 2), (3, 1, 4), (3, 1, 5, 2)]),
        ("tokens", (3, 1, 5, 2), [(3, 1, 2), (3, 1, 5, 4), (1, 3, 5, 2)]),
        ("map", (3, 1, 2, 8, 8), [(3, 1, 8, 8), (3, 1, 2, 4, 4), (3, 1, 3, 8, 8)]),
    ],
)
def test_an_output_of_another_shape_is_refused(weights, output_type, right, wrong):
    views = SimpleNamespace(images=torch.zeros(3, 1, 3, 8, 8))
    assert Returning(weights, right, output_type)(views).shape == right
    for shape in wrong:
        with pytest.raises(ValueError, match=rf"Returning returned the shape .*; as a {output_type} it must be \(3, 1"):
            Returning(weights, shape, output_type)(views)
