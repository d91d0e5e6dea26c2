"""The layers of the network: in one call of our compiled kernels where these apply, else in plain torch.

The kernels apply to float32 tensors on a CPU whose numbers of channels fill its vectors.  Both ways compute the same
but for rounding; only dropout draws other numbers.  `in_one_call` does a stretch of many layers at once: it has them
recorded first, which is why every function takes `Recorded` maps as well as tensors, and gives the same back.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.ops.fused import Shape, fused_layer, kernel_for
from model.ops.program import Recorded, in_one_call

__all__ = [
    "attend",
    "concatenate",
    "convolve",
    "halve",
    "in_one_call",
    "norm_conv",
    "norm_silu",
    "norm_silu_conv",
    "read",
    "repeat",
]

#: A feature map (B, C, H, W).
Map = TypeVar("Map", Tensor, Recorded)


def norm_silu(x: Map, norm: nn.GroupNorm) -> Map:
    """silu(norm(x)), of the shape of x (B, C, H, W)."""
    shape = Shape(norm.num_groups, norm.eps)
    if isinstance(x, Recorded):
        return x.recorder.layer(shape, x, norm)
    kernel = kernel_for(x, None)
    if kernel is None:
        return F.silu(norm(x))
    return fused_layer(kernel, shape, x, (norm.weight, norm.bias))


def norm_conv(x: Map, norm: nn.GroupNorm, conv: nn.Conv2d) -> Map:
    """conv(norm(x)): (B, C, H, W) -> (B, C', H, W)."""
    shape = Shape(norm.num_groups, norm.eps, silu=False)
    if isinstance(x, Recorded):
        return x.recorder.layer(shape, x, norm, conv)
    kernel = kernel_for(x, conv.weight)
    if kernel is None:
        return conv(norm(x))
    return fused_layer(kernel, shape, x, (norm.weight, norm.bias), (conv.weight, conv.bias))


def norm_silu_conv(
    x: Map,
    norm: nn.GroupNorm,
    conv: nn.Conv2d,
    *,
    dropout: float = 0.0,
    residual: Map | None = None,
    scale: float = 1.0,
) -> Map:
    """scale * (conv(dropout(silu(norm(x)))) + residual): (B, C, H, W) -> (B, C', H, W).

    `conv` keeps the size of the image; `dropout` is the probability with which an element is zeroed, 0 to evaluate.
    """
    shape = Shape(norm.num_groups, norm.eps, dropout=dropout, scale=scale)
    if isinstance(x, Recorded):
        return x.recorder.layer(shape, x, norm, conv, residual)
    kernel = kernel_for(x, conv.weight)
    if kernel is None:
        y = conv(F.dropout(F.silu(norm(x)), dropout, training=dropout > 0))
        return _add(y, residual, scale)
    return fused_layer(kernel, shape, x, (norm.weight, norm.bias), (conv.weight, conv.bias), residual)


def convolve(x: Map, conv: nn.Conv2d, *, residual: Map | None = None, scale: float = 1.0) -> Map:
    """scale * (conv(x) + residual): (B, C, H, W) -> (B, C', H, W); `conv` keeps the size of the image."""
    if isinstance(x, Recorded):
        return x.recorder.layer(Shape(scale=scale), x, None, conv, residual)
    kernel = kernel_for(x, conv.weight)
    if kernel is None:
        return _add(conv(x), residual, scale)
    return fused_layer(kernel, Shape(scale=scale), x, None, (conv.weight, conv.bias), residual)


def attend(qkv: Map) -> Map:
    """Self-attention over the pixels, one head as wide as the map: (B, 3 * C, H, W) -> (B, C, H, W).

    Channels 3c, 3c+1 and 3c+2 of qkv are query, key and value of channel c.  The softmax is in float32 at least.
    """
    if isinstance(qkv, Recorded):
        return qkv.recorder.attend(qkv)
    batch, channels, height, width = qkv.shape
    flat = qkv.permute(0, 2, 3, 1).reshape(batch, 1, height * width, channels // 3, 3)
    query, key, value = flat.movedim(-1, 0).contiguous()  # (B, 1, HW, C) each
    attended = F.scaled_dot_product_attention(query, key, value)
    return attended.reshape(batch, height, width, channels // 3).permute(0, 3, 1, 2)


def read(query: Map, numbers: Tensor, norm: nn.GroupNorm, key_value: nn.Conv2d) -> Map:
    """Cross-attention to the numbers of an image, one head as wide as the map: query (B, C, h, w) -> (B, C, h, w).

    Keys and values of channel c are the outputs 2c and 2c + 1 of key_value(norm(numbers)); numbers (B, 1, H, W).  Keys
    are a n + b of a number n, and values a' n + b'.  A query q's product with a key is (a q) n but for what is the same
    for all keys, which a softmax does not see; and the weighted mean of the values is a' times that of the numbers,
    plus b'.  So all happens among numbers.
    """
    if isinstance(query, Recorded):
        return query.recorder.read(query, numbers, norm, key_value)
    batch, channels, height, width = query.shape
    to_key, to_value = key_value.weight.reshape(channels, 2).unbind(1)
    asked = (query.flatten(2).transpose(1, 2) @ (to_key / math.sqrt(channels)))[:, None, :, None]  # (B, 1, Q, 1)
    tokens = norm(numbers).flatten(1)[:, None, :, None]  # (B, 1, K, 1)
    # Copied, because torch's quick attention wants strides as of a new tensor, even where there is one channel.
    asked, tokens = (x.clone(memory_format=torch.contiguous_format) for x in (asked, tokens))
    mean = F.scaled_dot_product_attention(asked, tokens, tokens, scale=1.0)[:, 0]  # (B, Q, 1)
    attended = mean * to_value + key_value.bias.reshape(channels, 2)[:, 1]  # type: ignore[union-attr]
    return attended.transpose(1, 2).reshape(batch, channels, height, width)


def halve(x: Map) -> Map:
    """The mean of 2x2 pixels: (B, C, H, W) -> (B, C, H // 2, W // 2)."""
    return x.recorder.halve(x) if isinstance(x, Recorded) else F.avg_pool2d(x, 2)


def repeat(x: Map) -> Map:
    """Every pixel four times: (B, C, H, W) -> (B, C, 2 * H, 2 * W)."""
    return x.recorder.repeat(x) if isinstance(x, Recorded) else F.interpolate(x, scale_factor=2, mode="nearest")


def concatenate(x: Map, other: Map) -> Map:
    """The channels of x, then those of other: (B, C, H, W), (B, C', H, W) -> (B, C + C', H, W)."""
    return x.recorder.join(x, other) if isinstance(x, Recorded) else torch.cat([x, other], dim=1)


def _add(y: Tensor, residual: Tensor | None, scale: float) -> Tensor:
    return (y if residual is None else y + residual) * scale
