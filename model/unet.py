"""The backbone of Splatter Image: a U-Net of residual blocks after Song et al. 2021 ("NCSN++") and Karras et al. 2022.

It maps images to feature maps of the same size and knows nothing of Gaussians.  Conditioning enters at three
places, through objects of `model.fusion`: extra input channels, after the last encoder output, and after the
self-attention of blocks at the attention resolutions.

Source of the numerics: Szymanowicz et al. 2024, "Splatter Image", whose U-Net this is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.fusion.base import Fusion, at_bottleneck, at_input, in_block
from model.types import Context

#: Channels of the decoder's last feature map, which the head reads.
TAIL_CHANNELS = 24
DROPOUT = 0.10
SKIP_SCALE = math.sqrt(0.5)


def _xavier_uniform_(weight: Tensor, gain: float) -> None:
    """Glorot's uniform initialisation; `gain` multiplies the bound."""
    nn.init.xavier_uniform_(weight, gain=gain)


def conv(in_channels: int, out_channels: int, kernel: int, gain: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the image size, with the network's initialisation: uniform weights, zero bias."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    _xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with at least four channels a group and at most 32 groups."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


def resample(x: Tensor, direction: Literal["down", "up"] | None) -> Tensor:
    """(B, C, H, W) -> half the size by the mean of 2x2 pixels, or double the size by repetition."""
    if direction == "down":
        return F.avg_pool2d(x, 2)
    if direction == "up":
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return x


class SelfAttention(nn.Module):
    """One head as wide as the feature map, over all its pixels; the softmax is in float32 at least."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        # Output channels 3c, 3c+1, 3c+2 are query, key and value of channel c.
        self.qkv = conv(channels, 3 * channels, 1, gain=math.sqrt(0.2))
        self.proj = conv(channels, channels, 1, gain=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, channels, 3, height * width)
        query, key, value = qkv.unbind(2)  # (B, C, HW) each
        scores = torch.einsum("bcq,bck->bqk", query, key / math.sqrt(channels))
        weights = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1).to(scores.dtype)
        attended = torch.einsum("bqk,bck->bcq", weights, value).view(batch, channels, height, width)
        return (self.proj(attended) + x) * SKIP_SCALE


class ResidualBlock(nn.Module):
    """Two convolutions around a skip, with optional resampling, self-attention and context.

    The result is scaled by sqrt(1/2), so that the variance stays that of the input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        direction: Literal["down", "up"] | None = None,
        attention: bool = False,
        fusers: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.direction = direction
        self.norm0 = group_norm(in_channels)
        self.conv0 = conv(in_channels, out_channels, 3)
        self.norm1 = group_norm(out_channels)
        self.conv1 = conv(out_channels, out_channels, 3, gain=1e-5)
        plain = in_channels == out_channels and direction is None
        self.skip = None if plain else conv(in_channels, out_channels, 1)
        self.attention = SelfAttention(out_channels) if attention else None
        self.fusers = nn.ModuleList(fusers)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        h = self.conv0(resample(F.silu(self.norm0(x)), self.direction))
        h = F.silu(self.norm1(h))
        h = self.conv1(F.dropout(h, DROPOUT, self.training))
        skip = resample(x, self.direction)
        h = (h + (skip if self.skip is None else self.skip(skip))) * SKIP_SCALE
        if self.attention is not None:
            h = self.attention(h)
        for fuser in self.fusers:
            h = fuser(h, context)
        return h


class UNet(nn.Module):
    """Images (B, in_channels, R, R) -> feature maps (B, 24, R, R).

    Level l works at R >> l pixels with `base_dim * channel_mult[l]` channels.  Every encoder output goes on a
    stack; the decoder's ordinary blocks read the stack back.
    """

    def __init__(
        self,
        *,
        resolution: int,
        in_channels: int = 3,
        base_dim: int = 128,
        num_blocks: int = 4,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        attention_resolutions: Sequence[int] = (16,),
        fusions: Sequence[Fusion] = (),
    ) -> None:
        super().__init__()
        widths = [base_dim * m for m in channel_mult]
        attends = [(resolution >> level) in attention_resolutions for level in range(len(widths))]

        def block(c_in: int, c_out: int, level: int, *, attention: bool, fused: bool) -> ResidualBlock:
            fusers = in_block(fusions, c_out) if fused and attends[level] else []
            return ResidualBlock(c_in, c_out, attention=attention, fusers=fusers)

        channels = base_dim
        stack = [channels]
        self.input_fusers = nn.ModuleList(at_input(fusions))
        self.stem = conv(in_channels + sum(f.input_channels for f in fusions), base_dim, 3)
        self.encoder = nn.ModuleList()
        for level, width in enumerate(widths):
            if level > 0:
                self.encoder.append(ResidualBlock(channels, channels, direction="down"))
                stack.append(channels)
            for _ in range(num_blocks):
                self.encoder.append(block(channels, width, level, attention=attends[level], fused=True))
                channels = width
                stack.append(channels)
        self.bottleneck_fusers = nn.ModuleList(at_bottleneck(fusions, channels))

        # Per level: the modules that take no skip, then the blocks that take one.
        self.decoder_entries = nn.ModuleList()
        self.decoder_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            if level == len(widths) - 1:
                entry = [
                    ResidualBlock(channels, channels, attention=True),
                    ResidualBlock(channels, channels),
                ]
            else:
                entry = [ResidualBlock(channels, channels, direction="up")]
            self.decoder_entries.append(nn.ModuleList(entry))
            blocks = nn.ModuleList()
            for index in range(num_blocks + 1):
                last = index == num_blocks
                blocks.append(
                    block(channels + stack.pop(), width, level, attention=last and attends[level], fused=True)
                )
                channels = width
            self.decoder_blocks.append(blocks)
        self.tail_norm = group_norm(channels)
        self.tail_conv = conv(channels, TAIL_CHANNELS, 3, gain=0.2)

    def forward(self, images: Tensor, context: Context) -> Tensor:
        for fuser in self.input_fusers:
            images = fuser(images, context)
        h = self.stem(images)
        stack = [h]
        for module in self.encoder:
            h = module(h, context)
            stack.append(h)
        for fuser in self.bottleneck_fusers:
            h = fuser(h, context)
        for entry, blocks in zip(self.decoder_entries, self.decoder_blocks, strict=True):
            for module in entry:  # type: ignore[attr-defined]
                h = module(h, context)
            for module in blocks:  # type: ignore[attr-defined]
                h = module(torch.cat([h, stack.pop()], dim=1), context)
        return self.tail_conv(F.silu(self.tail_norm(h)))
