"""Structural similarity (Wang et al. 2004), as metric and as loss."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from model.losses.base import Loss, pictures
from model.methods.base import Need
from model.precision import full_precision
from model.scenes import Scene
from model.types import Rendering

_WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def ssim(render: Tensor, target: Tensor) -> Tensor:
    """Structural similarity: (N, C, H, W) twice -> (N,), the mean over the whole map and the channels."""
    return ssim_map(render, target).flatten(1).mean(1)


def ssim_map(render: Tensor, target: Tensor) -> Tensor:
    """Structural similarity around each pixel: (N, C, H, W) twice -> (N, C, H, W).

    Gaussian window 11x11, sigma 1.5, zero padding 5; the padding is what distinguishes it from the versions of the
    image libraries, which crop or mirror.
    """
    window = _window(render.dtype, render.device).expand(render.shape[1], 1, 1, -1)

    def blur(x: Tensor) -> Tensor:
        channels, pad = x.shape[1], _WINDOW // 2
        x = F.conv2d(x, window, padding=(0, pad), groups=channels)
        return F.conv2d(x, window.transpose(2, 3), padding=(pad, 0), groups=channels)

    with full_precision(render.device):  # TF32 would round the squares by more than the constants in a variance
        mean_r, mean_t = blur(render), blur(target)
        var_r = blur(render * render) - mean_r.square()
        var_t = blur(target * target) - mean_t.square()
        covariance = blur(render * target) - mean_r * mean_t
    numerator = (2 * mean_r * mean_t + _C1) * (2 * covariance + _C2)
    denominator = (mean_r.square() + mean_t.square() + _C1) * (var_r + var_t + _C2)
    return numerator / denominator


@lru_cache(maxsize=16)
def _window(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The window along one axis, created once for each device."""
    with torch.inference_mode(False):  # an inference tensor, cached by an evaluation, could not be used in training
        offsets = torch.arange(_WINDOW, dtype=dtype, device=device) - _WINDOW // 2
        window = torch.exp(-offsets.square() / (2 * _SIGMA**2))
        return window / window.sum()


class Ssim(Loss):
    """1 - mean SSIM over the pictures."""

    needs: ClassVar[frozenset[Need]] = frozenset({"views"})

    def forward(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        return 1 - ssim(pictures(rendering), pictures(target)).mean()
