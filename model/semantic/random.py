"""Encoders that have learnt nothing: what conditioning is worth beyond its parameters.  A control, not a method."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pydantic

from model.fusion import ContextType
from model.options import options as options_class
from model.random import RandomModel
from model.registry import UnknownChoiceError, resolve
from model.semantic import SEMANTIC
from model.semantic.encoder import Encoder

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


class RandomEncoder(RandomModel):
    """Another encoder's architecture and preprocessing, with the random weights that its training started from."""

    output_types: ClassVar[tuple[ContextType, ...]] = Encoder.output_types
    preprocessings: ClassVar[tuple[str, ...]] = Encoder.preprocessings
    Options: ClassVar[type] = RandomOptions

    @classmethod
    def model_class(cls, options: RandomOptions) -> Any:
        return resolve(SEMANTIC, options.of, "encoder")
