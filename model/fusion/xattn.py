"""Cross-attention from the feature map to the context, in every block at an attention resolution (published).

As published, a vector is a single key, so the softmax is 1 everywhere and the block adds a bias per image; a
map is a set of scalar keys without positions, so only its histogram can be read.  The corrected variants have
files of their own; this one is what the paper ran.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.fusion import KINDS, Kind, Source
from model.fusion.base import Fuser, Fusion
from model.types import Context


def _initialise(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    nn.init.xavier_uniform_(layer.weight, gain=gain)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


class _CrossAttention(Fuser):
    """out = h + conv3x3(attention(GroupNorm(h) -> context)), one head as wide as h, no scaling of the sum."""

    def __init__(self, source: Source, width: int, channels: int) -> None:
        super().__init__(source)
        self.query_norm = nn.GroupNorm(min(32, channels // 4), channels, eps=1e-5)
        self.query = nn.Conv2d(channels, channels, 1)
        # Output channels 2c and 2c+1 are key and value of channel c.
        if KINDS[source] == "vector":
            self.context_norm: nn.Module = nn.LayerNorm(width, eps=1e-5)
            self.key_value: nn.Linear | nn.Conv2d = nn.Linear(width, 2 * channels)
        else:
            # One group per channel: each map is standardised, so scale and shift of the depth are lost.
            self.context_norm = nn.GroupNorm(width, width, eps=1e-5)
            self.key_value = nn.Conv2d(width, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)
        _initialise(self.query, math.sqrt(0.2))
        _initialise(self.key_value, math.sqrt(0.2))
        _initialise(self.out, 1e-5)

    def forward(self, h: Tensor, context: Context) -> Tensor:
        batch, channels, height, width = h.shape
        query = self.query(self.query_norm(h)).flatten(2)  # (B, C, HW)
        key_value = self.key_value(self.context_norm(self.read(context)))
        key, value = key_value.reshape(batch, channels, 2, -1).unbind(2)  # (B, C, K), K = 1 for a vector
        scores = torch.einsum("bcq,bck->bqk", query, key / math.sqrt(channels))
        weights = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1).to(scores.dtype)
        attended = torch.einsum("bqk,bck->bcq", weights, value).view(batch, channels, height, width)
        return h + self.out(attended)


class CrossAttention(Fusion):
    """Enters in all encoder and decoder blocks at the attention resolutions, after their self-attention."""

    accepts: ClassVar[frozenset[Kind]] = frozenset({"vector", "map"})

    def block_module(self, channels: int) -> nn.Module:
        return _CrossAttention(self.source, self.width, channels)
