"""The layers of the network: in one call of our compiled kernels where these apply, else in plain torch.

The kernels apply to float32 tensors on a CPU whose numbers of channels fill its vectors.  Both ways compute the same
but for rounding; only dropout draws other numbers.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from model.ops.fused import Shape, fused_layer, kernel_for


def norm_silu(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """silu(norm(x)), of the shape of x (B, C, H, W)."""
    kernel = kernel_for(x, None)
    if kernel is None:
        return F.silu(norm(x))
    return fused_layer(kernel, Shape(norm.num_groups, norm.eps), x, (norm.weight, norm.bias))


def norm_conv(x: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d) -> Tensor:
    """conv(norm(x)): (B, C, H, W) -> (B, C', H, W)."""
    kernel = kernel_for(x, conv.weight)
    if kernel is None:
        return conv(norm(x))
    shape = Shape(norm.num_groups, norm.eps, silu=False)
    return fused_layer(kernel, shape, x, (norm.weight, norm.bias), (conv.weight, conv.bias))


def norm_silu_conv(
    x: Tensor,
    norm: nn.GroupNorm,
    conv: nn.Conv2d,
    *,
    dropout: float = 0.0,
    residual: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """scale * (conv(dropout(silu(norm(x)))) + residual): (B, C, H, W) -> (B, C', H, W).

    `conv` keeps the size of the image; `dropout` is the probability with which an element is zeroed, 0 to evaluate.
    """
    kernel = kernel_for(x, conv.weight)
    if kernel is None:
        y = conv(F.dropout(F.silu(norm(x)), dropout, training=dropout > 0))
        return _add(y, residual, scale)
    shape = Shape(norm.num_groups, norm.eps, dropout=dropout, scale=scale)
    return fused_layer(kernel, shape, x, (norm.weight, norm.bias), (conv.weight, conv.bias), residual)


def convolve(x: Tensor, conv: nn.Conv2d, *, residual: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """scale * (conv(x) + residual): (B, C, H, W) -> (B, C', H, W); `conv` keeps the size of the image."""
    kernel = kernel_for(x, conv.weight)
    if kernel is None:
        return _add(conv(x), residual, scale)
    return fused_layer(kernel, Shape(scale=scale), x, None, (conv.weight, conv.bias), residual)


def _add(y: Tensor, residual: Tensor | None, scale: float) -> Tensor:
    return (y if residual is None else y + residual) * scale
