"""A plain transformer over patches of the source views.

This module has its keys and requirements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from model.fusion import Place
from model.methods.splatter_image.backbones.base import Backbone
from model.methods.splatter_image.options import SplatterImageOptions
from model.norm_groups import nearest_fitting
from model.options import Count, MisfitError

if TYPE_CHECKING:
    from model.fusion.base import Fusion
    from model.methods.splatter_image.backbones.transformer import Transformer


class TransformerOptions(SplatterImageOptions):
    """Sizes of the transformer.  By default a step costs about as much as with the U-Net's defaults."""

    backbone: Literal["transformer"] = "transformer"
    #: side of a patch, pixels; each patch of each view is one token
    patch_size: Count = 4
    #: width of a token
    width: Annotated[int, Field(gt=0, multiple_of=4)] = 96
    layers: Count = 6
    #: attention heads, among which the width is divided
    heads: Count = 4


class TransformerBackbone(Backbone):
    """A plain transformer over the patches of all views of an object."""

    Options: ClassVar[type[SplatterImageOptions]] = TransformerOptions
    places: ClassVar[frozenset[Place]] = frozenset({"input", "block"})

    @classmethod
    def check(cls, options: TransformerOptions, resolution: int) -> None:
        if resolution % options.patch_size:
            reason = f"data.resolution {resolution} does not divide by model.patch_size {options.patch_size}"
            raise MisfitError("model.patch_size", reason)
        if options.width % options.heads:
            reason = f"model.width {options.width} does not divide among model.heads {options.heads}"
            raise MisfitError("model.heads", reason)

    @classmethod
    def check_place(cls, options: TransformerOptions, resolution: int, way: type[Fusion], fusion: str) -> None:
        if way.place == "block" and not way.fits_block(options.width):
            nearest = nearest_fitting(options.width, way.fits_block, math.lcm(4, options.heads))
            reason = (
                f"{fusion} enters blocks, and model.width {options.width} does not divide into its groups; {nearest}"
            )
            raise MisfitError("model.width", reason)

    @classmethod
    def build(
        cls, options: TransformerOptions, resolution: int, out_channels: int, fusions: Sequence[Fusion]
    ) -> Transformer:
        from model.methods.splatter_image.backbones.transformer import Transformer
        from model.methods.splatter_image.camera_embedding import POSE_CHANNELS

        return Transformer(
            out_channels=out_channels,
            patch_size=options.patch_size,
            width=options.width,
            layers=options.layers,
            heads=options.heads,
            camera_channels=POSE_CHANNELS if options.camera_embedding else 0,
            fusions=fusions,
        )
