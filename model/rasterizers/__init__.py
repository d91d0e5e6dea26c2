"""Gaussians and cameras -> images.  One file per backend, one line here.

A backend's module imports without heavy packages and offers three functions:
- `is_available() -> bool`: whether this machine can run it; cheap, imports none of its dependencies;
- `capabilities() -> Capabilities`: features of the installed version, with or without a GPU; raises
  `BackendUnavailableError` with the remedy where no usable version is installed;
- the drawing function, see `Backend`.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Protocol, overload

from model.registry import resolve

if TYPE_CHECKING:
    from torch import Tensor

    from model.rasterizers.backend import Capabilities
    from model.types import Cameras, Gaussians

BACKENDS: dict[str, str] = {
    "cpu": "model.rasterizers.cpu:render",
    "gsplat": "model.rasterizers.gsplat:render",
    "inria": "model.rasterizers.inria:render",
    "reference": "model.rasterizers.reference:render",
    "triton": "model.rasterizers.triton:render",
}

#: Camera z up to which Gaussians are not drawn, scene units; that of diff-gaussian-rasterization.
NEAR_PLANE = 0.2

#: Backends that check values while drawing; for others `render` checks them before.
_REFUSE_BY_THEMSELVES = ("cpu",)
#: Candidates of "auto" for tensors on a GPU, best first; `triton` precedes them on the cards that it was tested on.
CUDA_BACKENDS = ("gsplat", "inria", "triton")
#: Compute capabilities of the cards on which the tests of `triton` have passed, where it is the fastest.
TRITON_TESTED = ((9, 0),)


class Backend(Protocol):
    """Interface of backends: images with gradients, from inputs that have passed `validate`."""

    def __call__(
        self, gaussians: Gaussians, cameras: Cameras, background: Tensor, antialiasing: bool, return_depth: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Images (B, V, 3, H, W), and inverse depths (B, V, 1, H, W) if requested, else None.

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
        backend: a name from `BACKENDS`; or "auto": for tensors on a GPU the first of `CUDA_BACKENDS` that is
            installed and supports the arguments, for others cpu.
        antialiasing: scale opacities by the loss of area in the 0.3 px dilation, as newer versions of
            diff-gaussian-rasterization can.
        return_depth: also return the inverse depth, composited like a colour over a background of 0, as newer
            versions of diff-gaussian-rasterization do: the sum over Gaussians of alpha * transmittance / camera z.

    Returns:
        (B, V, 3, H, W) RGB, not clamped, in the dtype and on the device of `gaussians`; with `return_depth` a pair
        of it and the inverse depth (B, V, 1, H, W) in 1/scene units.

    Raises:
        ValueError: an argument has a wrong shape, dtype or device, or holds NaN or infinity
            (`validation.NonFiniteGaussiansError` where it is the Gaussians), or an opacity lies outside [0, 1]; the
            message names it.  Values on a GPU are not checked, because the host would have to wait for them: the CUDA
            packages do not draw Gaussians that are not finite.
        UnknownChoiceError: no such backend.
        BackendUnavailableError: the backend's package is not installed, or does not support the arguments; with "auto",
            no backend for a GPU is installed and supports them.
    """
    from model.precision import full_precision
    from model.rasterizers.validation import validate

    name = choose(backend, gaussians.means.device.type, antialiasing=antialiasing, inverse_depth=return_depth)
    draw: Backend = resolve({**BACKENDS, "auto": BACKENDS["cpu"]}, name, "rasterizer backend")
    stays_on_gpu = gaussians.means.is_cuda and name in CUDA_BACKENDS
    values = not stays_on_gpu and name not in _REFUSE_BY_THEMSELVES
    background = validate(gaussians, cameras, background, values=values)
    with full_precision(gaussians.means.device):
        images, inverse_depths = draw(gaussians, cameras, background, antialiasing, return_depth)
    return images if inverse_depths is None else (images, inverse_depths)


def is_available(backend: str) -> bool:
    """Whether this machine can run one of `BACKENDS`."""
    return bool(_module(backend).is_available())


def capabilities(backend: str) -> Capabilities:
    """Capabilities of the installed version of one of `BACKENDS`; imports its package.

    Raises `BackendUnavailableError` with the remedy where no usable version is installed.
    """
    found: Capabilities = _module(backend).capabilities()
    return found


def choose(backend: str, device: str, *, antialiasing: bool = False, inverse_depth: bool = False) -> str:
    """The backend that draws tensors on a kind of device ("cpu", "cuda"); resolves "auto", returns others unchanged.

    Raises `BackendUnavailableError` where "auto" finds no backend for a GPU that supports the arguments.
    """
    from model.rasterizers.packages import BackendUnavailableError

    if backend != "auto":
        return backend
    if device != "cuda":
        return "cpu"
    for name in cuda_backends():
        if is_available(name) and why_not(name, device, antialiasing=antialiasing, inverse_depth=inverse_depth) is None:
            return name
    reason = why_not(backend, device, antialiasing=antialiasing, inverse_depth=inverse_depth)
    raise BackendUnavailableError(reason or "there is no GPU for the installed rasterisers")


def cuda_backends() -> tuple[str, ...]:
    """The candidates of "auto" for the GPU of this machine, best first."""
    import torch

    tested = torch.cuda.is_available() and torch.cuda.get_device_capability() in TRITON_TESTED
    return tuple(sorted(CUDA_BACKENDS, key=lambda name: tested and name != "triton"))


def why_not(backend: str, device: str, *, antialiasing: bool = False, inverse_depth: bool = False) -> str | None:
    """The reason why installed backends cannot draw tensors on a kind of device, with the remedy; None where one can.

    Checks packages, not for a GPU, which the planning machine may lack.  `backend` is one of `BACKENDS`, or "auto".
    """
    from model.rasterizers.packages import BackendUnavailableError

    wishes = {"antialiasing": antialiasing, "inverse_depth": inverse_depth}
    if backend == "auto" and device == "cuda":
        reasons = [why_not(name, device, **wishes) for name in CUDA_BACKENDS]
        if None in reasons:
            return None
        listed = "".join(f"\n  {reason}" for reason in reasons)
        return f"no installed rasteriser supports this on a GPU; the backend 'cpu' draws it on the host.{listed}"
    name = "cpu" if backend == "auto" else backend
    try:
        can = capabilities(name)
    except BackendUnavailableError as error:
        return str(error)
    if device not in can.devices:
        return f"the backend {name!r} draws tensors on {' and '.join(can.devices)} only, not on {device}."
    lacking = can.lacks(antialiasing, inverse_depth)
    if lacking:
        return (
            f"the backend {name!r} ({can.generation}) has no {' and no '.join(lacking)}. {_module(name).INSTALLATION}"
        )
    return None


def _module(backend: str) -> ModuleType:
    return importlib.import_module(BACKENDS[backend].partition(":")[0])
