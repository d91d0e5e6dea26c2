"""Views and stand-in weights for depth models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.types import Cameras, Views
from model.weights import WeightStore
from tests.tiny_checkpoints import write_tiny_checkpoint
from tests.tiny_depth_checkpoints import DEPTH_MAKERS


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> WeightStore:
    """Stand-ins of every depth model's weights."""
    folder = tmp_path_factory.mktemp("tiny_depth_checkpoints")
    for name in DEPTH_MAKERS:
        write_tiny_checkpoint(name, folder)
    return WeightStore(folder)


@pytest.fixture
def make_views() -> Callable[..., Views]:
    """A function: (side, depth, frames) -> two objects with one view each; the images are smooth noise."""

    def make(side: int = 32, depth: torch.Tensor | None = None, frames: tuple[int, int] = (0, 1)) -> Views:
        noise = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
        cameras = Cameras(
            world_to_camera=torch.eye(4).expand(2, 1, 4, 4),
            focal=torch.full((2, 1, 2), 40.0),
            principal=torch.full((2, 1, 2), side / 2),
            height=side,
            width=side,
        )
        return Views(
            images=torch.nn.functional.interpolate(noise, (side, side), mode="bilinear").unsqueeze(1),
            cameras=cameras,
            near=torch.full((2,), 1.0),
            far=torch.full((2,), 3.0),
            background=torch.ones(2, 3),
            frames=torch.tensor(frames).view(2, 1),
            depth=depth,
        )

    return make


@pytest.fixture
def published(tiny_checkpoints: WeightStore) -> Callable[[str], Path]:
    """A function: name -> the stand-in's folder in the hub's format."""
    return lambda name: tiny_checkpoints.folder / name
