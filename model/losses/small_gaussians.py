"""A penalty on Gaussians that have shrunk to nothing (published, on CO3D)."""

from __future__ import annotations

import torch
from torch import Tensor

from model.losses.base import Loss
from model.losses.big_gaussians import mean_where
from model.types import Gaussians

#: Scene units.
SMALLEST = 1e-5


class SmallGaussians(Loss):
    """Mean of -ln(scale) over the scales below 1e-5, one per axis; 0 where there are none."""

    def forward(self, render: Tensor, target: Tensor, gaussians: Gaussians) -> Tensor:
        chosen = gaussians.scales < SMALLEST
        # The logarithm of those not chosen is that of 1: its gradient must exist to be multiplied by 0.
        return mean_where(-torch.where(chosen, gaussians.scales, 1).log(), chosen)
