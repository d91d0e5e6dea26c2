from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from model.scenes import GaussianScene
from model.types import Gaussians


@pytest.fixture
def gaussians() -> Callable[..., GaussianScene]:
    """A function: scales, any number of triples -> one scene of Gaussians of these sizes."""

    def make(*scales: tuple[float, float, float]) -> GaussianScene:
        n = len(scales)
        gaussians = Gaussians(
            means=torch.zeros(1, n, 3),
            scales=torch.tensor([scales]).view(1, n, 3).requires_grad_(),
            rotations=torch.tensor([1.0, 0, 0, 0]).expand(1, n, 4),
            opacities=torch.full((1, n, 1), 0.5),
            sh=torch.zeros(1, n, 4, 3),
        )
        return GaussianScene(gaussians)

    return make


@pytest.fixture
def ordinary(gaussians) -> GaussianScene:
    """Gaussians for which no loss on sizes is positive."""
    return gaussians((0.02, 0.02, 0.03), (0.01, 0.05, 0.02))


@pytest.fixture
def reference(fixtures):
    return torch.load(fixtures / "metrics_losses.pt", weights_only=True)
