"""What a loss promises: rendered and true pictures, and the Gaussians they came from -> one unweighted scalar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from model.types import Gaussians
from model.weights import WeightStore


class Loss(nn.Module, ABC):
    """A distance or a penalty, without its weight."""

    #: names, in the table of weights, of what this loss loads
    weights: ClassVar[tuple[str, ...]] = ()

    def __init__(self, store: WeightStore) -> None:
        """`store` is where a loss with weights finds them."""
        super().__init__()

    @abstractmethod
    def forward(self, render: Tensor, target: Tensor, gaussians: Gaussians) -> Tensor:
        """render, target: (N, 3, H, W) RGB, targets in [0, 1]; gaussians: B scenes -> a scalar."""
