"""Interface of fusions.

A `Fusion` describes the context that enters (a vector or a map, and its width).  A network takes its modules for its
places; each module is called with the features there and the whole `Context`, and reads its own source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from model.context import find_source
from model.fusion import FUSION, ContextType, Place, Source
from model.registry import resolve

if TYPE_CHECKING:
    from torch import nn


class Fusion:
    """Describes how one source of context enters the network."""

    #: the types of context that can enter this way
    accepts: ClassVar[frozenset[ContextType]]
    #: place at which it enters; it fits networks that have this place
    place: ClassVar[Place]

    def __init__(self, source: Source, context_type: ContextType, width: int) -> None:
        """`width`: length of the vector or of each token, or channels of the map."""
        self.source, self.context_type, self.width = source, context_type, width

    @classmethod
    def fits_block(cls, channels: int) -> bool:
        """Whether it can enter a block of so many channels, a multiple of 4."""
        return True

    @property
    def input_channels(self) -> int:
        """Channels that this fusion adds to the image."""
        return 0

    def input_module(self) -> nn.Module | None:
        """(B, C, H, W) image, context -> (B, C + input_channels, H, W)."""
        return None

    def block_module(self, channels: int) -> nn.Module | None:
        """A module for a block at an attention resolution: (B, channels, h, w), context -> the same shape."""
        return None

    def bottleneck_module(self, channels: int) -> nn.Module | None:
        """A module behind the last encoder output: (B, channels, h, w), context -> the same shape."""
        return None


def context_type_for(fusion: type[Fusion], source: Source) -> ContextType | None:
    """The type of context with which `source` enters by this fusion; None where it cannot."""
    types = [offered for offered in find_source(source).context_types if offered in fusion.accepts]
    return types[0] if types else None


def make_fusion(way: str, source: Source, width: int) -> Fusion:
    """The fusion named `way` for `source`, of that width.  Raises ValueError where they do not fit."""
    cls: type[Fusion] = resolve(FUSION, way, "fusion")
    context_type = context_type_for(cls, source)
    if context_type is None:
        raise ValueError(f"fusion {way!r} cannot take {source} context; it accepts {', '.join(sorted(cls.accepts))}")
    return cls(source, context_type, width)


def at_input(fusions: Sequence[Fusion]) -> list[nn.Module]:
    """The modules of all fusions that act on the image."""
    return [m for f in fusions if (m := f.input_module()) is not None]


def in_block(fusions: Sequence[Fusion], channels: int) -> list[nn.Module]:
    """New modules of all fusions that act inside one block."""
    return [m for f in fusions if (m := f.block_module(channels)) is not None]


def at_bottleneck(fusions: Sequence[Fusion], channels: int) -> list[nn.Module]:
    """The modules of all fusions that act behind the encoder."""
    return [m for f in fusions if (m := f.bottleneck_module(channels)) is not None]
