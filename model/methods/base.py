"""Interface of reconstruction methods.

This file, and the `__init__.py` of every method's folder, import no torch: a sweep file is checked without it.
Modules that need torch (`model.scenes`, the networks) are imported when a method is built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from model.fusion import Place
from model.options import Count, Section

if TYPE_CHECKING:
    from model.fusion.base import Fusion
    from model.scenes import Reconstructor
    from model.weights import WeightStore

#: Data that a rendering may have besides colours.
Geometry = Literal["opacity", "inverse_depth"]

SceneKind = Literal["gaussians", "field", "pictures"]

#: Data that a loss may need from a training step: whole views instead of single pixels; a scene of Gaussians.
Need = Literal["views", "gaussians"]
NEEDS: frozenset[Need] = frozenset(get_args(Need))


class MethodOptions(Section):
    """The keys of `model:`.  A method's own class adds its keys, and its name as a literal with a default."""

    name: str
    #: source views of each object
    input_views: Count = 1


@dataclass(frozen=True)
class Targets:
    """The pixels that one training step compares with the data."""

    #: pixels of each object; None: whole views
    pixels: int | None = None
    #: iterations at the start in which pixels come from the foreground's bounding box only
    in_box_until: int = 0


@dataclass(frozen=True)
class Setting:
    """Settings that a method is built with, besides its own options."""

    #: side of the views, pixels
    resolution: int
    #: seed of the initial weights
    seed: int
    #: store of pretrained weights
    weights: WeightStore
    #: rasteriser of Gaussians, and whether it widens those smaller than a pixel
    backend: str = "auto"
    antialiasing: bool = False
    #: load the pretrained weights that training starts from; without them, the caller loads a trained network's
    initial: bool = True


class Method(ABC):
    """A map from source views and context to a scene: facts that need no network, and `build`, which creates it."""

    Options: ClassVar[type[MethodOptions]]
    scene: ClassVar[SceneKind]
    #: epsilon of Adam, as published
    adam_eps: ClassVar[float] = 1e-8
    #: whether it is trained; others are trivial baselines, which are rows of every plan
    trained: ClassVar[bool] = True

    @classmethod
    def all_options(cls) -> tuple[type[MethodOptions], ...]:
        """The classes of options of its variants; a method without variants has one."""
        return (cls.Options,)

    @classmethod
    def options_for(cls, values: Any) -> type[MethodOptions]:
        """The class of options that fits the keys in `values`, which are not validated yet.

        Raises `MisfitError` where they name an unknown variant.
        """
        return cls.Options

    @classmethod
    def targets(cls, options: Any) -> Targets:
        """The pixels that a training step compares; whole views by default."""
        return Targets()

    @classmethod
    def weights(cls, options: Any) -> tuple[str, ...]:
        """Names, in the table of weights, of the pretrained files it starts from."""
        return ()

    @classmethod
    def places(cls, options: Any) -> frozenset[Place]:
        """Places where context can enter; a method without places supports none."""
        return frozenset()

    @classmethod
    def offers(cls, options: Any) -> frozenset[Need]:
        """Data that a training step provides to losses."""
        whole: set[Need] = {"views"} if cls.targets(options).pixels is None else set()
        return frozenset(whole | ({"gaussians"} if cls.scene == "gaussians" else set()))

    @classmethod
    def geometry(cls, options: Any) -> frozenset[Geometry]:
        """Data that a rendering provides to metrics besides colours."""
        return frozenset() if cls.scene == "pictures" else frozenset({"opacity", "inverse_depth"})

    @classmethod  # noqa: B027 - a method without rules of its own has nothing to add
    def check(cls, options: Any, resolution: int) -> None:
        """Raise `model.options.MisfitError` where the options do not fit together, or pictures of `resolution` pixels.

        Its key is relative to the whole configuration: `model.channel_mult`, `data.resolution`.
        """

    @classmethod  # noqa: B027 - most methods train on any number of objects
    def check_batch(cls, options: Any, resolution: int, batch_size: int) -> None:
        """Raise `MisfitError`, as `check`, where a step on `batch_size` objects is too little for these options."""

    @classmethod  # noqa: B027 - most methods have all their places with any options
    def check_place(cls, options: Any, resolution: int, way: type[Fusion], fusion: str) -> None:
        """Raise `MisfitError`, as `check`, where context cannot enter a network of these options by `way`.

        The place of `way` is one of `places`, but the options may leave nothing there, or nothing of a width that it
        takes.  fusion: names the context in the message, such as `depth.fusion film`.
        """

    @classmethod
    @abstractmethod
    def build(cls, options: Any, setting: Setting, contexts: Sequence[Fusion]) -> Reconstructor:
        """A new reconstructor on the CPU, identical for equal options, setting and `contexts`.

        contexts: one fusion for each active source of context.
        """
