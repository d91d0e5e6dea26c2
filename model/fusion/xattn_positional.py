"""Cross-attention to a map whose pixels have positions (corrected `xattn`).

The map is averaged down to the feature map's size, so there are as many keys as queries instead of 64 times as
many, and each pixel's depth can reach the pixel it belongs to.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.fusion import ContextType
from model.fusion.positional import PositionalBlock
from model.fusion.xattn import CrossAttentionFusion
from model.types import Context


class _MapBlock(PositionalBlock):
    def values(self, context: Context, size: torch.Size) -> Tensor:
        return F.interpolate(self.context_norm(self.read(context)), size, mode="area")


class PositionalCrossAttention(CrossAttentionFusion):
    """Enters where `xattn` does; as there, each map is standardised, because relative depth has no scale."""

    accepts: ClassVar[frozenset[ContextType]] = frozenset({"map"})

    def block_module(self, channels: int) -> nn.Module:
        norm = nn.GroupNorm(self.width, self.width, eps=1e-5)
        return _MapBlock(self.source, channels, norm, self.width)
