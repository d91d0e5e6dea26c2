"""A penalty on Gaussians larger than the scene (published, on CO3D)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from model.losses.base import Loss
from model.methods.base import Need
from model.scenes import GaussianScene, Scene
from model.types import Rendering

#: Scene units; about the size of CO3D's scenes.
LARGEST = 20.0


class BigGaussians(Loss):
    """Mean of the scales above 20, one per axis; 0 where there are none."""

    needs: ClassVar[frozenset[Need]] = frozenset({"gaussians"})

    def forward(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        scales = scales_of(scene)
        return mean_where(scales, scales > LARGEST)


def scales_of(scene: Scene) -> Tensor:
    """The scales (B, N, 3) of a scene of Gaussians, which the configuration guarantees."""
    assert isinstance(scene, GaussianScene), f"a scene of kind {scene.kind!r} has no scales"
    return scene.gaussians.scales


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values, 0 if none are.

    Does not synchronise with a GPU.  Values not chosen get a gradient of 0, even where they are not finite.
    """
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp_min(1)
