"""Mean squared error."""

from torch import Tensor
from torch.nn import functional as F

from model.losses.base import Loss
from model.types import Gaussians


class L2(Loss):
    """mean (render - target)^2."""

    def forward(self, render: Tensor, target: Tensor, gaussians: Gaussians) -> Tensor:
        return F.mse_loss(render, target)
