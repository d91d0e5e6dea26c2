"""Our own rasteriser for processors: one call of the C++ kernels for a whole batch, as one autograd function.

Arithmetic is float32 on the image and float64 in the geometry.  Threads (`torch.get_num_threads()` of them) share out
the images; results are the same to the last bit for any number of threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.rasterizers.native import Batch, available_kernels, load_library
from model.types import Cameras, Gaussians

_STATUS_OUT_OF_MEMORY = 1


class CpuRasterizer:
    """Backend `cpu`.  Takes tensors of any device and floating dtype; computes on the host.

    `kernels` names the variant to use, one of `available_kernels()`; by default the fastest.
    """

    def __init__(self, kernels: str | None = None) -> None:
        available = available_kernels()
        if kernels is not None and kernels not in available:
            raise ValueError(f"kernels must be one of {', '.join(available)} on this processor, got {kernels!r}")
        self._kernels = 0 if kernels is None else available.index(kernels)

    def __call__(self, gaussians: Gaussians, cameras: Cameras, background: Tensor, antialiasing: bool) -> Tensor:
        parameters = (
            gaussians.means,
            gaussians.scales,
            gaussians.rotations,
            gaussians.opacities,
            gaussians.sh,
            background,
        )
        on_host = [parameter.to("cpu", torch.float32) for parameter in parameters]
        images: Tensor = _Rasterize.apply(*on_host, _pack(cameras), cameras, antialiasing, self._kernels)
        return images.to(gaussians.means)


def _pack(cameras: Cameras) -> Tensor:
    """(B, V, 16) float64 on the host: the rows of [R | t], focal lengths, principal point."""
    parts = [cameras.world_to_camera[..., :3, :].flatten(-2), cameras.focal, cameras.principal]
    return torch.cat([part.to("cpu", torch.float64) for part in parts], dim=-1)


class _Rasterize(torch.autograd.Function):
    """All state between forward and backward lies in tensors of the graph, so calls may overlap and repeat."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        scales: Tensor,
        rotations: Tensor,
        opacities: Tensor,
        sh: Tensor,
        background: Tensor,
        packed_cameras: Tensor,
        cameras: Cameras,
        antialiasing: bool,
        kernels: int,
    ) -> Tensor:
        library = load_library()
        inputs = [t.contiguous() for t in (means, scales, rotations, opacities, sh, packed_cameras, background)]
        scenes, views = packed_cameras.shape[:2]
        shape = (scenes, views, means.shape[1])
        plane = library.splat_plane_size(cameras.height, cameras.width)
        state = [
            torch.empty((*shape, library.splat_record_size()), dtype=torch.uint8),
            torch.empty(shape[:2], dtype=torch.int64),
            torch.empty((*shape[:2], plane), dtype=torch.float32),
            torch.empty((*shape[:2], plane), dtype=torch.int32),
        ]
        images = torch.empty((scenes, views, 3, cameras.height, cameras.width), dtype=torch.float32)
        ctx.options = (cameras.height, cameras.width, cameras.near, antialiasing, kernels)
        batch = _batch(inputs, state, *ctx.options)
        _check(library.splat_forward(ctypes.byref(batch), images.data_ptr()))
        ctx.save_for_backward(*inputs, *state)
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_images: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        inputs, state = saved[:7], saved[7:]
        scenes, views = inputs[5].shape[:2]
        by_images = by_images.contiguous()
        gradients = [torch.empty_like(tensor) for tensor in inputs[:5]]
        by_background = torch.empty((scenes, views, 3), dtype=torch.float32)
        batch = _batch(inputs, state, *ctx.options)
        pointers = [tensor.data_ptr() for tensor in (by_images, *gradients, by_background)]
        _check(load_library().splat_backward(ctypes.byref(batch), *pointers))
        return *gradients, by_background.sum(dim=1), None, None, None, None


def _batch(
    inputs: Sequence[Tensor],
    state: Sequence[Tensor],
    height: int,
    width: int,
    near: float,
    antialiasing: bool,
    kernels: int,
) -> Batch:
    """The kernels' view of the tensors, which must stay alive while it is used."""
    scenes, views = inputs[5].shape[:2]
    gaussians, coefficients = inputs[4].shape[1:3]
    threads = torch.get_num_threads()
    numbers = (scenes, views, gaussians, coefficients, height, width, antialiasing, threads, kernels, near)
    return Batch(*numbers, *(tensor.data_ptr() for tensor in (*inputs, *state)))


def _check(status: int) -> None:
    if status == _STATUS_OUT_OF_MEMORY:
        raise MemoryError("the CPU rasteriser ran out of memory")
