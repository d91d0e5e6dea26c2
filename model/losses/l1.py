"""Mean absolute error."""

from torch import Tensor
from torch.nn import functional as F

from model.losses.base import Loss
from model.types import Gaussians


class L1(Loss):
    """mean |render - target|."""

    def forward(self, render: Tensor, target: Tensor, gaussians: Gaussians) -> Tensor:
        return F.l1_loss(render, target)
