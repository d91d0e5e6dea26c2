"""Cross-attention to an encoder's patch tokens, which have positions (corrected `xattn`).

With one key per patch the softmax has a choice, so the queries learn; a single vector leaves it none.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.fusion import ContextType
from model.fusion.positional import PositionalBlock
from model.fusion.xattn import CrossAttentionFusion
from model.types import Context


class _TokenBlock(PositionalBlock):
    def values(self, context: Context, size: torch.Size) -> Tensor:
        tokens = self.context_norm(self.read(context))  # (B, T, D)
        side = math.isqrt(tokens.shape[1])
        if side * side != tokens.shape[1]:
            raise ValueError(f"{tokens.shape[1]} tokens are no square of patches; only patches may be among them")
        return tokens.transpose(1, 2).unflatten(2, (side, side))


class TokenCrossAttention(CrossAttentionFusion):
    """Enters where `xattn` does.  Tokens are patches only, row by row: no class token, no registers."""

    accepts: ClassVar[frozenset[ContextType]] = frozenset({"tokens"})

    def block_module(self, channels: int) -> nn.Module:
        return _TokenBlock(self.source, channels, nn.LayerNorm(self.width, eps=1e-5), self.width)
