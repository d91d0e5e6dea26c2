"""The dataset's own depth, an upper bound for monocular depth models: a control, not a method."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from model.depth.control import ControlDepth
from model.types import Views

#: The nearest surface of a view is this quantile of its depths, as multi-view depth has outliers.
_NEAREST = 0.01


class OracleDepth(ControlDepth):
    """Relative inverse depth, in (0, 1] on surfaces and 0 where there is none.

    It is nearest / z, where z is camera depth and nearest that of the view's nearest surface.  So it does not reveal
    the scale of the scene, which no monocular model can determine.
    """

    needs_depth: ClassVar[bool] = True

    def forward(self, views: Views) -> Tensor:
        return true_inverse_depth(views)


def true_inverse_depth(views: Views) -> Tensor:
    """(B, V, 1, H, W) nearest / z, at most 1; 0 without a surface.  Raises ValueError where views have no depth."""
    if views.depth is None:
        raise ValueError("the oracle needs a dataset with depth, and this one has none")
    surface = views.depth > 0
    depths = views.depth.where(surface, torch.nan)
    nearest = depths.flatten(2).nanquantile(_NEAREST, dim=2)[..., None, None, None]
    return torch.where(surface, (nearest / depths).clamp(max=1), 0.0)
