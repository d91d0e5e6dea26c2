"""Our own rasteriser for processors: one call of the C++ kernels for a whole batch, as one autograd function.

Arithmetic is float32 on the image and float64 in the geometry.  Threads (`torch.get_num_threads()` of them) share out
scenes, or the views, Gaussians and bands of rows of one scene; results are the same to the last bit for any number of
threads.  A long call ends early when a signal's handler raises, as Ctrl-C does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.rasterizers.native import Batch, KernelsMissingError, available_kernels, interpreter, load_library
from model.types import Cameras, Gaussians

_STATUS_OUT_OF_MEMORY = 1


class _Options(NamedTuple):
    """What a call needs besides tensors."""

    height: int
    width: int
    near: float
    antialiasing: bool
    depth: bool
    kernels: int
    seconds: int | None  # address of `len(STAGES)` doubles, to which the time spent is added


def is_available() -> bool:
    """Whether the kernels are built."""
    try:
        load_library()
    except KernelsMissingError:
        return False
    return True


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor,
    antialiasing: bool,
    return_depth: bool,
    kernels: str | None = None,
    seconds: ctypes.Array[ctypes.c_double] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Backend `cpu`; see `model.rasterizers.Backend`.  Takes tensors of any device and dtype; computes on the host.

    `kernels` names the variant to use, one of `available_kernels()`; by default the fastest.  To `seconds`, which must
    outlive the graph, the calling thread adds what it spends in each of `native.STAGES`.
    """
    available = available_kernels()
    if kernels is not None and kernels not in available:
        raise ValueError(f"kernels must be one of {', '.join(available)} on this processor, got {kernels!r}")
    options = _Options(
        height=cameras.height,
        width=cameras.width,
        near=cameras.near,
        antialiasing=antialiasing,
        depth=return_depth,
        kernels=0 if kernels is None else available.index(kernels),
        seconds=None if seconds is None else ctypes.addressof(seconds),
    )
    inputs = (gaussians.means, gaussians.scales, gaussians.rotations, gaussians.opacities, gaussians.sh, background)
    on_host = [tensor.to("cpu", torch.float32) for tensor in inputs]
    images, inverse_depths = _Rasterize.apply(*on_host, _pack(cameras), options)
    return images.to(gaussians.means), None if inverse_depths is None else inverse_depths.to(gaussians.means)


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
        options: _Options,
    ) -> tuple[Tensor, Tensor | None]:
        library = load_library()
        inputs = [t.contiguous() for t in (means, scales, rotations, opacities, sh, packed_cameras, background)]
        renders, size = packed_cameras.shape[:2], (options.height, options.width)
        plane = library.splat_plane_size(*size)
        state = [
            torch.empty((*renders, means.shape[1], library.splat_record_size()), dtype=torch.uint8),
            torch.empty(renders, dtype=torch.int64),
            torch.empty((*renders, plane), dtype=torch.float32),
            torch.empty((*renders, plane), dtype=torch.int32),
        ]
        images = torch.empty((*renders, 3, *size), dtype=torch.float32)
        inverse_depths = torch.empty((*renders, 1, *size), dtype=torch.float32) if options.depth else None
        batch = _batch(inputs, state, options)
        _check(library.splat_forward(ctypes.byref(batch), _pointer(images), _pointer(inverse_depths)))
        ctx.options = options
        ctx.save_for_backward(*inputs, *state)
        ctx.set_materialize_grads(False)
        return images, inverse_depths

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_images: Tensor | None, by_inverse_depths: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, state = ctx.saved_tensors[:7], ctx.saved_tensors[7:]
        if by_images is None:
            by_images = torch.zeros((*inputs[5].shape[:2], 3, ctx.options.height, ctx.options.width))
        given = [by_images.contiguous(), None if by_inverse_depths is None else by_inverse_depths.contiguous()]
        gradients = [torch.empty_like(tensor) for tensor in (*inputs[:5], inputs[6])]
        batch = _batch(inputs, state, ctx.options)
        _check(load_library().splat_backward(ctypes.byref(batch), *map(_pointer, (*given, *gradients))))
        return *gradients, None, None


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _batch(inputs: Sequence[Tensor], state: Sequence[Tensor], options: _Options) -> Batch:
    """The kernels' view of the tensors, which must stay alive while it is used."""
    numbers = (
        *inputs[5].shape[:2],
        *inputs[4].shape[1:3],
        options.height,
        options.width,
        options.antialiasing,
        torch.get_num_threads(),
        options.kernels,
        options.near,
    )
    pointers = (tensor.data_ptr() for tensor in (*inputs, *state))
    return Batch(*numbers, *pointers, ctypes.addressof(interpreter()), options.seconds)


def _check(status: int) -> None:
    """Raises what a call reports, other than exceptions of signal handlers, which raise by themselves."""
    if status == _STATUS_OUT_OF_MEMORY:
        raise MemoryError("the CPU rasteriser ran out of memory")
