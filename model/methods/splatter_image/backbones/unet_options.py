"""The U-Net of Splatter Image, with skip connections and attention at chosen sides.

This module has its keys and requirements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from model.fusion import Place
from model.methods.splatter_image.backbones.base import Backbone
from model.methods.splatter_image.options import SplatterImageOptions
from model.norm_groups import has_groups, nearest_fitting
from model.options import ADDED_LATER, Count, Counts, MisfitError

#: Channels of the input and of the output of each block of each level.
Channels = list[list[tuple[int, int]]]

if TYPE_CHECKING:
    from model.fusion.base import Fusion
    from model.methods.splatter_image.backbones.unet import UNet


def block_channels(base_dim: int, num_blocks: int, channel_mult: Sequence[int]) -> tuple[Channels, Channels]:
    """The channels of the encoder's blocks and of the decoder's, whose input includes that of a skip connection.

    Both lists begin at the level of the full resolution.  All other feature maps have the width of a block's output, or
    of the stem's, which is the first block's input.
    """
    channels = base_dim
    stack = [channels]
    encoder: Channels = []
    for level, factor in enumerate(channel_mult):
        if level > 0:
            stack.append(channels)
        encoder.append([])
        for _ in range(num_blocks):
            encoder[-1].append((channels, base_dim * factor))
            channels = base_dim * factor
            stack.append(channels)
    decoder: Channels = []
    for factor in reversed(channel_mult):
        decoder.insert(0, [])
        for _ in range(num_blocks + 1):
            decoder[0].append((channels + stack.pop(), base_dim * factor))
            channels = base_dim * factor
    return encoder, decoder


def _without_groups(base_dim: int, options: UNetOptions) -> list[int]:
    """The widths of the network's feature maps that group normalisation cannot divide."""
    encoder, decoder = block_channels(base_dim, min(options.num_blocks, 2), options.channel_mult)  # more repeat these
    widths = {width for level in encoder + decoder for pair in level for width in pair}
    return sorted(width for width in widths if not has_groups(width))


class UNetOptions(SplatterImageOptions):
    """Sizes of the U-Net."""

    backbone: Annotated[Literal["unet"], ADDED_LATER] = "unet"
    base_dim: Annotated[int, Field(gt=0, multiple_of=4)] = 16
    num_blocks: Count = 1
    channel_mult: Annotated[Counts, Field(min_length=1)] = (1, 2, 2, 2)
    #: side lengths, in pixels, of the feature maps with self-attention in encoder blocks; others than `sides` have no
    #: effect, so a network may have none
    attention_resolutions: Counts = (8,)

    def sides(self, resolution: int) -> tuple[int, ...]:
        """Side lengths of the feature maps of all levels, in pixels, for images of `resolution` pixels."""
        return tuple(resolution >> level for level in range(len(self.channel_mult)))


class UNetBackbone(Backbone):
    """A U-Net of residual blocks, as published."""

    Options: ClassVar[type[SplatterImageOptions]] = UNetOptions
    places: ClassVar[frozenset[Place]] = frozenset({"input", "block", "bottleneck"})

    @classmethod
    def check(cls, options: UNetOptions, resolution: int) -> None:
        halvings = len(options.channel_mult) - 1
        if resolution % (1 << halvings):
            reason = f"data.resolution {resolution} cannot be halved {halvings} times, as model.channel_mult requires"
            raise MisfitError("data.resolution", reason)
        if unfit := _without_groups(options.base_dim, options):
            nearest = nearest_fitting(options.base_dim, lambda width: not _without_groups(width, options))
            raise MisfitError(
                "model.base_dim",
                f"model.base_dim {options.base_dim} with model.channel_mult {list(options.channel_mult)} makes feature "
                f"maps of {unfit[0]} channels, which do not divide into the 32 groups of their norm; {nearest}",
            )

    @classmethod
    def check_place(cls, options: UNetOptions, resolution: int, way: type[Fusion], fusion: str) -> None:
        wanted, sides = options.attention_resolutions, options.sides(resolution)
        if way.place == "block" and not set(wanted) & set(sides):
            reason = (
                f"{fusion} enters blocks at model.attention_resolutions {list(wanted)}, and no level has such a side"
            )
            found = f"at data.resolution {resolution} the U-Net's levels have {', '.join(map(str, sides))}"
            raise MisfitError("model.attention_resolutions", f"{reason}: {found}")

    @classmethod
    def build(cls, options: UNetOptions, resolution: int, out_channels: int, fusions: Sequence[Fusion]) -> UNet:
        from model.methods.splatter_image.backbones.unet import UNet
        from model.methods.splatter_image.camera_embedding import POSE_CHANNELS

        return UNet(
            resolution=resolution,
            out_channels=out_channels,
            base_dim=options.base_dim,
            num_blocks=options.num_blocks,
            channel_mult=options.channel_mult,
            attention_resolutions=options.attention_resolutions,
            camera_channels=POSE_CHANNELS if options.camera_embedding else 0,
            fusions=fusions,
        )
