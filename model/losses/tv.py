"""Total variation of the render: a smoothness prior that never looks at the target (paper, section on losses)."""

from torch import Tensor

from model.losses.base import Loss
from model.types import Gaussians


class TotalVariation(Loss):
    """mean |vertical differences| + mean |horizontal differences|, each mean over its own differences."""

    def forward(self, render: Tensor, target: Tensor, gaussians: Gaussians) -> Tensor:
        vertical = (render[..., 1:, :] - render[..., :-1, :]).abs().mean()
        horizontal = (render[..., :, 1:] - render[..., :, :-1]).abs().mean()
        return vertical + horizontal
