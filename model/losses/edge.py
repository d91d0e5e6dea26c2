"""Difference of Sobel gradient magnitudes, with a gradient that exists everywhere."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from model.constants import constant
from model.losses.base import Loss, pictures
from model.methods.base import Need
from model.precision import full_precision
from model.scenes import Scene
from model.types import Rendering

_ACROSS = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
_DOWN = tuple(zip(*_ACROSS, strict=True))


def sobel_magnitude(images: Tensor, eps: float) -> Tensor:
    """(N, C, H, W) -> sqrt(gx^2 + gy^2 + eps) per channel; 3x3 Sobel (1-2-1, not normalised), zero padding 1."""
    channels = images.shape[1]
    kernels = constant(channels * (_ACROSS, _DOWN), images)[:, None]  # (2C, 1, 3, 3)
    with full_precision(images.device):  # TF32 would see edges in flat areas
        gradients = F.conv2d(images, kernels, padding=1, groups=channels).unflatten(1, (channels, 2))
    return (gradients.square().sum(2) + eps).sqrt()


class Edge(Loss):
    """mean (|grad rendering| - |grad target|)^2.

    `eps` under the root keeps the gradient finite where a render is locally constant; the published loss has
    none (see `edge_published`).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"views"})
    eps: ClassVar[float] = 1e-6

    def forward(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        ours, theirs = (sobel_magnitude(pictures(seen), self.eps) for seen in (rendering, target))
        return F.mse_loss(ours, theirs)
