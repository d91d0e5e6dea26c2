"""An untrained depth network: a control that separates learnt depth from additional features."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field
from torch import Tensor

from model.depth import ARCHITECTURES
from model.depth.network import ReluDepthNetwork
from model.frozen import FrozenModel
from model.fusion import ContextType
from model.options import options
from model.registry import UnknownChoiceError, resolve
from model.types import Views
from model.weights import WeightStore


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


class RandomDepth(FrozenModel):
    """The full architecture of a depth network with seeded random weights; needs no file."""

    output_types: ClassVar[tuple[ContextType, ...]] = ("map",)
    preprocessings: ClassVar[tuple[str, ...]] = ReluDepthNetwork.preprocessings
    Options: ClassVar[type] = RandomDepthOptions

    def __init__(
        self,
        store: WeightStore,
        *,
        output_type: ContextType = "map",
        preprocess: str = "correct",
        resolution: int | None = None,
        options: Any = None,
    ) -> None:
        options = RandomDepthOptions() if options is None else options
        super().__init__(store, output_type=output_type, preprocess=preprocess, resolution=resolution, options=options)
        cls: type[ReluDepthNetwork] = resolve(ARCHITECTURES, options.of, "depth network")
        self.model = cls(
            store,
            output_type=output_type,
            preprocess=preprocess,
            resolution=resolution,
            network=cls.untrained(options.seed),
        )

    @classmethod
    def check_resolution(cls, resolution: int | None, options: RandomDepthOptions) -> None:
        resolve(ARCHITECTURES, options.of, "depth network").check_resolution(resolution, None)

    @property
    def width(self) -> int:
        return self.model.width

    def forward(self, views: Views) -> Tensor:
        maps: Tensor = self.model(views)
        return maps
