"""Group normalisation in other forms than torch's single operator, with the same result up to rounding.

`torch.nn.functional.group_norm` requires channels first on a GPU (up to torch 2.14), so a network in channels last,
the layout of fast convolutions, would be converted twice a layer.  On a GPU, `FusedGroupNorm` computes norm and SiLU
in channels last by Triton.  For compilers, `group_norm` consists of plain operators, which they fuse with their
neighbours in any layout.
"""

from __future__ import annotations

import importlib.util
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_ELEMENTS = 4096  # of a chunk, or a small map's group
_CHUNKS = 32  # combined at a time
_PROGRAMS = 2**16 - 1  # in the second dimension of a grid
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def activated(norm: nn.Module, x: Tensor) -> Tensor:
    """SiLU of a norm's output: in one step where the norm is fused (`fuse`) and its kernels take `x`."""
    return _fused(norm, x, silu=True) if _is_fused(norm, x) else F.silu(norm(x))


def normalised(norm: nn.Module, x: Tensor) -> Tensor:
    """A norm's output, likewise."""
    return _fused(norm, x, silu=False) if _is_fused(norm, x) else norm(x)


def fuse(network: nn.Module) -> None:
    """Make `activated` and `normalised` use `FusedGroupNorm` for every `nn.GroupNorm` in `network`.

    It needs Triton, without which nothing changes, and is used for tensors on a GPU.
    """
    if is_fusible():
        for module in network.modules():
            if type(module) is nn.GroupNorm and module.affine:
                module.__dict__["fused"] = True


def is_fusible() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def _is_fused(norm: nn.Module, x: Tensor) -> bool:
    """Whether the kernels take a feature map: a number of pixels that is a multiple of 4, on a GPU."""
    if not (getattr(norm, "fused", False) and x.is_cuda) or x.dim() != 4 or x.dtype not in _DTYPES or not x.numel():
        return False
    pixels = x.shape[2] * x.shape[3]
    return pixels % 4 == 0 and pixels // _rows(pixels, x.shape[1]) <= _PROGRAMS


