"""Synthetic cameras and source views for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from model.methods.pixelnerf.options import PixelNerfOptions
from model.methods.pixelnerf.reconstructor import PixelNerfReconstructor
from model.types import Cameras, Views


def rigid(generator: np.random.Generator, distance: float = 0.0) -> np.ndarray:
    """A random world-to-camera matrix; with `distance`, of a camera that looks at the origin from that distance."""
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.sign(np.linalg.det(rotation))
    matrix[:3, 3] = [0, 0, distance] if distance else generator.normal(size=3)
    return matrix


SIDE = 16


def source_views(batch: int = 2, views: int = 2, *, side: int = SIDE, from_origin: bool = False) -> Views:
    """Noise images of cameras at distance 2 from the origin, with depth bounds 1 and 3."""
    generator = np.random.default_rng(0)
    poses = np.stack([[rigid(generator, distance=2.0) for _ in range(views)] for _ in range(batch)])
    world_to_camera = poses @ np.linalg.inv(poses[:, :1])
    count = (batch, views)
    return Views(
        images=torch.from_numpy(generator.uniform(size=(*count, 3, side, side)).astype(np.float32)),
        cameras=Cameras(
            torch.from_numpy(world_to_camera.astype(np.float32)),
            focal=torch.full((*count, 2), 1.2 * side),
            principal=torch.full((*count, 2), side / 2),
            height=side,
            width=side,
        ),
        near=torch.full((batch,), -1.0 if from_origin else 1.0),
        far=torch.full((batch,), 1.0 if from_origin else 3.0),
        background=torch.tensor([[1.0, 1.0, 1.0], [0.2, 0.4, 0.6]])[:batch],
        frames=torch.zeros(count, dtype=torch.int64),
        origin_distance=torch.full(count, 2.0) if from_origin else None,
        origin=torch.from_numpy(poses[:, 0, :3, 3].astype(np.float32)),
    )


def small_options(**changes: Any) -> PixelNerfOptions:
    """Options for networks that render in milliseconds, with a few samples of each kind."""
    sizes = {"pretrained": False, "encoder_width": 8, "first_pool": False, "hidden": 16}
    samples = {"coarse_samples": 6, "importance_samples": 3, "depth_samples": 2}
    return PixelNerfOptions(**(sizes | samples | changes))


def trained(options: PixelNerfOptions) -> PixelNerfReconstructor:
    """A network without zero weights, as after some training, and with densities that are neither zero nor opaque."""
    torch.manual_seed(0)
    network = PixelNerfReconstructor(options)
    for part in (network.coarse, network.fine):
        for block in part.blocks:
            torch.nn.init.normal_(block.second.weight, std=0.1)
        torch.nn.init.normal_(part.output.weight, std=0.3)
        torch.nn.init.constant_(part.output.bias, 0.5)
    return network
