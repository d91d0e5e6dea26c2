"""Layers of the network in one call of our compiled kernels each way, as differentiable functions.

One function covers y = scale * (conv(dropout(silu(norm(x)))) + bias + residual) with every part optional.  Keeping
the parts in one pass spares most of the memory traffic, and half of the calls, that they cost one by one.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.ops.native import MAX_CHANNELS, Gradients, Layer, available_kernels, load_library, parallel

#: The layout of feature maps and weights.
FORMAT = torch.channels_last
#: What backward needs of forward, by the names in `Layer`.
_TENSORS = ("x", "gain", "offset", "weight", "bias", "moments", "active")


@dataclass(frozen=True)
class Shape:
    """What a layer consists of, but for its tensors."""

    #: groups of the norm; 0 = no norm, hence no silu and no dropout
    groups: int = 0
    eps: float = 0.0
    silu: bool = True
    #: the probability that dropout zeroes an element
    dropout: float = 0.0
    #: multiplies the sum of convolution, bias and residual
    scale: float = 1.0


def kernel_for(x: Tensor, weight: Tensor | None) -> int | None:
    """The fastest kernel that can do a layer of x (B, C, H, W) with the weight of its convolution; None: torch must."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.dim() != 4 or x.numel() == 0:
        return None
    if torch.is_autocast_enabled("cpu"):
        return None
    if weight is None:
        return kernel_of((x.shape[1],))
    if weight.dtype != torch.float32 or weight.shape[1:] != (x.shape[1], weight.shape[2], weight.shape[2]):
        return None
    return kernel_of((x.shape[1], weight.shape[0]), weight.shape[2])


def kernel_of(channels: tuple[int, ...], side: int = 0) -> int | None:
    """The fastest kernel for these numbers of channels and a convolution of this side; 0 is none."""
    if side not in (0, 1, 3) or channels[0] > MAX_CHANNELS:
        return None
    for index, lanes in enumerate(available_kernels().values()):
        if all(count % lanes == 0 for count in channels):
            return index
    return None


def layer_sizes(kernel: int, shape: Shape, x: tuple[int, ...], outputs: int, side: int) -> Layer:
    """A layer without its tensors; x: their shape (B, C, H, W)."""
    batch, inputs, height, width = x
    return Layer(
        images=batch,
        height=height,
        width=width,
        inputs=inputs,
        outputs=outputs,
        kernels=kernel,
        side=side,
        groups=shape.groups,
        silu=shape.silu,
        drop_below=min(round(shape.dropout * 2**32), 2**32 - 1),
        keep_scale=1 / (1 - shape.dropout),
        eps=shape.eps,
        scale=shape.scale,
    )


def fused_layer(
    kernel: int,
    shape: Shape,
    x: Tensor,
    norm: tuple[Tensor, Tensor] | None = None,
    conv: tuple[Tensor, Tensor | None] | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """The layer of `shape`, on x (B, C, H, W); `norm` and `conv` are weight and bias.

    Random bits of dropout are a function of torch's default generator (one number is drawn from it) and of the
    element, so they do not depend on the number of threads.
    """
    gain, offset = norm or (None, None)
    weight, bias = conv or (None, None)
    if gain is not None and gain.shape != x.shape[1:2]:
        raise ValueError(f"the norm is of {gain.shape[0]} channels, the map has {x.shape[1]}")
    if residual is not None and weight is not None and residual.shape != (len(x), len(weight), *x.shape[2:]):
        raise ValueError(f"the residual has shape {tuple(residual.shape)}, the layer is on {tuple(x.shape)}")
    key = int(torch.randint(1 << 62, ()).item()) if shape.dropout > 0 else 0
    y: Tensor = _FusedLayer.apply(kernel, shape, key, x, gain, offset, weight, bias, residual)
    return y


class _FusedLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: int,
        shape: Shape,
        key: int,
        x: Tensor,
        gain: Tensor | None,
        offset: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
    ) -> Tensor:
        x = x.contiguous(memory_format=FORMAT)
        batch, inputs, height, width = x.shape
        if residual is not None:
            residual = residual.contiguous(memory_format=FORMAT)
        if weight is None:
            y = torch.empty_like(x)
            active, side = y, 0
        else:
            weight = weight.contiguous(memory_format=FORMAT)
            y = torch.empty((batch, weight.shape[0], height, width), memory_format=FORMAT)
            side = weight.shape[2]
            pad = side // 2
            plain = shape.groups == 0 and pad == 0
            active = x if plain else x.new_empty((batch, height + 2 * pad, width + 2 * pad, inputs))
        moments = x.new_empty((batch, shape.groups, 2))
        layer = layer_sizes(kernel, shape, x.shape, y.shape[1], side)
        layer.threads, layer.key, layer.residual = torch.get_num_threads(), key, _address(residual)
        saved = (x, gain, offset, weight, bias, moments, None if weight is None else active)
        _point(layer, *saved[:-1], active)
        check(load_library().layer_forward(ctypes.byref(layer), parallel(), y.data_ptr()))  # type: ignore[union-attr]
        ctx.layer = layer
        ctx.save_for_backward(*saved)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, offset, weight, bias, *_ = ctx.saved_tensors
        _point(ctx.layer, *ctx.saved_tensors)
        by_y = by_y.contiguous(memory_format=FORMAT)
        want_x, *_, want_residual = ctx.needs_input_grad[3:]
        by_x = torch.empty_like(x) if want_x or gain is not None else None
        by_gain, by_offset, by_weight, by_bias = (
            torch.empty_like(t) if t is not None and wanted else None
            for t, wanted in zip((gain, offset, weight, bias), ctx.needs_input_grad[4:8], strict=True)
        )
        by_residual = torch.empty_like(by_y) if want_residual else None
        gradients = Gradients(
            by_y.data_ptr(),
            *(_address(t) for t in (by_x, by_gain, by_offset, by_weight, by_bias, by_residual)),
        )
        check(load_library().layer_backward(ctypes.byref(ctx.layer), ctypes.byref(gradients), parallel()))  # type: ignore[union-attr]
        return (None, None, None, by_x if want_x else None, by_gain, by_offset, by_weight, by_bias, by_residual)


def _point(layer: Layer, *tensors: Tensor | None) -> None:
    """Set the addresses in `layer`: of x, gain, offset, weight, bias, moments and active."""
    for name, tensor in zip(_TENSORS, tensors, strict=True):
        setattr(layer, name, _address(tensor))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def check(status: int) -> None:
    """Raise MemoryError if a call of the library says so."""
    if status != 0:
        raise MemoryError("the network's kernels found no memory for their intermediate results")
