"""Cross-attention with positions of queries and tokens, which the published one lacks."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import lru_cache

import torch
from torch import Tensor, nn

from model.fusion import Source
from model.fusion.xattn import CrossAttentionBlock
from model.group_norm import normalised
from model.types import Context

#: Frequencies of the position code, as powers of two in cycles per image side: from half a cycle, which distinguishes
#: all positions, to eight, the Nyquist limit of a map of 16 pixels.
_SLOWEST, _FASTEST = -1.0, 3.0


class PositionalBlock(CrossAttentionBlock):
    """Tokens form a grid over the image; a token is its value, lifted to C channels, plus its position code."""

    def __init__(self, source: Source, channels: int, context_norm: nn.Module, width: int) -> None:
        super().__init__(source, channels, context_norm, nn.Conv2d(channels, 2 * channels, 1))
        self.lift = nn.Conv2d(width, channels, 1)
        # Maps normalised values to channels of mean square 1/2, like the sines of the position.
        nn.init.normal_(self.lift.weight, std=math.sqrt(0.5 / width))
        nn.init.zeros_(self.lift.bias)  # type: ignore[arg-type]

    @abstractmethod
    def values(self, context: Context, size: torch.Size) -> Tensor:
        """Context, height and width of the feature map -> normalised values (B, width, rows, columns)."""

    def queries(self, h: Tensor) -> Tensor:
        return self.query(_with_position(normalised(self.query_norm, h)))

    def tokens(self, context: Context, size: torch.Size) -> Tensor:
        return _with_position(self.lift(self.values(context, size)))


def _with_position(x: Tensor) -> Tensor:
    return x + position_code(*x.shape[1:], x.device, x.dtype)


@lru_cache(maxsize=64)
def position_code(channels: int, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """2-D sine-cosine code (Vaswani et al. 2017, one half of the channels for each axis) -> (channels, height, width).

    Positions are pixel centres as fractions of the image's side, so grids of any size over one image agree.
    `channels` is a multiple of 4.
    """
    with torch.inference_mode(False):  # an inference tensor, cached by an evaluation, could not be used in training
        down = _axis_code(channels // 2, height)[:, :, None].expand(-1, -1, width)
        across = _axis_code(channels // 2, width)[:, None, :].expand(-1, height, -1)
        return torch.cat([down, across]).to(device, dtype)


def _axis_code(channels: int, size: int) -> Tensor:
    """Code of one axis: (channels, size), sines before cosines."""
    cycles = torch.logspace(_SLOWEST, _FASTEST, channels // 2, base=2, dtype=torch.float64)
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    angles = 2 * math.pi * cycles[:, None] * centres
    return torch.cat([angles.sin(), angles.cos()])
