"""PSNR, SSIM and LPIPS of pictures, as the field computes them: per picture, renders not clamped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from model.losses.lpips import shared_lpips
from model.losses.ssim import ssim
from model.weights import WeightStore

METRICS = ("psnr", "ssim", "lpips")


def psnr(render: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, peak 1: (N, C, H, W) twice -> (N,)."""
    return -10 * (render - target).square().flatten(1).mean(1).log10()


class ImageMetrics(nn.Module):
    """All metrics of a batch of pictures; `lpips` is the variant, "vgg" or "alex"."""

    def __init__(self, lpips: str, store: WeightStore) -> None:
        super().__init__()
        self.lpips = shared_lpips(lpips, store)

    @torch.inference_mode()
    def forward(self, render: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """(N, 3, H, W) twice -> {metric: (N,) float64}, also with renders clamped to [0, 1] as `*_clamped`."""
        truth = self.lpips.features(target)
        values = self._measure(render, target, truth)
        clamped_values = {name: value.clone() for name, value in values.items()}
        clamped = render.clamp(0, 1)
        outside = (clamped != render).flatten(1).any(1)
        if outside.any():  # elsewhere clamping changes nothing, and LPIPS is dear
            again = self._measure(clamped[outside], target[outside], [layer[outside] for layer in truth])
            for name, value in again.items():
                clamped_values[name][outside] = value
        return values | {f"{name}_clamped": value for name, value in clamped_values.items()}

    def _measure(self, render: Tensor, target: Tensor, truth: Sequence[Tensor]) -> dict[str, Tensor]:
        return {
            "psnr": psnr(render, target).double(),
            "ssim": ssim(render, target).double(),
            "lpips": self.lpips.between(self.lpips.features(render), truth).double(),
        }
