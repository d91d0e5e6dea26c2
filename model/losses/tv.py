"""Total variation of the render: a smoothness prior that ignores the target (paper, section on losses)."""

from typing import ClassVar

from torch import Tensor

from model.losses.base import Loss, pictures
from model.methods.base import Need
from model.scenes import Scene
from model.types import Rendering


class TotalVariation(Loss):
    """mean |vertical differences| + mean |horizontal differences|, each mean over its own differences."""

    needs: ClassVar[frozenset[Need]] = frozenset({"views"})

    def forward(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        images = pictures(rendering)
        vertical = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
        horizontal = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
        return vertical + horizontal
