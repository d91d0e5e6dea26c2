"""PSNR, SSIM and LPIPS of pictures, as the field computes them: per picture, renders not clamped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.losses.lpips import shared_lpips
from model.weights import WeightStore

METRICS = ("psnr", "ssim", "lpips")

_WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(render: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, peak 1: (N, C, H, W) twice -> (N,)."""
    return -10 * (render - target).square().flatten(1).mean(1).log10()


def ssim(render: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004): (N, C, H, W) twice -> (N,).

    Gaussian window 11x11, sigma 1.5, zero padding 5, mean over the whole map and the channels; the padding is
    what distinguishes it from the versions of the image libraries, which crop or mirror.
    """
    offsets = torch.arange(_WINDOW, dtype=render.dtype, device=render.device) - _WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    window = (window / window.sum()).expand(render.shape[1], 1, 1, -1)

    def blur(x: Tensor) -> Tensor:
        channels, pad = x.shape[1], _WINDOW // 2
        x = F.conv2d(x, window, padding=(0, pad), groups=channels)
        return F.conv2d(x, window.transpose(2, 3), padding=(pad, 0), groups=channels)

    mean_r, mean_t = blur(render), blur(target)
    var_r = blur(render * render) - mean_r.square()
    var_t = blur(target * target) - mean_t.square()
    covariance = blur(render * target) - mean_r * mean_t
    numerator = (2 * mean_r * mean_t + _C1) * (2 * covariance + _C2)
    denominator = (mean_r.square() + mean_t.square() + _C1) * (var_r + var_t + _C2)
    return (numerator / denominator).flatten(1).mean(1)


class ImageMetrics(nn.Module):
    """All metrics of a batch of pictures; `lpips` is the variant, "vgg" or "alex"."""

    def __init__(self, lpips: str, store: WeightStore) -> None:
        super().__init__()
        self.lpips = shared_lpips(lpips, store)

    @torch.inference_mode()
    def forward(self, render: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """(N, 3, H, W) twice -> {metric: (N,) float64}, also with renders clamped to [0, 1] as `*_clamped`."""
        values = self._measure(render, target)
        clamped_values = {name: value.clone() for name, value in values.items()}
        clamped = render.clamp(0, 1)
        outside = (clamped != render).flatten(1).any(1)
        if outside.any():  # elsewhere clamping changes nothing, and LPIPS is dear
            for name, value in self._measure(clamped[outside], target[outside]).items():
                clamped_values[name][outside] = value
        return values | {f"{name}_clamped": value for name, value in clamped_values.items()}

    def _measure(self, render: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {
            "psnr": psnr(render, target).double(),
            "ssim": ssim(render, target).double(),
            "lpips": self.lpips(render, target).double(),
        }
