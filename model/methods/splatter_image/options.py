"""The keys of `model:` that Splatter Image shares among all backbones."""

from __future__ import annotations

from typing import Annotated, Literal

from model.methods.base import MethodOptions
from model.options import ADDED_LATER, Count, Finite, Positive, Section


class HeadOptions(Section):
    """Initial size and offset of each group of raw Gaussian parameters."""

    depth_scale: Finite = 1.0
    depth_bias: Finite = 0.0
    offset_scale: Finite = 0.1
    offset_bias: Finite = 0.0
    opacity_scale: Finite = 1.0
    opacity_bias: Finite = -2.0
    scale_scale: Finite = 0.003
    scale_bias: Positive = 0.02


class SplatterImageOptions(MethodOptions):
    """Initialisation and number of Gaussians; a backbone's class adds its sizes and its name as `backbone`."""

    name: Literal["splatter_image"] = "splatter_image"
    backbone: Annotated[str, ADDED_LATER] = "unet"
    #: source views of each object; several attend to each other
    input_views: Count = 1
    #: with 2, the second one lies behind the first, and represents occluded surfaces
    gaussians_per_pixel: Annotated[Literal[1, 2], ADDED_LATER] = 1
    sh_degree: Literal[0, 1] = 1
    #: whether the network is conditioned on camera poses; only useful with several views
    camera_embedding: bool = False
    head: HeadOptions = HeadOptions()
