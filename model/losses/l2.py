"""Mean squared error."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.losses.base import Loss, passes
from model.scenes import Scene
from model.types import Rendering


class L2(Loss):
    """mean (rendering - target)^2, of each pass."""

    def forward(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        return torch.stack([F.mse_loss(seen.images, target.images) for seen in passes(rendering)]).sum()