def _rows(pixels: int, channels: int) -> int:
    """Pixels of a chunk: a power of two that divides their number."""
    return min(pixels & -pixels, max(4, _ELEMENTS // _power_of_two(channels)))


def _fused(norm: Any, x: Tensor, *, silu: bool) -> Tensor:
    of_group = _power_of_two(x.shape[2] * x.shape[3]) * _power_of_two(x.shape[1] // norm.num_groups)
    function = SmallGroupNorm if of_group <= _ELEMENTS else FusedGroupNorm
    result: Tensor = function.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)
    return result


class FusedGroupNorm(torch.autograd.Function):
    """(B, C, H, W) -> the same in channels last and of the same dtype: group norm, then SiLU if asked for.

    Statistics are float32.  The number of pixels is a multiple of 4.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
        from model import group_norm_kernels as kernels

        x = x.contiguous(memory_format=torch.channels_last)
        (images, channels), pixels = x.shape[:2], x.shape[2] * x.shape[3]
        rows = _rows(pixels, channels)
        chunks, size = pixels // rows, channels // groups
        tile = {"ROWS": rows, "COLUMNS": _power_of_two(channels)}
        partial = x.new_empty((images, chunks, 2, channels), dtype=torch.float32)
        affine = partial.new_empty((images, 2, channels))
        means, deviations = partial.new_empty((2, images, groups)).unbind(0)
        y = torch.empty_like(x)
        kernels.moments[images, chunks](x, partial, pixels, channels, **tile)
        kernels.statistics[images, groups](
            partial, weight, bias, affine, means, deviations, chunks, channels, ROWS=rows, SIZE=size,
            WIDTH=_power_of_two(size), CHUNKS=_CHUNKS, EPS=eps, num_warps=1,
        )  # fmt: skip
        kernels.normalise[images, chunks](x, affine, y, pixels, channels, SILU=silu, **tile)
        ctx.save_for_backward(x, weight, affine, means, deviations)
        ctx.sizes, ctx.tile, ctx.silu = (images, chunks, pixels, channels, groups, size), tile, silu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor) -> tuple[Tensor | None, ...]:
        from model import group_norm_kernels as kernels

        x, weight, affine, means, deviations = ctx.saved_tensors
        images, chunks, pixels, channels, groups, size = ctx.sizes
        by_y = by_y.contiguous(memory_format=torch.channels_last)
        partial = affine.new_empty((images, chunks, 2, channels))
        sums, shares = torch.empty_like(affine), affine.new_empty((images, groups, 2))
        by_x = torch.empty_like(x)
        of_map = {"SIZE": size, "SILU": ctx.silu, **ctx.tile}
        kernels.gradient_moments[images, chunks](
            x, by_y, affine, means, deviations, partial, pixels, channels, groups, **of_map
        )
        kernels.gradient_statistics[images, groups](
            partial, weight, sums, shares, chunks, channels, pixels * size, SIZE=size, WIDTH=_power_of_two(size),
            CHUNKS=_CHUNKS, num_warps=1,
        )  # fmt: skip
        kernels.gradient[images, chunks](
            x, by_y, affine, means, deviations, shares, by_x, pixels, channels, groups, **of_map
        )
        by_bias, by_weight = sums.sum(0).to(weight.dtype).unbind(0)
        return by_x, by_weight, by_bias, None, None, None


class SmallGroupNorm(torch.autograd.Function):
    """The same as `FusedGroupNorm` by one kernel each way, for maps whose groups each fit into one program.

    Steps of small networks are limited by the number of kernels.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
        from model import group_norm_kernels as kernels

        x = x.contiguous(memory_format=torch.channels_last)
        (images, channels), pixels = x.shape[:2], x.shape[2] * x.shape[3]
        size = channels // groups
        tile = {"PIXELS": _power_of_two(pixels), "WIDTH": _power_of_two(size)}
        ctx.grid, ctx.sizes = (images, groups), (pixels, channels)
        warps = 8 if tile["PIXELS"] * tile["WIDTH"] > 1024 else 4
        ctx.options = {"SIZE": size, "SILU": silu, "num_warps": warps, **tile}
        means, deviations = weight.new_empty((2, images, groups), dtype=torch.float32).unbind(0)
        y = torch.empty_like(x)
        kernels.normalise_group[ctx.grid](
            x, weight, bias, y, means, deviations, pixels, channels, EPS=eps, **ctx.options
        )
        ctx.save_for_backward(x, weight, bias, means, deviations)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor) -> tuple[Tensor | None, ...]:
        from model import group_norm_kernels as kernels

        x, weight, bias, means, deviations = ctx.saved_tensors
        by_y = by_y.contiguous(memory_format=torch.channels_last)
        by_x, sums = torch.empty_like(x), means.new_empty((len(x), 2, x.shape[1]))
        kernels.gradient_group[ctx.grid](
            x, by_y, weight, bias, means, deviations, by_x, sums, *ctx.sizes, **ctx.options
        )
        by_bias, by_weight = sums.sum(0).to(weight.dtype).unbind(0)
        return by_x, by_weight, by_bias, None, None, None


def _power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


def group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """(B, C, *) -> the same shape, with statistics in float32 at least; what `F.group_norm` computes."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    grouped = x.unflatten(1, (groups, -1))
    variance, mean = torch.var_mean(grouped, dim=tuple(range(2, grouped.dim())), correction=0, keepdim=True)
    y = ((grouped - mean) * torch.rsqrt(variance + eps)).flatten(1, 2)
    per_channel = (-1, *[1] * (x.dim() - 2))
    if weight is not None:
        y = y * weight.view(per_channel)
    return y if bias is None else y + bias.view(per_channel)


def use_plain_operators(network: nn.Module) -> None:
    """Make every `nn.GroupNorm` in `network` use `group_norm`."""
    for module in network.modules():
        if type(module) is nn.GroupNorm:
            module.__dict__["fused"] = False
            module.__dict__["forward"] = MethodType(_forward_plain, module)


def _forward_plain(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    return group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
