"""A penalty on Gaussians that have grown out of the scene (published, on CO3D)."""

from __future__ import annotations

import torch
from torch import Tensor

from model.losses.base import Loss
from model.types import Gaussians

#: Scene units; CO3D's scenes are about as large.
LARGEST = 20.0


class BigGaussians(Loss):
    """Mean of the scales above 20, one per axis; 0 where there are none."""

    def forward(self, render: Tensor, target: Tensor, gaussians: Gaussians) -> Tensor:
        return mean_where(gaussians.scales, gaussians.scales > LARGEST)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values, 0 if none are.

    No value is looked at on the host, so a GPU need not wait; those not chosen get a gradient of 0, whatever they are.
    """
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp_min(1)
