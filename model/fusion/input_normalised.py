"""A map as an extra channel of the input image, standardised per image (corrected `input`).

Relative depth has an arbitrary scale and shift, which differ between models and pictures; the published channel
passes them to the network.  Here each map has mean 0 and deviation 1.  A range of [0, 1] would let a single outlier
change all other values.  `xattn` standardises its map in the same way, so both fusions receive equal values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.fusion.fuser import Fuser
from model.fusion.input import InputChannel
from model.types import Context


class _AppendStandardised(Fuser):
    """(B, C, H, W) image, context -> (B, C + width, H, W)."""

    def forward(self, images: Tensor, context: Context) -> Tensor:
        maps = self.read(context)
        return torch.cat([images, F.group_norm(maps, maps.shape[1])], dim=1)  # one group per channel


class NormalisedInputChannel(InputChannel):
    """The map is a channel after red, green and blue, standardised; a constant map is 0."""

    def input_module(self) -> nn.Module:
        return _AppendStandardised(self.source)
