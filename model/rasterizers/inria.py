"""diff-gaussian-rasterization, the CUDA rasteriser of 3D Gaussian Splatting (Kerbl et al. 2023).

Works with both generations of the package: the older returns (image, radii); the newer, whose settings have a field
`antialiasing`, (image, radii, inverse depth).  The package draws one scene from one camera per call.  Camera
settings are computed on the host for all scenes and views at once, from one copy; the package itself
synchronises once per view.

Its limitations are worked around exactly:
- its near plane is fixed, so the scene is scaled until `cameras.near` falls on it; pictures do not change;
- any principal point is expressed through the clip-space matrix;
- it has no gradient for the background.  Where one is needed, the image is drawn over black, and the background is
  added, weighted by a second image of black Gaussians over white.

It differs from `reference`:
- it omits 16 px tiles beyond 3 standard deviations of a Gaussian;
- it evaluates the derivative of antialiasing's factor at the dilated covariance, so these gradients are not exact;
- it uses float32 throughout, so Gaussians at almost equal depths may be drawn in another order.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from model.rasterizers import NEAR_PLANE, packages
from model.rasterizers.backend import Capabilities
from model.rasterizers.compat import GaussianRasterizationSettings
from model.types import Cameras, Gaussians

PACKAGE = "diff_gaussian_rasterization"
#: Branch `dr_aa`, the newer generation; `docker/cuda.Dockerfile` installs the same.
COMMIT = "9c5c2028f6fbee2be239bc4c9421ff894fe4fbe0"
INSTALLATION = (
    "Install the newer generation from its source, with a CUDA compiler of torch's CUDA version: NVCC_PREPEND_FLAGS="
    "'-include cstdint' pip install --no-build-isolation "
    f"git+https://github.com/graphdeco-inria/diff-gaussian-rasterization@{COMMIT} (its licence is for research only)."
)


def is_available() -> bool:
    """Whether the package is installed and there is a GPU."""
    return packages.is_usable(PACKAGE)


def capabilities() -> Capabilities:
    """Capabilities of the installed generation.

    Raises `BackendUnavailableError` where the package is absent, or a fork that this adapter does not know.
    """
    fields = set(packages.load(PACKAGE, "inria", INSTALLATION).GaussianRasterizationSettings._fields)
    known = set(GaussianRasterizationSettings._fields)
    if fields | {"antialiasing"} != known:
        strange = ", ".join(sorted(fields ^ known))
        raise packages.BackendUnavailableError(
            f"the installed {PACKAGE} is neither generation of the original: its settings differ by {strange}. "
            + INSTALLATION
        )
    is_newer = "antialiasing" in fields
    return Capabilities(
        devices=("cuda",),
        antialiasing=is_newer,
        inverse_depth=is_newer,
        generation="newer generation" if is_newer else "older generation",
    )


def render(
    gaussians: Gaussians, cameras: Cameras, background: Tensor, antialiasing: bool, return_depth: bool
) -> tuple[Tensor, Tensor | None]:
    """See `model.rasterizers.Backend`.

    Raises `BackendUnavailableError` where the package is absent, or its generation lacks a requested feature, and
    ValueError for tensors that are not on a GPU.
    """
    package = packages.load(PACKAGE, "inria", INSTALLATION)
    packages.require_gpu(package, "inria", gaussians)
    can = capabilities()
    for wish in can.lacks(antialiasing, return_depth):
        raise packages.BackendUnavailableError(
            f"the installed {PACKAGE} is of the {can.generation}, which has no {wish}. {INSTALLATION}"
        )
    scenes, views = cameras.focal.shape[:2]
    if 0 in (scenes, views, gaussians.means.shape[1]):  # without Gaussians the package returns a black image
        return packages.draw_nothing(gaussians, cameras, background, return_depth)

    zoom = NEAR_PLANE / cameras.near
    settings = _settings(package, cameras, zoom, math.isqrt(gaussians.sh.shape[2]) - 1, antialiasing, background)
    subjects = _subjects(gaussians, zoom)
    rasterizer = package.GaussianRasterizer(settings[0])  # one for all: making a module takes longer than its call
    pictures = [
        _draw_one(rasterizer, settings[b * views + v], subjects[b], background[b].float())
        for b in range(scenes)
        for v in range(views)
    ]
    images = torch.stack([image for image, *_ in pictures]).unflatten(0, (scenes, views)).to(gaussians.means.dtype)
    if not return_depth:
        return images, None
    inverse_depths = torch.stack([zoom * depth for _, depth in pictures]).unflatten(0, (scenes, views))
    return images, inverse_depths.to(gaussians.means.dtype)


def _subjects(gaussians: Gaussians, zoom: float) -> list[dict[str, Tensor]]:
    """The package's arguments about each scene, in a world scaled by `zoom`.

    Scenes are split once for all views, so that the gradient of the batch is assembled once.
    """
    means = gaussians.means.float() * zoom
    batch = {
        "means3D": means,
        "means2D": torch.zeros_like(means),  # only there to receive a gradient
        "opacities": gaussians.opacities.float(),
        "scales": gaussians.scales.float() * zoom,
        "rotations": gaussians.rotations.float(),
        "shs": gaussians.sh.float(),
    }
    return [
        dict(zip(batch, tensors, strict=True)) for tensors in zip(*(t.unbind(0) for t in batch.values()), strict=True)
    ]


def _draw_one(rasterizer: Any, settings: Any, subject: dict[str, Tensor], background: Tensor) -> tuple[Tensor, ...]:
    """The image (3, H, W), and in the newer generation the inverse depth (1, H, W), of one scene from one camera.

    The inverse depth is that of the scaled world.  `settings` have a black background.
    """
    if not background.requires_grad:
        rasterizer.raster_settings = settings._replace(bg=background)
        image, _radii, *inverse_depth = rasterizer(**subject)
        return image, *inverse_depth
    rasterizer.raster_settings = settings
    image, _radii, *inverse_depth = rasterizer(**subject)
    black = {name: tensor for name, tensor in subject.items() if name != "shs"}
    black["colors_precomp"] = torch.zeros_like(subject["means3D"])
    rasterizer.raster_settings = settings._replace(bg=torch.ones_like(background))
    light, *_ = rasterizer(**black)
    return image + light * background[:, None, None], *inverse_depth


def _settings(
    package: ModuleType, cameras: Cameras, zoom: float, degree: int, antialiasing: bool, background: Tensor
) -> list[Any]:
    """The package's settings for B x V cameras in a row, over black, in a world scaled by `zoom`.

    Everything is computed in float64 on the host, and goes to the device of `background` in one copy.
    """
    cameras = _on_host(cameras)
    size = cameras.focal.new_tensor([cameras.width, cameras.height])
    view = cameras.world_to_camera.clone()
    view[..., :3, 3] *= zoom
    clip = torch.zeros_like(view)  # camera -> clip space; with w = z, x / w and y / w run from -1 to 1
    clip[..., :2, :2] = torch.diag_embed(2 * cameras.focal / size)
    clip[..., :2, 2] = 2 * cameras.principal / size - 1
    clip[..., 2:, 2] = 1
    centres = -torch.linalg.solve(view[..., :3, :3], view[..., :3, 3:]).squeeze(-1)
    packed = torch.cat([view.mT.flatten(2), (clip @ view).mT.flatten(2), centres], dim=-1).flatten(0, 1)
    packed = packed.float().to(background.device, non_blocking=True)
    tangents = (size / (2 * cameras.focal)).flatten(0, 1).tolist()
    shared = {
        "image_height": cameras.height,
        "image_width": cameras.width,
        "bg": torch.zeros_like(background[0], dtype=torch.float32, requires_grad=False),
        "scale_modifier": 1.0,
        "sh_degree": degree,
        "prefiltered": False,
        "debug": False,
    }
    if "antialiasing" in package.GaussianRasterizationSettings._fields:
        shared["antialiasing"] = antialiasing
    matrices = packed[:, :32].unflatten(1, (2, 4, 4)).unbind(0)
    return [
        package.GaussianRasterizationSettings(
            tanfovx=x, tanfovy=y, viewmatrix=view, projmatrix=projection, campos=centre, **shared
        )
        for (x, y), (view, projection), centre in zip(tangents, matrices, packed[:, 32:].unbind(0), strict=True)
    ]


def _on_host(cameras: Cameras) -> Cameras:
    """The cameras in float64 on the host, by a single copy from their device."""
    parts = (cameras.world_to_camera.flatten(2), cameras.focal, cameras.principal)
    packed = torch.cat([part.double() for part in parts], dim=-1).detach().cpu()
    matrices, focal, principal = packed.split([16, 2, 2], dim=-1)
    return Cameras(matrices.unflatten(-1, (4, 4)), focal, principal, cameras.height, cameras.width, cameras.near)
