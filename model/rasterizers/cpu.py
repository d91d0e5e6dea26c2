"""Our own rasteriser for processors: one call of the C++ kernels for a whole batch, as one autograd function.

Arithmetic is float32 on the image and float64 in the geometry.  Threads (`torch.get_num_threads()` of torch's own)
share out scenes, or the views, Gaussians and bands of rows of one scene; results are the same to the last bit for any
number of threads.  A long call ends early when a signal's handler raises, as Ctrl-C does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.ops.native import parallel
from model.rasterizers.backend import Capabilities
from model.rasterizers.native import Batch, KernelsMissingError, available_kernels, interpreter, load_library
from model.rasterizers.packages import BackendUnavailableError
from model.rasterizers.validation import check_values
from model.types import Cameras, Gaussians

_STATUS_OUT_OF_MEMORY, _STATUS_REFUSED = 1, 3  # `splat::Status` of csrc/team.hpp


class _Options(NamedTuple):
    """What a call needs besides tensors and cameras."""

    antialiasing: bool
    depth: bool
    any_opacity: bool
    kernels: int
    seconds: int | None  # address of `len(STAGES)` doubles, to which the time spent is added


def is_available() -> bool:
    """Whether the kernels are built."""
    try:
        load_library()
    except KernelsMissingError:
        return False
    return True


def capabilities() -> Capabilities:
    """Everything.  Raises `BackendUnavailableError` where the kernels are not built."""
    try:
        load_library()
    except KernelsMissingError as error:
        raise BackendUnavailableError(str(error)) from error
    return Capabilities(devices=("cpu", "cuda"), batched=True)


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor,
    antialiasing: bool,
    return_depth: bool,
    any_opacity: bool = False,
    kernels: str | None = None,
    seconds: ctypes.Array[ctypes.c_double] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Backend `cpu`; see `model.rasterizers.Backend`.  Takes tensors of any device and dtype; computes on the host.

    Values are looked at here, while they are drawn: what is not finite in float32, or out of its range, raises the
    ValueError of `validation.check_values`.  With `any_opacity`, opacities need not lie in [0, 1].

    `kernels` names the variant to use, one of `available_kernels()`; by default the fastest.  To `seconds`, which must
    outlive the graph, the calling thread adds what it spends in each of `native.STAGES`.
    """
    available = available_kernels()
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
    images, inverse_depths = _Rasterize.apply(*on_host, cameras, options)
    return images.to(gaussians.means), None if inverse_depths is None else inverse_depths.to(gaussians.means)


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
            parallel=parallel(),
            interpreter=ctypes.addressof(interpreter()),
            seconds=options.seconds,
        )
        images = torch.empty((batch.scenes, batch.views, 3, batch.height, batch.width))
        inverse_depths = torch.empty((batch.scenes, batch.views, 1, *images.shape[3:])) if options.depth else None
        state = torch.empty(library.splat_state_size(batch), dtype=torch.uint8)
        on_host = [
            tensor.to("cpu", torch.float64).contiguous()
            for tensor in (cameras.world_to_camera, cameras.focal, cameras.principal)
        ]
        batch.world_to_camera, batch.focal, batch.principal = map(_pointer, on_host)
        _point(batch, inputs, state)
        status = library.splat_forward(batch, _pointer(images), _pointer(inverse_depths))
        if status == _STATUS_REFUSED:
            _refuse(inputs, cameras, options.any_opacity)
        _check(status)
        ctx.batch = batch
        ctx.save_for_backward(*inputs, state)
        ctx.set_materialize_grads(False)
        return images, inverse_depths

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_images: Tensor | None, by_inverse_depths: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, state = ctx.saved_tensors
        batch = ctx.batch
        if by_images is None:
            by_images = torch.zeros((batch.scenes, batch.views, 3, batch.height, batch.width))
        given = [by_images.contiguous(), None if by_inverse_depths is None else by_inverse_depths.contiguous()]
        gradients: list[Tensor | None] = [torch.empty_like(tensor) for tensor in inputs[:5]]
        gradients.append(torch.empty_like(inputs[5]) if ctx.needs_input_grad[5] else None)
        _point(batch, inputs, state)
        _check(load_library().splat_backward(batch, *map(_pointer, (*given, *gradients))))
        return *gradients, None, None


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _point(batch: Batch, inputs: Sequence[Tensor], state: Tensor) -> None:
    """Directs a batch to the tensors, which must stay alive while it is used, and to today's number of threads."""
    batch.means, batch.scales, batch.rotations, batch.opacities, batch.sh, batch.background = map(_pointer, inputs)
    batch.state = state.data_ptr()
    batch.threads = torch.get_num_threads()


def _refuse(inputs: Sequence[Tensor], cameras: Cameras, any_opacity: bool) -> NoReturn:
    """Finds out, and says, why the kernels would not draw."""
    *gaussians, background = inputs
    check_values(Gaussians(*gaussians), cameras.to(torch.float64), background, any_opacity)
    raise ValueError("world_to_camera holds a matrix so nearly singular that its camera has no place")


def _check(status: int) -> None:
    """Raises what a call reports, other than exceptions of signal handlers, which raise by themselves."""
    if status == _STATUS_OUT_OF_MEMORY:
        raise MemoryError("the CPU rasteriser ran out of memory")
