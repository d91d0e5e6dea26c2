"""Interface of frozen sources of context: semantic encoders and depth models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from model.fusion import ContextType
from model.options import NoOptions
from model.types import Views
from model.weights import WeightStore


class FrozenModel(nn.Module, ABC):
    """Computes one value per view, without gradients and always in evaluation mode."""

    #: types of output per view: one vector, a sequence of tokens, or a map
    output_types: ClassVar[tuple[ContextType, ...]]
    #: supported preprocessings of its input: that of the paper, or that of the model's training
    preprocessings: ClassVar[tuple[str, ...]] = ("correct",)
    #: typed fields, made with `model.options.options`
    Options: ClassVar[type] = NoOptions
    #: whether it reads the dataset's own depth; such a model is cached
    needs_depth: ClassVar[bool] = False
    #: whether its values are cached on disk, so that trials share them
    cached: ClassVar[bool] = True

    def __init__(
        self,
        store: WeightStore,
        *,
        output_type: ContextType | None = None,
        preprocess: str = "correct",
        resolution: int | None = None,
        options: Any = None,
    ) -> None:
        """output_type: None is the first of `output_types`; resolution: side in pixels to which images are resized,
        None is the model's own; options: None are the defaults.

        Raises ValueError for an unsupported output type or preprocessing.
        """
        super().__init__()
        if output_type is None:
            output_type = self.output_types[0]
        for name, value, allowed in (
            ("output_type", output_type, self.output_types),
            ("preprocess", preprocess, self.preprocessings),
        ):
            if value not in allowed:
                raise ValueError(f"{name} {value!r}; allowed: {', '.join(allowed)}")
        self.output_type: ContextType = output_type
        self.preprocess = preprocess
        self.options = self.Options() if options is None else options

    @classmethod
    def check_resolution(cls, resolution: int | None, options: Any) -> None:
        """Raises ValueError for an unsupported side, as far as the class can tell without loading the model."""

    @classmethod
    def weights(cls, options: Any) -> tuple[str, ...]:
        """Names, in the table of weights, of the files it loads."""
        return ()

    @property
    @abstractmethod
    def width(self) -> int:
        """Length of the vector or of each token, or channels of the map."""

    def train(self, mode: bool = True) -> FrozenModel:
        """Does nothing: the model stays in evaluation mode."""
        return super().train(False)

    def __call__(self, views: Views) -> Tensor:
        """`forward`.  Raises ValueError where its output has another shape than that of the model's output type."""
        output = super().__call__(views)
        objects, count = views.images.shape[:2]
        of_view = {
            "vector": (self.width,),
            "tokens": (*output.shape[2:3], self.width),
            "map": (self.width, *views.images.shape[-2:]),
        }
        expected = (objects, count, *of_view[self.output_type])
        if output.shape != expected:
            name, found = type(self).__name__, tuple(output.shape)
            raise ValueError(f"{name} returned the shape {found}; as a {self.output_type} it must be {expected}")
        return output

    @abstractmethod
    def forward(self, views: Views) -> Tensor:
        """B objects with V views -> vectors (B, V, D), tokens (B, V, T, D), or maps (B, V, C, H, W).

        Maps have the size of the views' images.
        """
