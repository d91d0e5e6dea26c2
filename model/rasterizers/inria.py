"""Backend `inria`: diff-gaussian-rasterization, the CUDA rasteriser of 3D Gaussian Splatting (Kerbl et al. 2023).

Works with both generations of the package: the older returns (image, radii); the newer, whose settings have a field
`antialiasing`, (image, radii, inverse depth).  The package draws one scene from one camera a call.

What it cannot do is brought to a form that it can, exactly:
- its near plane is fixed, so the scene is scaled until `cameras.near` falls on it; pictures do not change;
- its projection takes any principal point, through the clip-space matrix;
- it has no gradient for the background.  Where one is asked for, the picture is drawn over black, and the background
  added where a second drawing, of black Gaussians over white, lets it through.

It differs from `reference` in leaving out 16 px tiles beyond 3 standard deviations of a Gaussian, and in float32
throughout, so Gaussians at almost equal depths may be drawn in another order.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from model.rasterizers import packages
from model.rasterizers.compat import NEAR, GaussianRasterizationSettings
from model.rasterizers.reference import select
from model.types import Cameras, Gaussians

PACKAGE = "diff_gaussian_rasterization"
_INSTALLATION = (
    "Install it from its source, with a CUDA compiler: pip install --no-build-isolation "
    "git+https://github.com/graphdeco-inria/diff-gaussian-rasterization (its licence is for research only)."
)


def is_available() -> bool:
    """Whether the package is installed and there is a GPU."""
    return packages.is_usable(PACKAGE)


def render(
    gaussians: Gaussians, cameras: Cameras, background: Tensor, antialiasing: bool, return_depth: bool
) -> tuple[Tensor, Tensor | None]:
    """See `model.rasterizers.Backend`.

    Raises `BackendUnavailableError` where the package is absent, or of a generation that lacks what is asked for, and
    ValueError for tensors that are not on a GPU.
    """
    package = packages.load(PACKAGE, "inria", _INSTALLATION)
    packages.require_gpu(package, "inria", gaussians)
    _check_generation(package, antialiasing, return_depth)
    scenes, views = cameras.focal.shape[:2]
    if 0 in (scenes, views, gaussians.means.shape[1]):  # of no Gaussians the package makes a black picture
        return packages.draw_nothing(gaussians, cameras, background, return_depth)

    pictures = [
        _draw_one(package, select(gaussians, b), select(cameras, b, v), background[b], antialiasing)
        for b in range(scenes)
        for v in range(views)
    ]
    shape = (scenes, views, -1, cameras.height, cameras.width)
    images = torch.stack([image for image, *_ in pictures]).reshape(shape).to(gaussians.means.dtype)
    if not return_depth:
        return images, None
    return images, torch.stack([depth for _, depth in pictures]).reshape(shape).to(gaussians.means.dtype)


def _check_generation(package: ModuleType, antialiasing: bool, return_depth: bool) -> None:
    """Whether the installed package is one that this adapter knows, and can do what is asked of it."""
    fields, known = set(package.GaussianRasterizationSettings._fields), set(GaussianRasterizationSettings._fields)
    if fields | {"antialiasing"} != known:
        strange = ", ".join(sorted(fields ^ known))
        raise packages.BackendUnavailableError(
            f"the installed {PACKAGE} is neither generation of the original: its settings differ by {strange}. "
            + _INSTALLATION
        )
    if "antialiasing" not in fields and (antialiasing or return_depth):
        wish = "antialiasing" if antialiasing else "inverse depth"
        raise packages.BackendUnavailableError(
            f"the installed {PACKAGE} is of the older generation, which has no {wish}. {_INSTALLATION}"
        )


def _draw_one(
    package: ModuleType, gaussians: Gaussians, camera: Cameras, background: Tensor, antialiasing: bool
) -> tuple[Tensor, ...]:
    """The image (3, H, W), and in the newer generation the inverse depth (1, H, W), of one scene from one camera.

    The tensors lack their (B,) and (B, V) dimensions.
    """
    zoom = NEAR / camera.near
    degree = math.isqrt(gaussians.sh.shape[1]) - 1
    settings = _settings(package, camera.to(torch.float64), zoom, degree, antialiasing)
    means = gaussians.means.float() * zoom
    arguments = {
        "means3D": means,
        "means2D": torch.zeros_like(means),  # only there to receive a gradient
        "opacities": gaussians.opacities.float(),
        "scales": gaussians.scales.float() * zoom,
        "rotations": gaussians.rotations.float(),
    }

    def draw(behind: Tensor, **colours: Tensor) -> tuple[Tensor, ...]:
        rasterizer = package.GaussianRasterizer(settings._replace(bg=behind))
        image, _radii, *inverse_depth = rasterizer(**arguments, **colours)
        return image, *(map_ * zoom for map_ in inverse_depth)

    background, sh = background.float(), gaussians.sh.float()
    if not background.requires_grad:
        return draw(background, shs=sh)
    image, *inverse_depth = draw(torch.zeros_like(background), shs=sh)
    light, *_ = draw(torch.ones_like(background), colors_precomp=torch.zeros_like(means))
    return image + light * background[:, None, None], *inverse_depth


def _settings(package: ModuleType, camera: Cameras, zoom: float, degree: int, antialiasing: bool) -> Any:
    """The package's settings with a black background, for a camera in float64 and a world scaled by `zoom`."""
    size = camera.focal.new_tensor([camera.width, camera.height])
    view = camera.world_to_camera.clone()
    view[:3, 3] *= zoom
    clip = camera.focal.new_zeros(4, 4)  # camera -> clip space; with w = z, x / w and y / w run from -1 to 1
    clip[0, 0], clip[1, 1] = 2 * camera.focal / size
    clip[:2, 2] = 2 * camera.principal / size - 1
    clip[2, 2] = clip[3, 2] = 1
    half_fields = (size / (2 * camera.focal)).tolist()
    values = {
        "image_height": camera.height,
        "image_width": camera.width,
        "tanfovx": half_fields[0],
        "tanfovy": half_fields[1],
        "bg": camera.focal.new_zeros(3).float(),
        "scale_modifier": 1.0,
        "viewmatrix": view.T.float().contiguous(),
        "projmatrix": (clip @ view).T.float().contiguous(),
        "sh_degree": degree,
        "campos": -torch.linalg.solve(view[:3, :3], view[:3, 3]).float(),
        "prefiltered": False,
        "debug": False,
    }
    if "antialiasing" in package.GaussianRasterizationSettings._fields:
        values["antialiasing"] = antialiasing
    return package.GaussianRasterizationSettings(**values)
