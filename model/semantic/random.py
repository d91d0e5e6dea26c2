"""Encoders that have learnt nothing: what conditioning is worth beyond its parameters.  A control, not a method."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pydantic
from torch import Tensor

from model.frozen import FrozenModel
from model.fusion import ContextType
from model.options import options as options_class
from model.registry import UnknownChoiceError, resolve
from model.semantic import SEMANTIC
from model.semantic.encoder import Encoder
from model.types import Views
from model.weights import WeightStore

#: The excluded ones have no architecture without their weights.
_NAMED = [name for name in SEMANTIC if name not in ("timm", "transformers", "random")]


def _named(encoder: str) -> str:
    if encoder not in _NAMED:
        raise UnknownChoiceError("encoder with an architecture of its own", encoder, _NAMED)
    return encoder


@options_class
class RandomOptions:
    """The architecture, and the seed of its weights."""

    of: Annotated[str, pydantic.AfterValidator(_named)] = "dinov2_small"
    seed: int = 0


class RandomEncoder(FrozenModel):
    """Another encoder's architecture and preprocessing, with the random weights that its training started from.

    Its values are a function of architecture and seed; no file is needed.
    """

    output_types: ClassVar[tuple[ContextType, ...]] = Encoder.output_types
    preprocessings: ClassVar[tuple[str, ...]] = Encoder.preprocessings
    Options: ClassVar[type] = RandomOptions

    def __init__(
        self,
        store: WeightStore,
        *,
        output_type: ContextType = "vector",
        preprocess: str = "correct",
        resolution: int | None = None,
        options: RandomOptions | None = None,
    ) -> None:
        options = options or RandomOptions()
        super().__init__(store, output_type=output_type, preprocess=preprocess, resolution=resolution, options=options)
        cls: Any = resolve(SEMANTIC, options.of, "encoder")
        self.encoder: Encoder = cls(
            store,
            output_type=output_type,
            preprocess=preprocess,
            resolution=resolution,
            network=cls.untrained(options.seed),
        )
        self.eval()

    @classmethod
    def check_resolution(cls, resolution: int | None, options: RandomOptions) -> None:
        resolve(SEMANTIC, options.of, "encoder").check_resolution(resolution, None)

    @property
    def width(self) -> int:
        return self.encoder.width

    def forward(self, views: Views) -> Tensor:
        values: Tensor = self.encoder(views)
        return values
