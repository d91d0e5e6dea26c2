"""A vector, projected, tiled over the lowest feature map and mixed in by a 1x1 convolution (published).

Both layers are linear, so the net effect is a channel mix plus a bias per image.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from model.fusion import ContextType, Place, Source
from model.fusion.base import Fusion
from model.fusion.fuser import Fuser
from model.types import Context


class _ProjectTileReduce(Fuser):
    def __init__(self, source: Source, width: int, channels: int) -> None:
        super().__init__(source)
        self.projector = nn.Linear(width, channels)
        self.reducer = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, h: Tensor, context: Context) -> Tensor:
        vector = self.projector(self.read(context))  # (B, C)
        tiled = vector[:, :, None, None].expand(-1, -1, *h.shape[2:])
        return self.reducer(torch.cat([h, tiled], dim=1))


class Concat(Fusion):
    """Enters once, behind the last encoder output; the skip connections keep the map without it."""

    accepts: ClassVar[frozenset[ContextType]] = frozenset({"vector"})
    place: ClassVar[Place] = "bottleneck"

    def bottleneck_module(self, channels: int) -> nn.Module:
        return _ProjectTileReduce(self.source, self.width, channels)
