"""Interface of losses: rendered and true views of a scene -> one unweighted scalar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from model.methods.base import Need
from model.scenes import Scene
from model.types import Rendering, described
from model.weights import WeightStore


class Loss(nn.Module, ABC):
    """A distance or a penalty, without its weight."""

    #: names, in the table of weights, of the files this loss loads
    weights: ClassVar[tuple[str, ...]] = ()
    #: data that a training step must provide; configurations with other methods are rejected
    needs: ClassVar[frozenset[Need]] = frozenset()
    #: precision of products in the loss's network, if it has one; bfloat16 is for GPUs only
    precision: Literal["float32", "tf32", "bf16"] = "float32"

    def __init__(self, store: WeightStore) -> None:
        """`store` provides the weights of losses that have them."""
        super().__init__()

    def __call__(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        """`forward`.  Raises TypeError where its value is no scalar, or would train nothing."""
        value = super().__call__(rendering, target, scene)
        if not isinstance(value, Tensor) or value.shape != ():
            raise TypeError(f"{type(self).__name__} returned {described(value)}, not a scalar tensor")
        if torch.is_grad_enabled() and rendering.images.requires_grad and not value.requires_grad:
            raise TypeError(f"{type(self).__name__} returned a value without a gradient, which would train nothing")
        return value

    @abstractmethod
    def forward(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        """rendering and target: the same whole views (B, V, C, H, W), or the same pixels (B, P, C); -> a scalar.

        target: the data, RGB in [0, 1]; scene: the rendered scene.
        """


def passes(rendering: Rendering) -> tuple[Rendering, ...]:
    """A rendering and its auxiliary ones, which have the same target, e.g. of a coarse pass."""
    return rendering, *rendering.auxiliary


def pictures(rendering: Rendering) -> Tensor:
    """Whole views, flattened to (B * V, 3, H, W)."""
    return rendering.images.flatten(0, 1)
