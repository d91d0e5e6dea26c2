"""The keys of `model:` for PixelNeRF.  Conventions default to the correct choice; each has its published one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from model.methods.base import MethodOptions
from model.options import ADDED_LATER, Count, Positive

#: Channels of the first stage of a ResNet34, and so of the published encoder.
PUBLISHED_WIDTH = 64

#: Alignment of deeper maps with the first: cell k of a map of stride s at pixel s * k, where it was computed; or with
#: aligned corners, as published, which displaces them towards the lower right.
Alignment = Literal["strided", "corners"]
#: Combination of a point's features from several source views.
Combination = Literal["mean", "max"]
#: Point of a pixel that its ray passes through: centre, or, as published, upper left corner (integer coordinates).
PixelPoint = Literal["centre", "corner"]
#: Quantity that near and far bound: the camera z of points, or, as published, their distance along the ray.
BoundsOf = Literal["camera_z", "distance"]
#: Statistics of batch normalisation in training: those of the batch, as published, or the pretrained ones.
Statistics = Literal["batch", "frozen"]

#: Activation of the density: ReLU, as published, or softplus, which is never zero and
#: starts as a thin fog.  With ReLU, small networks at high learning rates lose all density, and its gradient.
Density = Literal["relu", "softplus"]

NotNegative = Annotated[int, Field(ge=0)]


def strides(*, first_pool: bool) -> tuple[int, int, int, int]:
    """The strides of the encoder's maps, in pixels."""
    return (2, 4, 8, 16) if first_pool else (2, 2, 4, 8)


class PixelNerfOptions(MethodOptions):
    """Sizes of encoder and networks, samples per ray, and conventions."""

    name: Literal["pixelnerf"] = "pixelnerf"
    #: whether the encoder starts from ImageNet's weights, which have a width of 64
    pretrained: bool = True
    #: channels of the encoder's first stage
    encoder_width: Annotated[int, Field(gt=0, multiple_of=8)] = PUBLISHED_WIDTH
    #: the encoder's first pooling, which halves all maps but the first; published for images above 64 px
    first_pool: bool = True
    batch_norm: Statistics = "batch"
    feature_alignment: Alignment = "strided"
    #: units of the coarse and the fine network, and their residual blocks
    hidden: Count = 512
    blocks: Count = 5
    #: blocks that process source views separately, before these are combined
    view_blocks: Count = 3
    combine: Combination = "mean"
    density: Annotated[Density, ADDED_LATER] = "relu"
    #: samples per ray: stratified, by importance from the coarse pass, and around its depth
    coarse_samples: Count = 64
    importance_samples: NotNegative = 16
    depth_samples: NotNegative = 16
    #: standard deviation of samples around the depth, scene units
    depth_deviation: Positive = 0.01
    #: samples around the depth get no gradient; published: the fine loss reaches the coarse network through them
    detach_depth_samples: bool = True
    pixel_point: PixelPoint = "centre"
    bounds: BoundsOf = "camera_z"
    #: pixels of each object that a training step renders
    rays_per_object: Count = 128
    #: initial iterations in which these pixels lie in the foreground's bounding box
    no_bbox_step: NotNegative = 100_000
