"""Attention with one head as wide as the feature map, in plain torch.

`overridable` functions appear as one operator to torch's function modes: `model.native` computes them in one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import wrap_torch_function

Function = TypeVar("Function", bound=Callable[..., Any])


def overridable(function: Function) -> Function:
    """Makes a function of tensors appear as one operator to torch's function modes."""
    return cast(Function, wrap_torch_function(lambda *args, **_: [a for a in args if isinstance(a, Tensor)])(function))


@overridable
def self_attention(qkv: Tensor) -> Tensor:
    """Self-attention over the pixels: (B, 3 * C, H, W) -> (B, C, H, W).

    Channels 3c, 3c+1 and 3c+2 of qkv are query, key and value of channel c.  The softmax is in float32 at least.
    """
    batch, channels, height, width = qkv.shape
    flat = qkv.permute(0, 2, 3, 1).reshape(batch, 1, height * width, channels // 3, 3)
    query, key, value = flat.movedim(-1, 0).contiguous()  # (B, 1, HW, C) each
    attended = F.scaled_dot_product_attention(query, key, value)
    return attended.reshape(batch, height, width, channels // 3).permute(0, 3, 1, 2)


@overridable
def depth_cross_attention(query: Tensor, depth: Tensor, norm: nn.GroupNorm, key_value: nn.Conv2d) -> Tensor:
    """Cross-attention from the pixels of query (B, C, h, w) to those of depth (B, 1, H, W) -> (B, C, h, w).

    Keys and values of channel c are the outputs 2c and 2c + 1 of key_value(norm(depth)).  Each is affine in one number
    n of the depth map: keys a n + b, values a' n + b'.  The term q b is equal for all keys, so the softmax ignores
    it; the weighted mean of the values is a' times that of the numbers, plus b'.  So attention acts on scalars only.
    """
    batch, channels, height, width = query.shape
    to_key, to_value = key_value.weight.reshape(channels, 2).unbind(1)
    slopes = (query.flatten(2).transpose(1, 2) @ (to_key / math.sqrt(channels)))[:, None, :, None]  # (B, 1, Q, 1)
    numbers = norm(depth).flatten(1)[:, None, :, None]  # (B, 1, K, 1)
    # Copied, because torch's fast attention requires contiguous strides, even for one channel.
    slopes, numbers = (x.clone(memory_format=torch.contiguous_format) for x in (slopes, numbers))
    mean = F.scaled_dot_product_attention(slopes, numbers, numbers, scale=1.0)[:, 0]  # (B, Q, 1)
    attended = mean * to_value + key_value.bias.reshape(channels, 2)[:, 1]  # type: ignore[union-attr]
    return attended.transpose(1, 2).reshape(batch, channels, height, width)
