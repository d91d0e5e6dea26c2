"""Peak signal-to-noise ratio, of whole views and inside the object's mask."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from jobs.metrics.base import EvaluatedViews, Metric, ObjectMetric


def psnr(render: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, peak 1: (N, C, H, W) twice -> (N,)."""
    return -10 * (render - target).square().flatten(1).mean(1).log10()


class Psnr(Metric):
    """PSNR in dB of each view; infinite for equal ones."""

    def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> Tensor:
        return psnr(render.images, target.images)


class MaskedPsnr(ObjectMetric):
    """PSNR in dB over the pixels of the true object."""

    def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> Tensor:
        assert target.covered is not None
        return -10 * masked_mean((render.images - target.images).square(), target.covered).log10()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Means (N,) of values (N, C, H, W) over the channels and the pixels in a bool mask (N, 1, H, W); 0 without any."""
    per_pixel = values.mean(1, keepdim=True) * mask
    return per_pixel.flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)
