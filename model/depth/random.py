"""An untrained depth network: a control that separates learnt depth from additional features."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from model.depth import ARCHITECTURES
from model.depth.network import ReluDepthNetwork
from model.fusion import ContextType
from model.options import options
from model.random import RandomModel
from model.registry import UnknownChoiceError, resolve


def _known(name: str) -> str:
    if name not in ARCHITECTURES:
        raise UnknownChoiceError("depth network", name, ARCHITECTURES)
    return name


@options
class RandomDepthOptions:
    """The architecture, and the seed of its weights."""

    #: a depth network by name, e.g. dpt_large
    of: Annotated[str, AfterValidator(_known)] = "midas_small"
    #: seed of the weights; independent of the trial's seed
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class RandomDepth(RandomModel):
    """The full architecture of a depth network with seeded random weights."""

    output_types: ClassVar[tuple[ContextType, ...]] = ("map",)
    preprocessings: ClassVar[tuple[str, ...]] = ReluDepthNetwork.preprocessings
    Options: ClassVar[type] = RandomDepthOptions

    @classmethod
    def model_class(cls, options: RandomDepthOptions) -> Any:
        return resolve(ARCHITECTURES, options.of, "depth network")
