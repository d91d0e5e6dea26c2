"""Our own rasteriser for GPUs, which needs nothing but torch's own CUDA build.

All scenes and views are drawn by a number of launches that does not depend on them, and without the host reading
anything back, so a call can be part of a CUDA graph.  It draws what `reference` defines, in any image size, with the
exact support of a Gaussian (alpha >= 1/255).  The kernels stand in `triton_kernels.py`.

Each tile has room for as many splats as its scene has Gaussians, as long as all these lists take up no more than
`LIST_BYTES`.  Beyond that they are shorter, and the host reads back after each call whether they were long enough, and
repeats the call with longer ones where they were not.  Within `deferred_checks` it does so later.

Gradients are sums by atomic additions, whose order changes from run to run.  Under
`torch.use_deterministic_algorithms(True)` they are sums of integers instead (steps of 2**-34 of the largest gradient of
a pixel), equal to the last bit in every run.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.rasterizers import packages
from model.rasterizers.backend import Capabilities, Check, deferred
from model.rasterizers.reference import ALPHA_MIN, Splats, determinants
from model.types import Cameras, Gaussians

#: Bytes that the lists of all tiles of a call may take up before they are made shorter than a scene.
LIST_BYTES = 512 << 20

PACKAGE = "triton"
INSTALLATION = "It comes with torch's CUDA builds for Linux."
TILE = 8  # side of a tile, pixels: a power of two
_BLOCK = 128  # Gaussians of one program
_SCAN = 1024  # spans that a tile looks at together
_WARPS = 1  # of a tile's program: two pixels a thread, and sums over pixels by shuffles alone
_FIXED_POINT_BITS = 34

#: Shape of a call -> splats that a tile needed, where that was found out.
_needed: dict[tuple[int, int, int], int] = {}


@dataclass(frozen=True)
class _Options:
    """Numbers and switches that projection needs besides tensors."""

    near: float
    height: int
    width: int
    antialiasing: bool


def is_available() -> bool:
    """Whether Triton is installed, and there is a GPU for it or its interpreter is switched on."""
    return importlib.util.find_spec(PACKAGE) is not None and (torch.cuda.is_available() or _is_interpreted())


def capabilities() -> Capabilities:
    """Everything.  Raises `BackendUnavailableError` where Triton is absent."""
    package = packages.load(PACKAGE, "triton", INSTALLATION)
    devices = ("cpu", "cuda") if _is_interpreted() else ("cuda",)
    return Capabilities(devices=devices, capturable=True, generation=package.__version__)


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def render(
    gaussians: Gaussians, cameras: Cameras, background: Tensor, antialiasing: bool, return_depth: bool
) -> tuple[Tensor, Tensor | None]:
    """See `model.rasterizers.Backend`.

    Raises `BackendUnavailableError` where Triton is absent, and ValueError for tensors that are not on a GPU, unless
    Triton's interpreter is switched on.
    """
    package = packages.load(PACKAGE, "triton", INSTALLATION)
    if not _is_interpreted():
        packages.require_gpu(package, "triton", gaussians)
    if 0 in (*cameras.focal.shape[:2], gaussians.means.shape[1]):
        return packages.draw_nothing(gaussians, cameras, background, return_depth)
    packed = torch.cat(
        [
            cameras.world_to_camera[..., :3, :3].flatten(2),
            cameras.world_to_camera[..., :3, 3],
            cameras.focal,
            cameras.principal,
        ],
        dim=-1,
    )
    options = _Options(cameras.near, cameras.height, cameras.width, antialiasing)
    inputs = (gaussians.means, gaussians.scales, gaussians.rotations, gaussians.opacities, gaussians.sh)
    splats, depths, spans = _Project.apply(*(tensor.float() for tensor in inputs), packed, options)
    images = _Composite.apply(splats, depths, spans, background.float(), cameras.height, cameras.width)
    images = images.unflatten(0, cameras.focal.shape[:2]).to(gaussians.means.dtype)
    return images[:, :, :3], images[:, :, 3:] if return_depth else None


def draw(
    splats: Splats, height: int, width: int, background: Tensor, return_depth: bool
) -> tuple[Tensor, Tensor | None]:
    """Draw splats that were projected elsewhere, in any order: (3, H, W) over `background` (3,), and (1, H, W).

    Raises `BackendUnavailableError` where Triton is absent.
    """
    packages.load(PACKAGE, "triton", INSTALLATION)
    xx, xy, yy = splats.covariances.unbind(1)
    inverse = torch.stack([yy, xy, xx], dim=1) / determinants(splats.covariances)[:, None]
    columns = [splats.centres, inverse, splats.opacities[:, None], splats.colours, 1 / splats.depths[:, None]]
    spans = _spans(splats, height, width)
    images = _Composite.apply(
        torch.cat(columns, dim=1).float()[None],
        splats.depths[None],
        spans[None],
        background.float()[None],
        height,
        width,
    )
    return images[0, :3], images[0, 3:] if return_depth else None


@torch.no_grad()
def _spans(splats: Splats, height: int, width: int) -> Tensor:
    """First and last tile (N,) in x and y, packed as in `triton_kernels`."""
    from model.rasterizers import triton_kernels as kernels

    margin = kernels.SPAN_MARGIN.value
    size = splats.centres.new_tensor([width, height])
    squared = 2 * (splats.opacities / ALPHA_MIN).clamp(min=1).log()
    reach = (squared[:, None] * splats.covariances[:, [0, 2]]).sqrt() + margin
    low, high = splats.centres - reach, splats.centres + reach
    covers = ((high >= 0) & (low <= size - 1)).all(1) & (splats.opacities >= ALPHA_MIN * (1 - 1e-6))
    first = torch.where(covers[:, None], low.clamp(min=0) // TILE, kernels.NOWHERE.value).long()
    last = torch.where(covers[:, None], high.minimum(size - 1) // TILE, 0).long()
    return first[:, 0] | last[:, 0] << 16 | first[:, 1] << 32 | last[:, 1] << 48


class _Project(torch.autograd.Function):
    """Gaussians and cameras -> splats (R, N, 10), and, not differentiable, their depths and spans (R, N)."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        scales: Tensor,
        rotations: Tensor,
        opacities: Tensor,
        sh: Tensor,
        cameras: Tensor,
        options: _Options,
    ) -> tuple[Tensor, Tensor, Tensor]:
        from model.rasterizers import triton_kernels as kernels

        inputs = [t.contiguous() for t in (means, scales, rotations, opacities, sh, cameras)]
        (scenes, count), views = means.shape[:2], cameras.shape[1]
        ctx.sizes = (views, count, options.width, options.height)
        ctx.constants = {
            "NEAR": options.near,
            "ANTIALIASING": options.antialiasing,
            "COEFFICIENTS": sh.shape[2],
            "BLOCK": _BLOCK,
        }
        splats = means.new_empty((scenes * views, count, kernels.SPLAT.value))
        depths = means.new_empty((scenes * views, count), dtype=torch.float64)
        spans = means.new_empty((scenes * views, count), dtype=torch.int64)
        kernels.project[scenes * views, -(-count // _BLOCK)](
            *inputs, splats, depths, spans, *ctx.sizes, TILE=TILE, **ctx.constants
        )
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(depths, spans)
        return splats, depths, spans

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_splats: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        from model.rasterizers import triton_kernels as kernels

        *inputs, cameras = ctx.saved_tensors
        gradients = [torch.empty_like(tensor) for tensor in inputs[:4]] + [torch.zeros_like(inputs[4])]
        scenes, count = inputs[0].shape[:2]
        kernels.project_backward[scenes, -(-count // _BLOCK)](
            *inputs, cameras, by_splats.contiguous(), *gradients, *ctx.sizes, **ctx.constants
        )
        return *gradients, None, None


class _Composite(torch.autograd.Function):
    """Splats -> red, green, blue and inverse depth (R, 4, H, W); `background` is (S, 3)."""

    @staticmethod
    def forward(
        ctx: Any, splats: Tensor, depths: Tensor, spans: Tensor, background: Tensor, height: int, width: int
    ) -> Tensor:
        from model.rasterizers import triton_kernels as kernels

        renders, count = depths.shape
        views = renders // len(background)
        splats, background = splats.contiguous(), background.contiguous()
        tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
        order = depths.argsort(dim=1, stable=True)
        members, counts = _fill_tiles(spans.gather(1, order), order, tiles_x, tiles_y)
        images = splats.new_empty((renders, 4, height, width))
        transmittances = splats.new_empty((renders, height, width))
        ctx.sizes = (count, width, height, tiles_x, tiles_y, members.shape[2])
        kernels.composite[tiles_x * tiles_y, renders](
            splats, members, counts, background, images, transmittances, views, *ctx.sizes, TILE=TILE, num_warps=_WARPS
        )
        ctx.save_for_backward(splats, members, counts, background, images, transmittances)
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_images: Tensor) -> tuple[Tensor | None, ...]:
        from model.rasterizers import triton_kernels as kernels

        splats, members, counts, background, images, transmittances = ctx.saved_tensors
        by_images = by_images.contiguous()
        fixed_point = torch.are_deterministic_algorithms_enabled()
        sums = torch.zeros_like(splats, dtype=torch.int64 if fixed_point else torch.float32)
        unit = sums  # not read, unless sums are integers
        if fixed_point:
            unit = by_images.abs().amax().double() / 2.0**_FIXED_POINT_BITS
            unit = torch.where(unit == 0, 1.0, unit)
        kernels.composite_backward[counts.shape[::-1]](
            splats,
            members,
            counts,
            images,
            by_images,
            sums,
            unit.reciprocal() if fixed_point else unit,
            *ctx.sizes,
            TILE=TILE,
            FIXED_POINT=fixed_point,
            num_warps=_WARPS,
        )
        if fixed_point:
            sums = sums.double() * unit  # not finite where a gradient was not
            sums[..., 2:5] *= ctx.sizes[1] + ctx.sizes[2]  # steps of the inverse covariance are larger
            sums = sums.float()
        by_background = None
        if ctx.needs_input_grad[3]:
            of_views = (by_images[:, :3] * transmittances[:, None]).sum((2, 3))
            by_background = of_views.unflatten(0, (len(background), -1)).sum(1)
        return sums, None, None, by_background, None, None


def _fill_tiles(spans: Tensor, order: Tensor, tiles_x: int, tiles_y: int) -> tuple[Tensor, Tensor]:
    """The splats of every tile, nearest first (R, T, capacity), and how many there are (R, T).

    `spans` and `order` (R, N) are sorted by depth.  The host waits only where not every tile has room for all, and the
    checks are not deferred.
    """
    from model.rasterizers import triton_kernels as kernels

    renders, count = spans.shape
    tiles = tiles_x * tiles_y
    shape = (renders, tiles, count)
    fitting = max(1, LIST_BYTES // (4 * renders * tiles))
    while True:
        capacity = min(count, max(fitting, _needed.get(shape, 0)))
        members = spans.new_empty((renders, tiles, capacity), dtype=torch.int32)
        counts = spans.new_empty((renders, tiles), dtype=torch.int32)
        kernels.fill_tiles[tiles, renders](
            spans, order, members, counts, count, tiles_x, tiles_y, capacity, BLOCK=_SCAN
        )
        if capacity == count:
            return members, counts

        def make_room(counts: Tensor = counts) -> None:
            _needed[shape] = min(count, 2 * int(counts.max()))

        check = Check(counts.amax() > capacity, make_room)
        later = deferred()
        if later is not None:
            later.append(check)
            return members, counts
        if not check.lacked_room:
            return members, counts
        make_room()
