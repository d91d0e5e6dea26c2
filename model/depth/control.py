"""Base class of the controls: depth maps that no network predicts."""

from __future__ import annotations

from typing import Any, ClassVar

from model.frozen import FrozenModel
from model.fusion import ContextType
from model.weights import WeightStore


class ControlDepth(FrozenModel):
    """One channel, at the images' own size, without weights."""

    output_types: ClassVar[tuple[ContextType, ...]] = ("map",)

    def __init__(
        self,
        store: WeightStore,
        *,
        output_type: ContextType = "map",
        preprocess: str = "correct",
        resolution: int | None = None,
        options: Any = None,
    ) -> None:
        """Raises ValueError for a resolution, because nothing is resized."""
        options = self.Options() if options is None else options
        super().__init__(store, output_type=output_type, preprocess=preprocess, resolution=resolution, options=options)
        self.check_resolution(resolution, options)

    @classmethod
    def check_resolution(cls, resolution: int | None, options: Any) -> None:
        if resolution is not None:
            raise ValueError(f"resolution {resolution} for a depth control; allowed: null, because it reads no picture")

    @property
    def width(self) -> int:
        return 1
