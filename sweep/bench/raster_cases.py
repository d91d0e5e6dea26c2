"""Scenes of the benchmark `raster`, like the Gaussians that a network predicts for one input image.

One Gaussian per pixel, on a smooth surface, about a pixel wide, seen from 30 degrees away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model.rasterizers import render
from model.types import Cameras, Gaussians

DISTANCE = 1.75  # of every camera from the middle of the surface, scene units
YAW = 30.0  # degrees


@dataclass(frozen=True)
class Workload:
    """B scenes of size x size Gaussians, V views of size x size pixels."""

    name: str
    scenes: int
    views: int
    size: int
    targets: tuple[float, float] | None = None  # ms on a CPU, forward and backward, with one thread and with two

    @property
    def dense_pairs(self) -> int:
        return self.scenes * self.views * self.size**4


WORKLOADS = (
    Workload("32 px", 1, 1, 32, (0.45, 0.35)),
    Workload("64 px", 1, 1, 64, (1.3, 0.8)),
    Workload("128 px", 1, 1, 128, (4.8, 2.7)),
    Workload("8 x 4 at 64 px", 8, 4, 64, (36.0, 19.0)),
)
#: The renders of one training step of the published configuration.
PAPER_STEP = Workload("8 x 4 at 128 px", 8, 4, 128)


@dataclass(frozen=True)
class Task:
    """A workload's arguments, and target images."""

    leaves: tuple[Tensor, ...]  # the fields of Gaussians
    cameras: Cameras
    background: Tensor
    targets: Tensor

    def forward(self, backend: str) -> Tensor:
        return render(Gaussians(*self.leaves), self.cameras, self.background, backend)

    def both(self, backend: str) -> tuple[Tensor, ...]:
        """Renders, and returns the gradients of the mean squared error with respect to the five tensors."""
        return self.gradients(self.forward(backend))

    def gradients(self, images: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the mean squared error of rendered images, with respect to the five tensors."""
        return torch.autograd.grad((images - self.targets).square().mean(), self.leaves)


def make_task(workload: Workload, device: str = "cpu") -> Task:
    """The task of a workload, always with the same Gaussians."""
    generator = torch.Generator().manual_seed(0)
    scenes, views, size = workload.scenes, workload.views, workload.size
    leading = (scenes, size * size)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*leading, *shape, generator=generator)

    rays = (torch.arange(size) + 0.5) / size - 0.5  # x/z and y/z of the pixels of a camera with focal length `size`
    y, x = (grid.flatten() for grid in torch.meshgrid(rays, rays, indexing="ij"))
    z = DISTANCE + 0.15 * torch.sin(6 * x) * torch.cos(5 * y)
    surface = torch.stack([x * z, y * z, z - DISTANCE], dim=-1)
    pixel = DISTANCE / size
    leaves = (
        surface + 0.002 * normal(3),
        pixel * (0.35 * normal(3)).exp(),
        torch.nn.functional.normalize(normal(4), dim=-1),
        torch.sigmoid(normal(1)),
        0.3 * normal(4, 3),
    )
    return Task(
        leaves=tuple(leaf.to(device).requires_grad_() for leaf in leaves),
        cameras=_cameras(scenes, views, size).to(device),
        background=torch.ones(3, device=device),
        targets=torch.rand(scenes, views, 3, size, size, generator=generator).to(device),
    )


def _cameras(scenes: int, views: int, size: int) -> Cameras:
    """Cameras that look at the origin from 30 degrees to the right and to the left, alternating."""
    matrices = torch.eye(4).repeat(scenes, views, 1, 1)
    for view in range(views):
        yaw = math.radians(YAW if view % 2 == 0 else -YAW)
        c, s = math.cos(yaw), math.sin(yaw)
        matrices[:, view, :3, :3] = torch.tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    matrices[..., 2, 3] = DISTANCE
    focal = torch.full((scenes, views, 2), float(size))
    return Cameras(matrices, focal, focal / 2, height=size, width=size)
