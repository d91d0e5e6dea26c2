"""Cross-attention from the feature map to the context, in every block at an attention resolution (published).

As published, a vector is a single key, so the softmax is 1 everywhere and the block adds a bias per image; a
map is a set of scalar keys without positions, so only its histogram can be read.  `xattn_tokens` and
`xattn_positional` are the corrected ones, on the same attention.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.attention import depth_cross_attention
from model.fusion import ContextType, Place, Source
from model.fusion.base import Fusion
from model.fusion.fuser import Fuser
from model.group_norm import normalised
from model.norm_groups import has_groups, norm_groups
from model.types import Context


class CrossAttentionBlock(Fuser):
    """out = h + conv3x3(attention(GroupNorm(h) -> context)), one head as wide as h, no scaling of the sum.

    `key_value` has 2 * channels outputs: 2c and 2c + 1 are key and value of channel c.
    """

    def __init__(
        self, source: Source, channels: int, context_norm: nn.Module, key_value: nn.Linear | nn.Conv2d
    ) -> None:
        super().__init__(source)
        self.query_norm = nn.GroupNorm(norm_groups(channels), channels, eps=1e-5)
        self.query = nn.Conv2d(channels, channels, 1)
        self.context_norm = context_norm
        self.key_value = key_value
        self.out = nn.Conv2d(channels, channels, 3, padding=1)
        _initialise(self.query, math.sqrt(0.2))
        _initialise(self.key_value, math.sqrt(0.2))
        _initialise(self.out, 1e-5)

    def queries(self, h: Tensor) -> Tensor:
        """(B, C, h, w) features -> (B, C, h, w), one query per pixel."""
        return self.query(normalised(self.query_norm, h))

    def tokens(self, context: Context, size: torch.Size) -> Tensor:
        """Context, height and width of the feature map -> inputs of keys and values, (B, D, ...)."""
        return self.context_norm(self.read(context))

    def forward(self, h: Tensor, context: Context) -> Tensor:
        query, tokens = self.queries(h), self.tokens(context, h.shape[-2:])
        return h + self.out(attend(query, self.key_value(tokens)))


class _VectorAttentionBlock(CrossAttentionBlock):
    """`CrossAttentionBlock` for a vector: the softmax over its one key is 1, so every pixel gets its value.

    Queries and keys have no effect, and so no gradient; their weights are part of the published network.
    """

    def forward(self, h: Tensor, context: Context) -> Tensor:
        values = self.key_value(self.tokens(context, h.shape[-2:]))[:, 1::2]  # (B, C)
        return h + self.out(values[:, :, None, None].expand_as(h))


class _DepthAttentionBlock(CrossAttentionBlock):
    """`CrossAttentionBlock` for a map of one channel, where attention acts on scalars and is cheaper."""

    context_norm: nn.GroupNorm
    key_value: nn.Conv2d

    def forward(self, h: Tensor, context: Context) -> Tensor:
        attended = depth_cross_attention(self.queries(h), self.read(context), self.context_norm, self.key_value)
        return h + self.out(attended)


def attend(query: Tensor, key_value: Tensor) -> Tensor:
    """One head as wide as the features, the softmax in float32 at least.

    query (B, C, h, w); key_value (B, 2C, ...) with K keys -> (B, C, h, w).
    """
    batch, channels, height, width = query.shape
    key, value = key_value.reshape(batch, channels, 2, -1).unbind(2)  # (B, C, K)
    scores = torch.einsum("bcq,bck->bqk", query.flatten(2), key / math.sqrt(channels))
    weights = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1).to(scores.dtype)
    return torch.einsum("bqk,bck->bcq", weights, value).view(batch, channels, height, width)


def _initialise(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    nn.init.xavier_uniform_(layer.weight, gain=gain)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


class CrossAttentionFusion(Fusion):
    """A fusion whose modules are of `CrossAttentionBlock`."""

    place: ClassVar[Place] = "block"

    @classmethod
    def fits_block(cls, channels: int) -> bool:
        return has_groups(channels)


class CrossAttention(CrossAttentionFusion):
    """Enters in all encoder and decoder blocks at the attention resolutions, after their self-attention."""

    accepts: ClassVar[frozenset[ContextType]] = frozenset({"vector", "map"})

    def block_module(self, channels: int) -> nn.Module:
        if self.context_type == "vector":
            norm, key_value = nn.LayerNorm(self.width, eps=1e-5), nn.Linear(self.width, 2 * channels)
            return _VectorAttentionBlock(self.source, channels, norm, key_value)
        # One group per channel: each map is standardised, which removes scale and shift of the depth.
        maps = nn.GroupNorm(self.width, self.width, eps=1e-5), nn.Conv2d(self.width, 2 * channels, 1)
        return (_DepthAttentionBlock if self.width == 1 else CrossAttentionBlock)(self.source, channels, *maps)
