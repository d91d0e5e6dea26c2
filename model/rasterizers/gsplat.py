"""The CUDA rasteriser of nerfstudio (Ye et al. 2024), all scenes and views in one call.

Its conventions are set to ours as far as its interface allows: the near plane, the 0.3 px^2 dilation, antialiasing,
quaternions without normalisation (it normalises them, so it receives covariances instead).  Colours are evaluated
here, since gsplat 1.6 accepts harmonics only if all scenes share them; with 1.5 this avoids a synchronisation.  It
composites depths, not inverse depths, so these are drawn like a colour, by a second call.  It differs from `reference`
(gsplat 1.5) in that

- alpha is cut off at 0.999, in later versions at 0.99, and no gradient passes where it is;
- Gaussians exactly on the near plane are drawn;
- the Jacobian is bounded at 0.3 * tan(fov/2) beyond the image's edges, which is our bound for a centred principal
  point only, and its derivative there is exact;
- antialiasing has no lower bound on the factor;
- everything is float32, so Gaussians at almost equal depths may be drawn in another order.
"""

from __future__ import annotations

import importlib.util
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.constants import constant
from model.rasterizers import packages
from model.rasterizers.backend import Capabilities
from model.rasterizers.reference import DILATION, colours_along
from model.types import Cameras, Gaussians

PACKAGE = "gsplat"
OLDEST = (1, 5)  # earlier versions draw one scene a call
INSTALLATION = "Install it with: pip install 'gsplat>=1.5' (it compiles at first use, with a CUDA compiler)."

_IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)
#: The elements of a rotation matrix, without the identity, as sums of products of its quaternion's elements.
_ROTATION = (
    # rr rx ry rz  xr xx xy xz  yr yx yy yz  zr zx zy zz
    (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -2, 0, 0, 0, 0, -2),
    (0, 0, 0, -2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0, -2),
    (0, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0),
    (0, 0, -2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0),
    (0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, -2, 0, 0, 0, 0, -2, 0, 0, 0, 0, 0),
)


def is_available() -> bool:
    """Whether the package is installed, has kernels or a compiler for them, and there is a GPU."""
    return packages.is_usable(PACKAGE) and _has_kernels()


@cache
def _has_kernels() -> bool:
    """Whether its kernels are compiled, or a CUDA compiler for its first use is here; without, it disables itself."""
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else Path()
    if any(path.suffix in (".so", ".pyd") for path in folder.glob("csrc*")):
        return True
    from torch.utils.cpp_extension import CUDA_HOME

    return CUDA_HOME is not None and ((Path(CUDA_HOME) / "bin" / "nvcc").is_file() or shutil.which("nvcc") is not None)


def capabilities() -> Capabilities:
    """All features.  Raises `BackendUnavailableError` where the package is absent or too old."""
    package = packages.load(PACKAGE, "gsplat", INSTALLATION)
    version = tuple(int(part) for part in package.__version__.split(".")[:2])
    if version < OLDEST:
        raise packages.BackendUnavailableError(f"gsplat {package.__version__} is too old. {INSTALLATION}")
    return Capabilities(devices=("cuda",), generation=package.__version__)


def render(
    gaussians: Gaussians, cameras: Cameras, background: Tensor, antialiasing: bool, return_depth: bool
) -> tuple[Tensor, Tensor | None]:
    """See `model.rasterizers.Backend`.

    Raises `BackendUnavailableError` where the package is absent or too old, and ValueError for tensors that are not
    on a GPU.
    """
    package = packages.load(PACKAGE, "gsplat", INSTALLATION)
    packages.require_gpu(package, "gsplat", gaussians)
    capabilities()  # raises where it is unavailable
    if gaussians.means.is_cuda and not _has_kernels():
        raise packages.BackendUnavailableError(
            f"gsplat {package.__version__} has no compiled kernels, and there is no CUDA compiler here. {INSTALLATION}"
        )
    if 0 in (*cameras.focal.shape[:2], gaussians.means.shape[1]):
        return packages.draw_nothing(gaussians, cameras, background, return_depth)

    shared = _arguments(gaussians, cameras, antialiasing)
    views = cameras.focal.shape[1]
    images, _, _ = package.rasterization(
        colors=_colours(gaussians, cameras),
        backgrounds=background.float()[:, None].expand(-1, views, -1).contiguous(),
        **shared,
    )
    if not return_depth:
        return _channels_first(images, gaussians), None
    inverse_depths, _, _ = package.rasterization(colors=_inverse_depths(gaussians, cameras), **shared)
    return _channels_first(images, gaussians), _channels_first(inverse_depths, gaussians)


def _arguments(gaussians: Gaussians, cameras: Cameras, antialiasing: bool) -> dict[str, Any]:
    """Arguments of `gsplat.rasterization` that both calls share: all but colours and background."""
    cameras = cameras.to(torch.float32)
    intrinsics = torch.diag_embed(torch.cat([cameras.focal, torch.ones_like(cameras.focal[..., :1])], dim=-1))
    intrinsics[..., :2, 2] = cameras.principal  # pixel centres lie at halves there too
    return {
        "means": gaussians.means.float(),
        "quats": gaussians.rotations.float(),
        "scales": gaussians.scales.float(),
        "covars": _covariances(gaussians),
        "opacities": gaussians.opacities.float().squeeze(-1),
        "viewmats": cameras.world_to_camera,
        "Ks": intrinsics,
        "width": cameras.width,
        "height": cameras.height,
        "near_plane": cameras.near,
        "eps2d": DILATION,
        "rasterize_mode": "antialiased" if antialiasing else "classic",
        "packed": False,  # faster if most Gaussians are in every view, as here
    }


def _covariances(gaussians: Gaussians) -> Tensor:
    """Covariances (B, N, 3, 3) in the world frame.

    Rotations are those of `reference.rotation_matrices`, in two launches.
    """
    quaternions = gaussians.rotations.float()
    products = (quaternions.unsqueeze(-1) * quaternions.unsqueeze(-2)).flatten(0, 1).flatten(1)
    rotations = torch.addmm(constant(_IDENTITY, products), products, constant(_ROTATION, products).T)
    axes = rotations.view(*quaternions.shape[:2], 3, 3) * gaussians.scales.float().unsqueeze(-2)
    return axes @ axes.mT


def _colours(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    """(B, V, N, 3) RGB of every Gaussian as seen from every camera."""
    view = cameras.world_to_camera.float()
    # Without the error check, which would synchronise with the device.
    centres, _ = torch.linalg.solve_ex(view[..., :3, :3], -view[..., :3, 3:])
    directions = gaussians.means.float()[:, None] - centres.mT  # (B, V, N, 3)
    return colours_along(gaussians.sh.float()[:, None], directions)


def _inverse_depths(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    """(B, V, N, 1) one over camera z; 1 for Gaussians that are not drawn, whose depth may be 0."""
    row = cameras.world_to_camera[..., 2, :].float()  # (B, V, 4)
    z = torch.einsum("bvi,bni->bvn", row[..., :3], gaussians.means.float()) + row[..., 3:]
    return torch.where(z >= cameras.near, z, 1.0).reciprocal().unsqueeze(-1)


def _channels_first(pictures: Tensor, gaussians: Gaussians) -> Tensor:
    """(B, V, H, W, C) -> (B, V, C, H, W), in the dtype of the Gaussians."""
    return pictures.permute(0, 1, 4, 2, 3).to(gaussians.means.dtype)
