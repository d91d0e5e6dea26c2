"""Base class of the controls that have learnt nothing: another model with random weights."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from model.frozen import FrozenModel
from model.types import Views
from model.weights import WeightStore


class RandomModel(FrozenModel):
    """The architecture and preprocessing of another model, with weights that are a function of the option `seed`.

    No file is needed.
    """

    def __init__(self, store: WeightStore, *, resolution: int | None = None, **settings: Any) -> None:
        """`settings` are those of `FrozenModel`."""
        super().__init__(store, resolution=resolution, **settings)
        cls = self.model_class(self.options)
        self.model = cls(
            store,
            output_type=self.output_type,
            preprocess=self.preprocess,
            resolution=resolution,
            network=cls.untrained(self.options.seed),
        )
        self.eval()

    @classmethod
    @abstractmethod
    def model_class(cls, options: Any) -> Any:
        """The class of the other model; its `untrained(seed)` is the network of that seed."""

    @classmethod
    def check_resolution(cls, resolution: int | None, options: Any) -> None:
        cls.model_class(options).check_resolution(resolution, None)

    @property
    def width(self) -> int:
        width: int = self.model.width
        return width

    def forward(self, views: Views) -> Tensor:
        values: Tensor = self.model(views)
        return values
