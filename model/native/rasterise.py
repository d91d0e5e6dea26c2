"""Entry point of the compiled rasteriser: `rasterise(...)`, one autograd function for a whole batch.

Arithmetic is float32 on the image and float64 in the geometry.  Torch's own threads (`torch.get_num_threads()`)
process scenes, or the views, Gaussians and bands of rows of one scene, in parallel; results are bitwise equal for any
number of threads.  A long call ends early when a signal handler raises, as for Ctrl-C.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.native.library import (
    STATUS_REFUSED,
    Batch,
    check,
    gomp_parallel,
    interpreter,
    load_library,
    rasteriser_kernels,
)
from model.types import Cameras, Gaussians


class RefusedError(ValueError):
    """An input is not finite in float32, or outside its range."""


class _Options(NamedTuple):
    """Arguments of a call besides tensors and cameras."""

    antialiasing: bool
    depth: bool
    any_opacity: bool
    kernels: int
    seconds: int | None  # address of `len(STAGES)` doubles, to which the time spent is added


def rasterise(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor,
    *,
    antialiasing: bool = False,
    return_depth: bool = False,
    any_opacity: bool = False,
    kernels: str | None = None,
    seconds: ctypes.Array[ctypes.c_double] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Images (B, V, 3, H, W) and inverse depths (B, V, 1, H, W) or None, in float32 on the CPU.

    Accepts tensors of any device and dtype, background (B, 3).  Raises `RefusedError` for values that are not finite in
    float32 or, unless `any_opacity`, opacities outside [0, 1]; and `KernelsMissingError`.

    `kernels` names the variant to use, one of `rasteriser_kernels()`; by default the fastest.  To `seconds`, which must
    outlive the graph, the calling thread adds the time it spends in each of `library.STAGES`.
    """
    available = rasteriser_kernels()
    if kernels is not None and kernels not in available:
        raise ValueError(f"kernels must be one of {', '.join(available)} on this processor, got {kernels!r}")
    options = _Options(
        antialiasing=antialiasing,
        depth=return_depth,
        any_opacity=any_opacity,
        kernels=0 if kernels is None else available.index(kernels),
        seconds=None if seconds is None else ctypes.addressof(seconds),
    )
    inputs = (gaussians.means, gaussians.scales, gaussians.rotations, gaussians.opacities, gaussians.sh, background)
    on_host = [tensor.to("cpu", torch.float32) for tensor in inputs]
    images, inverse_depths = _Rasterise.apply(*on_host, cameras, options)
    return images, inverse_depths


class _Rasterise(torch.autograd.Function):
    """Keeps all state between forward and backward in tensors of the graph, so calls may overlap and repeat."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        scales: Tensor,
        rotations: Tensor,
        opacities: Tensor,
        sh: Tensor,
        background: Tensor,
        cameras: Cameras,
        options: _Options,
    ) -> tuple[Tensor, Tensor | None]:
        library = load_library()
        inputs = [tensor.contiguous() for tensor in (means, scales, rotations, opacities, sh, background)]
        batch = Batch(
            scenes=means.shape[0],
            views=cameras.focal.shape[1],
            gaussians=means.shape[1],
            coefficients=sh.shape[2],
            height=cameras.height,
            width=cameras.width,
            near_plane=cameras.near,
            antialiasing=options.antialiasing,
            any_opacity=options.any_opacity,
            kernels=options.kernels,
            parallel=gomp_parallel(),
            interpreter=interpreter(),
            seconds=options.seconds,
        )
        # Created like the means: torch's defaults may be another dtype and device.
        images = means.new_empty((batch.scenes, batch.views, 3, batch.height, batch.width))
        inverse_depths = means.new_empty((batch.scenes, batch.views, 1, *images.shape[3:])) if options.depth else None
        state = means.new_empty(library.rasteriser_state_size(batch), dtype=torch.uint8)
        on_host = [
            tensor.to("cpu", torch.float64).contiguous()
            for tensor in (cameras.world_to_camera, cameras.focal, cameras.principal)
        ]
        batch.world_to_camera, batch.focal, batch.principal = map(_pointer, on_host)
        _point(batch, inputs, state)
        status = library.rasteriser_forward(batch, _pointer(images), _pointer(inverse_depths))
        if status == STATUS_REFUSED:
            raise RefusedError("an input of the rasteriser is not finite, or out of its range")
        check(status)
        ctx.batch = batch
        ctx.save_for_backward(*inputs, state)
        ctx.set_materialize_grads(False)
        return images, inverse_depths

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_images: Tensor | None, grad_inverse_depths: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, state = ctx.saved_tensors
        batch = ctx.batch
        if grad_images is None:
            grad_images = inputs[0].new_zeros((batch.scenes, batch.views, 3, batch.height, batch.width))
        given = [grad_images.contiguous(), None if grad_inverse_depths is None else grad_inverse_depths.contiguous()]
        gradients: list[Tensor | None] = [torch.empty_like(tensor) for tensor in inputs[:5]]
        gradients.append(torch.empty_like(inputs[5]) if ctx.needs_input_grad[5] else None)
        _point(batch, inputs, state)
        check(load_library().rasteriser_backward(batch, *map(_pointer, (*given, *gradients))))
        return *gradients, None, None


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _point(batch: Batch, inputs: Sequence[Tensor], state: Tensor) -> None:
    """Sets a batch's pointers to the tensors, which must outlive its use, and its number of threads."""
    batch.means, batch.scales, batch.rotations, batch.opacities, batch.sh, batch.background = map(_pointer, inputs)
    batch.state = state.data_ptr()
    batch.threads = torch.get_num_threads()
