"""Images, and encoders on stand-ins for their weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.registry import resolve
from model.semantic import SEMANTIC
from model.semantic.encoder import Encoder
from model.types import Cameras, Views
from model.weights import WeightStore
from tests.tiny_checkpoints import write_tiny_checkpoint

OBJECTS, VIEWS, SIZE = 2, 2, 48


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> WeightStore:
    """A weight store for stand-ins; `encoder` writes each on first use."""
    return WeightStore(tmp_path_factory.mktemp("tiny_checkpoints"))


@pytest.fixture
def encoder(tiny_checkpoints: WeightStore) -> Callable[..., Encoder]:
    """An encoder by name, with its stand-in."""

    def build(name: str, **settings: Any) -> Encoder:
        if not tiny_checkpoints.has(name) and not published(tiny_checkpoints, name).exists():
            write_tiny_checkpoint(name, tiny_checkpoints.folder)
        built: Encoder = resolve(SEMANTIC, name, "encoder")(tiny_checkpoints, **settings)
        return built

    return build


def published(store: WeightStore, name: str) -> Path:
    """The hub's folder of a stand-in."""
    return store.folder / name


@pytest.fixture
def views() -> Views:
    generator = torch.Generator().manual_seed(0)
    return Views(
        images=torch.rand(OBJECTS, VIEWS, 3, SIZE, SIZE, generator=generator),
        cameras=Cameras(
            world_to_camera=torch.eye(4).expand(OBJECTS, VIEWS, 4, 4),
            focal=torch.full((OBJECTS, VIEWS, 2), 50.0),
            principal=torch.full((OBJECTS, VIEWS, 2), SIZE / 2),
            height=SIZE,
            width=SIZE,
        ),
        near=torch.ones(OBJECTS),
        far=torch.full((OBJECTS,), 3.0),
        background=torch.zeros(OBJECTS, 3),
        frames=torch.arange(OBJECTS * VIEWS).view(OBJECTS, VIEWS),
    )
