"""Interface of losses: rendered and true views of a scene -> one unweighted scalar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

from model.methods.base import Need
from model.scenes import Scene
from model.types import Rendering
from model.weights import WeightStore


class Loss(nn.Module, ABC):
    """A distance or a penalty, without its weight."""

    #: names, in the table of weights, of what this loss loads
    weights: ClassVar[tuple[str, ...]] = ()
    #: what a training step must offer; a configuration whose method does not is refused
    needs: ClassVar[frozenset[Need]] = frozenset()
    #: of products in a network that a loss may have; bfloat16 is for GPUs only
    precision: Literal["float32", "tf32", "bf16"] = "float32"

    def __init__(self, store: WeightStore) -> None:
        """`store` is where a loss with weights finds them."""
        super().__init__()

    @abstractmethod
    def forward(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        """rendering and target: the same whole views (B, V, C, H, W), or the same pixels (B, P, C); -> a scalar.

        target: the data, RGB in [0, 1]; scene: what was rendered.
        """


def passes(rendering: Rendering) -> tuple[Rendering, ...]:
    """A rendering and those beside it that learn from the same target, a coarse pass say."""
    return rendering, *rendering.auxiliary


def pictures(rendering: Rendering) -> Tensor:
    """Whole views one after the other: (B * V, 3, H, W)."""
    return rendering.images.flatten(0, 1)
