"""Interface of frozen sources of context: semantic encoders and depth models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from model.fusion import Kind
from model.options import NoOptions
from model.types import Views
from model.weights import WeightStore


class FrozenModel(nn.Module, ABC):
    """Views -> values for each of them, without gradients and never in train mode."""

    #: what it can say of a view: one vector, a sequence of tokens, or a map
    kinds: ClassVar[tuple[Kind, ...]]
    #: ways of preparing its input that it knows: as the paper ran it, or as the model was trained
    preprocessings: ClassVar[tuple[str, ...]] = ("correct",)
    #: typed fields, made with `model.options.options`
    Options: ClassVar[type] = NoOptions
    #: whether it reads the dataset's own depth
    needs_depth: ClassVar[bool] = False
    #: whether its values are worth keeping on disk, so that no trial computes them again
    cached: ClassVar[bool] = True

    def __init__(
        self, store: WeightStore, *, kind: Kind, preprocess: str, resolution: int | None, options: Any
    ) -> None:
        """kind: what is wanted of it; resolution: side in pixels that images are resized to, None is its own.

        Raises ValueError for a kind or preprocessing that it does not know.
        """
        super().__init__()
        for name, value, allowed in (("kind", kind, self.kinds), ("preprocess", preprocess, self.preprocessings)):
            if value not in allowed:
                raise ValueError(f"{name} {value!r}; allowed: {', '.join(allowed)}")
        self.kind: Kind = kind
        self.preprocess, self.options = preprocess, options

    @classmethod
    def check_resolution(cls, resolution: int | None, options: Any) -> None:
        """Raises ValueError for a side that the model cannot be shown, as far as its name tells."""

    @classmethod
    def weights(cls, options: Any) -> tuple[str, ...]:
        """Names, in the table of weights, of what it loads."""
        return ()

    @property
    @abstractmethod
    def width(self) -> int:
        """Length of the vector or of each token, or channels of the map."""

    def train(self, mode: bool = True) -> FrozenModel:
        """Stays in evaluation mode."""
        return super().train(False)

    @abstractmethod
    def forward(self, views: Views) -> Tensor:
        """B objects with V views -> vectors (B, V, D), tokens (B, V, T, D), or maps (B, V, C, H, W).

        Maps have the size of the views' images.
        """
