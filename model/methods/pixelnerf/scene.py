"""Radiance fields as scenes: rays are sampled coarsely, then finely where the coarse pass finds density.

Dimensions: B objects, V views, P pixels or R rays of each object, S samples of a ray, H x W pixels a view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from model.methods.base import SceneKind
from model.methods.pixelnerf.field import POINT_FEATURES, FieldNetwork, encode
from model.methods.pixelnerf.options import PixelPoint
from model.methods.pixelnerf.rays import Bounds, Rays, cast
from model.methods.pixelnerf.sampling import Draws, SampleCounts, around_depth, by_importance, stratified
from model.methods.pixelnerf.sources import Sources, read_rows
from model.methods.pixelnerf.volume import Composite, composite
from model.scenes import Scene
from model.types import Cameras, Pixels, Rendering

#: Memory that rendering without gradients may use for samples at once, bytes.
RENDER_MEMORY = 512 << 20
#: Seed of the samples of a view that is not rendered for training.
_SEED = 0


@dataclass(frozen=True)
class Tracing:
    """Settings of ray sampling."""

    counts: SampleCounts
    #: standard deviation of samples around the coarse depth, scene units
    depth_deviation: float
    #: samples around the coarse depth get no gradient; else the fine loss reaches the coarse network through them
    detach_depth_samples: bool
    #: point of a pixel that its ray passes through
    through: PixelPoint


@dataclass(frozen=True)
class RadianceField(Scene):
    """B objects as colour and density of every point, from the features of their source views."""

    kind: ClassVar[SceneKind] = "field"

    #: the coarse network and the fine one
    networks: tuple[FieldNetwork, FieldNetwork]
    #: features of the source views for each network: a row for each cell of all feature maps
    tables: tuple[Tensor, Tensor]
    #: cells of a feature map, height and width
    size: tuple[int, int]
    sources: Sources
    bounds: Bounds
    tracing: Tracing
    #: samples come from torch's own generator; otherwise each view has the same samples in every rendering
    training: bool
    #: bytes
    memory: int = RENDER_MEMORY

    def render(self, cameras: Cameras, background: Tensor, pixels: Pixels | None = None) -> Rendering:
        """Images with opacity and inverse depth; the coarse pass is `auxiliary`.

        Without gradients rays are traced in groups that fit into `memory`.
        """
        if pixels is not None:
            return self._trace_pixels(cameras, background, pixels)
        views = [self._trace_pixels(cameras, background, view) for view in _pixels_of_views(cameras)]
        size = (cameras.height, cameras.width)
        return _combined(views, lambda parts: torch.stack(parts, 1).unflatten(2, size).permute(0, 1, 4, 2, 3))

    def rays_at_once(self) -> int:
        """Rays of each object that fit into `memory`."""
        batch, views = self.sources.cameras.world_to_camera.shape[:2]
        network = self.networks[1]
        # The injected features, four of the network's activations, intermediate results of the encoding, and indices.
        values = (len(network.injections) + 4) * network.output.in_features + 4 * POINT_FEATURES + 16
        of_a_ray = values * self.tables[0].element_size() * batch * views * self.tracing.counts.fine
        return max(1, self.memory // of_a_ray)

    def _trace_pixels(self, cameras: Cameras, background: Tensor, pixels: Pixels) -> Rendering:
        rays = cast(cameras, pixels.view, pixels.row, pixels.column, through=self.tracing.through, bounds=self.bounds)
        generator = None if self.training else torch.Generator(rays.near.device).manual_seed(_SEED)
        draws = Draws.make((rays.near.shape[0], rays.near.shape[1]), self.tracing.counts, rays.near, generator)
        count = rays.near.shape[1]
        step = count if torch.is_grad_enabled() else self.rays_at_once()
        parts = [
            self._trace(rays.part(first, first + step), draws.part(first, first + step), background)
            for first in range(0, count, step)
        ]
        return _combined(parts, lambda values: torch.cat(values, dim=1))

    def _trace(self, rays: Rays, draws: Draws, background: Tensor) -> Rendering:
        """Colours (B, R, 3) of rays."""
        near, far = rays.near, rays.far
        distances = stratified(near, far, draws.coarse)
        coarse = self._composite(0, rays, distances)
        depth = coarse.depth.detach() if self.tracing.detach_depth_samples else coarse.depth
        more = [
            by_importance(near, far, coarse.weights, draws.interval, draws.within),
            around_depth(near, far, depth, self.tracing.depth_deviation, draws.depth),
        ]
        all_distances = torch.cat([distances, *more], dim=-1).sort(-1).values
        fine = self._composite(1, rays, all_distances)
        first = _rendering(coarse, rays, distances, background)
        return _rendering(fine, rays, all_distances, background, auxiliary=(first,))

    def _composite(self, which: int, rays: Rays, distances: Tensor) -> Composite:
        """Composites the coarse (0) or fine (1) network's values of the samples at `distances` (B, R, S)."""
        seen = self.sources.see(rays, distances, self.size, self.tracing.through)
        features = encode(seen.positions, seen.directions)
        injected = read_rows(self.tables[which], seen.places, self.size)
        colours, densities = self.networks[which](features.flatten(2, 3), injected.flatten(2, 3))
        rays_and_samples = distances.shape[-2:]
        return composite(
            colours.unflatten(1, rays_and_samples), densities.unflatten(1, rays_and_samples), distances, rays.far
        )


def _rendering(
    seen: Composite, rays: Rays, distances: Tensor, background: Tensor, auxiliary: tuple[Rendering, ...] = ()
) -> Rendering:
    inverse_depth = (seen.weights / (distances * rays.cosines[..., None])).sum(-1)
    return Rendering(
        images=seen.colours + (1 - seen.opacity)[..., None] * background[:, None],
        inverse_depth=inverse_depth[..., None],
        opacity=seen.opacity[..., None],
        auxiliary=auxiliary,
    )


def _pixels_of_views(cameras: Cameras) -> Iterator[Pixels]:
    """All pixels, view by view, row by row."""
    batch, views = cameras.world_to_camera.shape[:2]
    index = torch.arange(cameras.height * cameras.width, device=cameras.world_to_camera.device).expand(batch, -1)
    for view in range(views):
        row = torch.div(index, cameras.width, rounding_mode="floor")
        yield Pixels(view=torch.full_like(index, view), row=row, column=index % cameras.width)


def _combined(parts: Sequence[Rendering], how: Callable[[list[Tensor]], Tensor]) -> Rendering:
    """Combines several renderings with the same passes into one."""
    depths = [part.inverse_depth for part in parts if part.inverse_depth is not None]
    opacities = [part.opacity for part in parts if part.opacity is not None]
    return Rendering(
        images=how([part.images for part in parts]),
        inverse_depth=how(depths),
        opacity=how(opacities),
        auxiliary=tuple(_combined(passes, how) for passes in zip(*(part.auxiliary for part in parts), strict=True)),
    )
