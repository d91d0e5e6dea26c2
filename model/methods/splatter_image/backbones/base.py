"""Interface of Splatter Image's backbones.  torch is imported only when a network is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from model.fusion import Place
from model.methods.splatter_image.options import SplatterImageOptions

if TYPE_CHECKING:
    from torch import nn

    from model.fusion.base import Fusion


class Backbone(ABC):
    """A network from source views to feature maps of the same size, as facts and the function that builds it."""

    Options: ClassVar[type[SplatterImageOptions]]
    #: where context can enter
    places: ClassVar[frozenset[Place]]

    @classmethod  # noqa: B027 - a backbone without rules of its own has nothing to add
    def check(cls, options: Any, resolution: int) -> None:
        """As `model.methods.base.Method.check`."""

    @classmethod  # noqa: B027 - most backbones have all their places with any options
    def check_place(cls, options: Any, resolution: int, way: type[Fusion], fusion: str) -> None:
        """As `model.methods.base.Method.check_place`."""

    @classmethod
    @abstractmethod
    def build(cls, options: Any, resolution: int, out_channels: int, fusions: Sequence[Fusion]) -> nn.Module:
        """A new network, which is called with

            images (B * V, 3, R, R), context, V, pose embeddings (B * V, POSE_CHANNELS) or None

        the views of an object one after the other, and returns maps (B * V, out_channels, R, R).  Its attribute
        `camera` is None if it takes no pose embeddings.
        """
