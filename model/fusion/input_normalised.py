"""A map as an extra channel of the input image, standardised per image (corrected `input`).

Relative depth comes in any scale and shift, other ones for other models and pictures, and the published channel
hands them on.  Mean 0 and deviation 1 rather than a range of [0, 1], because a single outlying pixel moves the
range of all others; it is also what `xattn` makes of its map, so that the two ways of entering see the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.fusion.fuser import Fuser
from model.fusion.input import InputChannel
from model.types import Context


class _AppendStandardised(Fuser):
    def forward(self, images: Tensor, context: Context) -> Tensor:
        maps = self.read(context)
        return torch.cat([images, F.group_norm(maps, maps.shape[1])], dim=1)


class NormalisedInputChannel(InputChannel):
    """The map stands beside red, green and blue in units of its own deviation; a constant map is 0."""

    def input_module(self) -> nn.Module:
        return _AppendStandardised(self.source)
