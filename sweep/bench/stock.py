"""The reference of the step's benchmark: the same U-Net as a plain user of torch writes it, operator by operator.

No fused layer, no layout but the default one: group norm, SiLU, dropout, convolutions and sums are torch's own.  It
takes the modules of our network, and with them the architecture and the weights, so that both can be compared.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.methods.splatter_image.backbones.unet import DROPOUT, ResidualBlock, SelfAttention, UNet
from model.types import Context


def stock_unet(network: UNet) -> nn.Module:
    """A copy of `network`, without fusions and cameras, that computes in stock torch; same call, same results."""
    return _StockUNet(copy.deepcopy(network))


class _StockUNet(nn.Module):
    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, context: Context) -> Tensor:
        """(B, C, R, R) -> (B, out_channels, R, R); `context` must be empty."""
        network = self.network
        h = network.stem(images)
        stack = [h]
        for block in network.encoder:
            h = self._block(cast(ResidualBlock, block), h)
            stack.append(h)
        for entries, blocks in zip(network.decoder_entries, network.decoder_blocks, strict=True):
            for block in cast(Iterable[ResidualBlock], entries):
                h = self._block(block, h)
            for block in cast(Iterable[ResidualBlock], blocks):
                h = self._block(block, torch.cat([h, stack.pop()], dim=1))
        return network.tail_conv(F.silu(network.tail_norm(h)))

    def _block(self, block: ResidualBlock, x: Tensor) -> Tensor:
        h = block.conv0(_resample(F.silu(block.norm0(x)), block.direction))
        h = F.dropout(F.silu(block.norm1(h)), DROPOUT, self.training)
        skip = _resample(x, block.direction)
        h = (block.conv1(h) + (skip if block.skip is None else block.skip(skip))) * math.sqrt(0.5)
        return h if block.attention is None else _attend(block.attention, h)


def _resample(x: Tensor, direction: str | None) -> Tensor:
    if direction == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2, mode="nearest") if direction == "up" else x


def _attend(attention: SelfAttention, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    qkv = attention.qkv(attention.norm(x)).reshape(batch, channels, 3, height * width)
    query, key, value = qkv.unbind(2)
    weights = torch.einsum("bcq,bck->bqk", query, key / math.sqrt(channels)).softmax(-1)
    attended = torch.einsum("bqk,bck->bcq", weights, value).reshape(x.shape)
    return (attention.proj(attended) + x) * math.sqrt(0.5)
