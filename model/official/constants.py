"""Constants of published files besides parameters; the published modules keep them as buffers."""

from __future__ import annotations

import torch
from torch import Tensor

from model.geometry import pixel_rays
from model.methods.splatter_image.backbones.unet import ResidualBlock, UNet
from model.official.datasets import PublishedDataset
from model.official.names import UNET_PREFIX, block_names

#: Constants of a predictor, besides those of its U-Net.
PREDICTOR_CONSTANTS = ("ray_dirs", "sh_to_v_transform", "v_to_sh_transform")


def resampling_filters(unet: UNet) -> dict[str, Tensor]:
    """Published name -> value of a U-Net's constants: the mean of 2x2 pixels, once for each layer that resamples."""
    found: dict[str, Tensor] = {}
    for path, name in block_names(unet):
        block = unet.get_submodule(path)
        assert isinstance(block, ResidualBlock)
        if block.direction is not None:
            found |= {
                f"{name}.{member}.resample_filter": torch.full((1, 1, 2, 2), 0.25) for member in ("conv0", "skip")
            }
    return found


def predictor_constants(unet: UNet, dataset: PublishedDataset) -> dict[str, Tensor]:
    """Published name -> value of all constants of a predictor, its U-Net's included."""
    size = unet.resolution
    # If every view has its own focal length, rays are divided by it later.
    focal = torch.full((2,), 1.0 if dataset.per_view else dataset.focal(size))
    to_vector = torch.tensor([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    own = (
        pixel_rays(size, size, focal, torch.full((2,), size / 2))[None],
        to_vector.T[None].contiguous(),
        to_vector[None],
    )
    filters = {UNET_PREFIX + name: value for name, value in resampling_filters(unet).items()}
    return dict(zip(PREDICTOR_CONSTANTS, own, strict=True)) | filters
