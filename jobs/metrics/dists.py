"""DISTS: Ding, Ma, Wang, Simoncelli, "Image quality assessment: unifying structure and texture similarity", 2020.

Means and covariances of the feature maps of VGG16, whose poolings are L2 poolings here, weighted by the published
alpha and beta.  Views are compared at the size they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.metrics.base import FeatureMetric
from model.weights import WeightStore

#: Positions of each stage's convolutions in torchvision's `features`.
_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_C = 1e-6  # of both ratios


class DistsDistance(nn.Module):
    """One distance per pair of views; frozen."""

    pooling: Tensor  # (3, 3)
    mean: Tensor  # (1, 3, 1, 1) of VGG16's input
    std: Tensor
    alpha: Tensor  # (all channels,) weights of textures
    beta: Tensor  # (all channels,) weights of structures

    def __init__(self, store: WeightStore) -> None:
        super().__init__()
        trunk, published = store.load("vgg16"), store.load("dists")
        for position in (position for stage in _STAGES for position in stage):
            self.register_buffer(f"weight_{position}", trunk[f"{position}.weight"])
            self.register_buffer(f"bias_{position}", trunk[f"{position}.bias"])
        # A Hann window of five taps without its zeros, in both directions.
        taps = torch.hann_window(5, periodic=False)[1:-1]
        self.register_buffer("pooling", torch.outer(taps, taps) / taps.sum().square())
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        alpha, beta = published["alpha"].flatten(), published["beta"].flatten()
        self.register_buffer("alpha", alpha / (alpha.sum() + beta.sum()))
        self.register_buffer("beta", beta / (alpha.sum() + beta.sum()))

    def features(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB in [0, 1], not clamped -> these and the last map (N, C, h, w) of each stage."""
        found, x = [images], (images - self.mean) / self.std
        for index, stage in enumerate(_STAGES):
            if index:
                x = self._pool(x)
            for position in stage:
                x = F.relu(
                    F.conv2d(x, getattr(self, f"weight_{position}"), getattr(self, f"bias_{position}"), padding=1)
                )
            found.append(x)
        return found

    def between(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
        """The distances (N,) of views with these features."""
        texture, structure = [], []
        for a, b in zip(ours, theirs, strict=True):
            mean_a, mean_b = a.mean((2, 3)), b.mean((2, 3))
            var_a, var_b = a.var((2, 3), correction=0), b.var((2, 3), correction=0)
            covariance = (a * b).mean((2, 3)) - mean_a * mean_b
            texture.append((2 * mean_a * mean_b + _C) / (mean_a.square() + mean_b.square() + _C))
            structure.append((2 * covariance + _C) / (var_a + var_b + _C))
        return 1 - torch.cat(texture, 1) @ self.alpha - torch.cat(structure, 1) @ self.beta

    def _pool(self, x: Tensor) -> Tensor:
        window = self.pooling.expand(x.shape[1], 1, 3, 3)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


@cache
def shared_dists(store: WeightStore) -> DistsDistance:
    """One network, shared by all metrics of this process."""
    return DistsDistance(store)


class Dists(FeatureMetric):
    """DISTS of each view."""

    @classmethod
    def weights(cls, lpips: str) -> tuple[str, ...]:
        return ("dists", "vgg16")

    def __init__(self, store: WeightStore, lpips: str) -> None:
        super().__init__(store, lpips)
        self.distance = shared_dists(store)
