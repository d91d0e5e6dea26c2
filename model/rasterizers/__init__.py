"""Gaussians and cameras -> images.  One file per backend, one line here.

A backend's module imports without heavy packages and offers two functions: `is_available() -> bool`, whether this
machine could run it, told cheaply and without importing what it needs; and a drawing function, see `Backend`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Literal, Protocol, overload

from model.registry import resolve

if TYPE_CHECKING:
    from torch import Tensor

    from model.types import Cameras, Gaussians

BACKENDS: dict[str, str] = {
    "cpu": "model.rasterizers.cpu:render",
    "gsplat": "model.rasterizers.gsplat:render",
    "inria": "model.rasterizers.inria:render",
    "reference": "model.rasterizers.reference:render",
}

#: Backends that look at values while they draw; before the others `render` does it, in passes of its own.
_REFUSE_BY_THEMSELVES = ("cpu",)
#: What "auto" tries for tensors on a GPU before it settles for `cpu`, best first.
_CUDA_BACKENDS = ("inria", "gsplat")


class Backend(Protocol):
    """What a backend promises: images with gradients, from inputs that `validate` has passed."""

    def __call__(
        self, gaussians: Gaussians, cameras: Cameras, background: Tensor, antialiasing: bool, return_depth: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Images (B, V, 3, H, W) and, where asked for, inverse depths (B, V, 1, H, W), else None.

        The background is (B, 3); the results are in the dtype and on the device of `gaussians`.
        """
        ...


@overload
def render(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor,
    backend: str = ...,
    antialiasing: bool = ...,
    return_depth: Literal[False] = ...,
) -> Tensor: ...


@overload
def render(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor,
    backend: str = ...,
    antialiasing: bool = ...,
    *,
    return_depth: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor,
    backend: str = "auto",
    antialiasing: bool = False,
    return_depth: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Draw every scene from each of its cameras.

    Computes what diff-gaussian-rasterization computes, for any focal length and principal point, with the support
    of a Gaussian being exactly the pixels where its alpha reaches 1/255; `model/rasterizers/reference.py` is the
    definition.  Gradients flow to all five tensors of `gaussians` and to `background`; cameras are constants.

    Args:
        gaussians: B scenes of N Gaussians; N may be 0.  Quaternions are used as given, not normalised.  Scales may
            be 0 (a point, widened like all to at least 0.55 pixels); their sign has no effect.
        cameras: B x V cameras.  Gaussians at camera z <= `cameras.near` are not drawn.
        background: (B, 3) or (3,) RGB behind everything.
        backend: a name from `BACKENDS`; or "auto": for tensors on a GPU the first of inria and gsplat that is
            installed, else cpu.
        antialiasing: scale opacities by the loss of area in the 0.3 px dilation, as newer versions of
            diff-gaussian-rasterization can.
        return_depth: also return the inverse depth, composited like a colour over a background of 0, as newer
            versions of diff-gaussian-rasterization do: the sum over Gaussians of alpha * transmittance / camera z.

    Returns:
        (B, V, 3, H, W) RGB, not clamped, in the dtype and on the device of `gaussians`; with `return_depth` a pair
        of it and the inverse depth (B, V, 1, H, W) in 1/scene units.

    Raises:
        ValueError: an argument has a wrong shape, dtype or device, or holds NaN or infinity, or an opacity lies
            outside [0, 1]; the message names it.  Values that stay on a GPU are not looked at, because the host
            would have to wait for them: the CUDA packages do not draw Gaussians that are not finite.
        UnknownChoiceError: no such backend.
        BackendUnavailableError: the backend's package is not installed, or cannot do what is asked.
    """
    from model.rasterizers.validation import validate

    name = _choose(backend, gaussians)
    draw: Backend = resolve({**BACKENDS, "auto": BACKENDS["cpu"]}, name, "rasterizer backend")
    stays_on_gpu = gaussians.means.is_cuda and name in _CUDA_BACKENDS
    values = not stays_on_gpu and name not in _REFUSE_BY_THEMSELVES
    background = validate(gaussians, cameras, background, values=values)
    images, inverse_depths = draw(gaussians, cameras, background, antialiasing, return_depth)
    return images if inverse_depths is None else (images, inverse_depths)


def is_available(backend: str) -> bool:
    """Whether this machine can run one of `BACKENDS`."""
    module = BACKENDS[backend].partition(":")[0]
    return bool(importlib.import_module(module).is_available())


def _choose(backend: str, gaussians: Gaussians) -> str:
    """The backend that "auto" stands for; any other name as it is."""
    if backend != "auto":
        return backend
    candidates = _CUDA_BACKENDS if gaussians.means.is_cuda else ()
    return next((name for name in candidates if name in BACKENDS and is_available(name)), "cpu")
