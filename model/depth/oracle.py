"""The dataset's own depth: the most that a monocular depth model could tell.  A control, not a method."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from model.frozen import FrozenModel
from model.types import Views


class OracleDepth(FrozenModel):
    """Camera z in scene units; where there is no surface, the view's far bound."""

    cached: ClassVar[bool] = False

    @property
    def width(self) -> int:
        return 1

    def forward(self, views: Views) -> Tensor:
        if views.depth is None:
            raise ValueError("depth model 'oracle' needs a dataset with depth, and this one has none")
        far = views.far[:, None, None, None, None].expand_as(views.depth)
        return torch.where(views.depth > 0, views.depth, far)
