"""A penalty on Gaussians of almost no size (published, on CO3D)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from model.losses.base import Loss
from model.losses.big_gaussians import mean_where, scales_of
from model.methods.base import Need
from model.scenes import Scene
from model.types import Rendering

#: Scene units.
SMALLEST = 1e-5


class SmallGaussians(Loss):
    """Mean of -ln(scale) over the scales below 1e-5, one per axis; 0 where there are none."""

    needs: ClassVar[frozenset[Need]] = frozenset({"gaussians"})

    def forward(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        scales = scales_of(scene)
        chosen = scales < SMALLEST
        # Scales not chosen are replaced by 1: the gradient must be finite to be multiplied by 0.
        return mean_where(-torch.where(chosen, scales, 1).log(), chosen)
