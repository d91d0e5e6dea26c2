"""What a frozen source of context promises, encoder or depth model alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from model.types import Views
from model.weights import WeightStore


class FrozenModel(nn.Module, ABC):
    """Views -> values for each of them, without gradients and never in train mode."""

    #: names, in the table of weights, of what this model loads
    weights: ClassVar[tuple[str, ...]] = ()
    #: ways of preparing its input that it knows: as the paper ran it, or as the model was trained
    preprocessings: ClassVar[tuple[str, ...]] = ("correct",)
    #: whether its values are worth keeping on disk, so that no trial computes them again
    cached: ClassVar[bool] = True

    def __init__(self, store: WeightStore, *, preprocess: str, resolution: int | None) -> None:
        """resolution: side in pixels that images are resized to; None is the model's own."""
        super().__init__()
        if preprocess not in self.preprocessings:
            raise ValueError(f"preprocess {preprocess!r}; allowed: {', '.join(self.preprocessings)}")

    @property
    @abstractmethod
    def width(self) -> int:
        """Length of the vector, or channels of the map."""

    def train(self, mode: bool = True) -> FrozenModel:
        """Stays in evaluation mode."""
        return super().train(False)

    @abstractmethod
    def forward(self, views: Views) -> Tensor:
        """B objects with V views -> (B, V, width), or (B, V, width, H, W) for a map."""
