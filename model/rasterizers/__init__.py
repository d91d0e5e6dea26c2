"""Gaussians and cameras -> images.  One file per backend, one line here.

A backend is a class without arguments whose instances are called with checked inputs; see `Rasterizer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from model.registry import resolve

if TYPE_CHECKING:
    from torch import Tensor

    from model.types import Cameras, Gaussians

BACKENDS: dict[str, str] = {
    "cpu": "model.rasterizers.cpu:CpuRasterizer",
    "reference": "model.rasterizers.reference:ReferenceRasterizer",
}


class Rasterizer(Protocol):
    """What a backend promises: images with gradients, from inputs that `validate` has passed."""

    def __call__(self, gaussians: Gaussians, cameras: Cameras, background: Tensor, antialiasing: bool) -> Tensor:
        """Images (B, V, 3, H, W) for a background (B, 3), in the dtype and on the device of `gaussians`."""
        ...


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor,
    backend: str = "auto",
    antialiasing: bool = False,
) -> Tensor:
    """Draw every scene from each of its cameras.

    Computes what diff-gaussian-rasterization computes, for any focal length and principal point, with the support
    of a Gaussian being exactly the pixels where its alpha reaches 1/255; `model/rasterizers/reference.py` is the
    definition.  Gradients flow to all five tensors of `gaussians` and to `background`; cameras are constants.

    Args:
        gaussians: B scenes of N Gaussians; N may be 0.  Quaternions are used as given, not normalised.  Scales may
            be 0 (a point, widened like all to at least 0.55 pixels); their sign has no effect.
        cameras: B x V cameras.  Gaussians at camera z <= `cameras.near` are not drawn.
        background: (B, 3) or (3,) RGB behind everything.
        backend: a name from `BACKENDS`, or "auto".
        antialiasing: scale opacities by the loss of area in the 0.3 px dilation, as newer versions of
            diff-gaussian-rasterization can.

    Returns:
        (B, V, 3, H, W) RGB, not clamped, in the dtype and on the device of `gaussians`.

    Raises:
        ValueError: an argument has a wrong shape, dtype or device, or holds NaN or infinity, or an opacity lies
            outside [0, 1]; the message names it.
        UnknownChoiceError: no such backend.
    """
    from model.rasterizers.validation import validate

    rasterizer: Rasterizer = resolve({"auto": BACKENDS["cpu"], **BACKENDS}, backend, "rasterizer backend")()
    return rasterizer(gaussians, cameras, validate(gaussians, cameras, background), antialiasing)
