"""Arguments of `model.rasterizers.compat`: their types, conversions and checks, by the package's names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor


class GaussianRasterizationSettings(NamedTuple):
    """One camera, and how to draw.  `prefiltered` and `debug` are accepted and have no effect."""

    image_height: int
    image_width: int
    tanfovx: float  # width / (2 * focal length in pixels)
    tanfovy: float
    bg: Tensor  # (3,) RGB
    scale_modifier: float  # multiplies all scales, but not `cov3D_precomp`
    viewmatrix: Tensor  # (4, 4) world -> camera, transposed; OpenCV axes
    projmatrix: Tensor  # (4, 4) world -> clip space, transposed; its third column, the depth buffer's, is not used
    sh_degree: int  # 0 to 3: the bands of `shs` to use
    campos: Tensor  # (3,) centre of projection in the world, from which colours are looked up
    prefiltered: bool
    debug: bool
    antialiasing: bool | None = None  # None: the older generation, which has no such field


@dataclass(frozen=True)
class Inputs:
    """The tensors of a call."""

    means3D: Tensor  # noqa: N815
    means2D: Tensor  # noqa: N815
    opacities: Tensor
    shs: Tensor | None
    colors_precomp: Tensor | None
    scales: Tensor | None
    rotations: Tensor | None
    cov3D_precomp: Tensor | None  # noqa: N815

    def at(self, index: Tensor) -> Inputs:
        """The Gaussians at `index`, in float64."""
        present = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        return replace(self, **{name: tensor[index].double() for name, tensor in present.items()})


def present(tensor: Tensor | None) -> Tensor | None:
    """None for an empty one-dimensional tensor, which means absent in the package's own code."""
    return None if tensor is None or (tensor.ndim == 1 and not tensor.numel()) else tensor


def plain_settings(settings: GaussianRasterizationSettings, like: Tensor) -> GaussianRasterizationSettings:
    """Settings converted to plain numbers and tensors, e.g. from NumPy integers, 32.0 px, a list of colours.

    Raises ValueError, naming the field, for other values.
    """
    whole = {name: _whole(name, getattr(settings, name)) for name in ("image_height", "image_width", "sh_degree")}
    tensors = {}
    for name in ("bg", "viewmatrix", "projmatrix", "campos"):
        value = getattr(settings, name)
        try:
            tensors[name] = value if isinstance(value, Tensor) else torch.as_tensor(value, device=like.device)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{name} must be a tensor or a list of numbers, got {value!r}") from None
    fields = {
        name: getattr(settings, name) for name in GaussianRasterizationSettings._fields if hasattr(settings, name)
    }
    return GaussianRasterizationSettings(**{**fields, **whole, **tensors})


def _whole(name: str, value: Any) -> int:
    """Converts a whole number of any type to int."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None
    if number != value or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return number


def check(inputs: Inputs, settings: GaussianRasterizationSettings) -> None:
    """Raises ValueError, naming the argument by the package's name."""
    _check_alternatives(inputs)
    if not 0 <= settings.sh_degree <= 3:
        raise ValueError(f"sh_degree must be 0, 1, 2 or 3, got {settings.sh_degree!r}")
    for name in ("tanfovx", "tanfovy"):
        if not 0 < getattr(settings, name) < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {getattr(settings, name)}")
    for name, shape in {"bg": (3,), "campos": (3,), "viewmatrix": (4, 4), "projmatrix": (4, 4)}.items():
        _check_tensor(name, getattr(settings, name), shape)
    n, coefficients = len(inputs.means3D), (settings.sh_degree + 1) ** 2
    if inputs.shs is not None and inputs.shs.ndim == 3:
        coefficients = max(coefficients, inputs.shs.shape[1])
    shapes = {
        "means3D": (n, 3),
        "means2D": (n, 3),
        "opacities": (n,) if inputs.opacities.ndim == 1 else (n, 1),
        "shs": (n, coefficients, 3),
        "colors_precomp": (n, 3),
        "scales": (n, 3),
        "rotations": (n, 4),
        "cov3D_precomp": (n, 6),
    }
    for name, shape in shapes.items():
        _check_tensor(name, getattr(inputs, name), shape)


def _check_alternatives(inputs: Inputs) -> None:
    """Checks that colours and shapes are each given exactly once."""
    if (inputs.shs is None) == (inputs.colors_precomp is None):
        raise ValueError(f"give either shs or colors_precomp, got {'neither' if inputs.shs is None else 'both'}")
    given = [name for name in ("scales", "rotations", "cov3D_precomp") if getattr(inputs, name) is not None]
    if given not in (["scales", "rotations"], ["cov3D_precomp"]):
        raise ValueError(f"give either scales and rotations or cov3D_precomp, got {', '.join(given) or 'none of them'}")


def _check_tensor(name: str, tensor: Tensor | None, shape: tuple[int, ...]) -> None:
    if tensor is None:
        return
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be {shape}, got {tuple(tensor.shape)}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} holds values that are NaN or infinite")
