"""Pixels as whole numbers."""

from __future__ import annotations

import numpy as np
import torch

from jobs.pixels import as_bytes, as_pictures


def test_values_are_rounded_and_never_wrap_around():
    values = torch.tensor([-0.3, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 1.3])
    assert as_bytes(values).tolist() == [0, 0, 0, 1, 255, 255]


def test_channels_come_last_in_pictures():
    images = torch.rand(2, 3, 4, 5)
    pictures = as_pictures(images)
    assert (pictures.shape, pictures.dtype) == ((2, 4, 5, 3), np.uint8)
    np.testing.assert_array_equal(as_pictures(images[1]), as_bytes(images[1]).transpose(1, 2, 0))
