"""Base class of the controls: depth maps that no network predicts."""

from __future__ import annotations

from typing import Any, ClassVar

from model.frozen import FrozenModel
from model.fusion import ContextType
from model.weights import WeightStore


class ControlDepth(FrozenModel):
    """One channel, at the images' own size, without weights."""

    output_types: ClassVar[tuple[ContextType, ...]] = ("map",)

    def __init__(self, store: WeightStore, *, resolution: int | None = None, **settings: Any) -> None:
        """Raises ValueError for a resolution, because nothing is resized; `settings` are those of `FrozenModel`."""
        super().__init__(store, resolution=resolution, **settings)
        self.check_resolution(resolution, self.options)

    @classmethod
    def check_resolution(cls, resolution: int | None, options: Any) -> None:
        if resolution is not None:
            raise ValueError(f"resolution {resolution} for a depth control; allowed: null, because it reads no picture")

    @property
    def width(self) -> int:
        return 1
