"""Structural similarity, of whole views and inside the object's mask."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from jobs.metrics.base import EvaluatedViews, Metric, ObjectMetric
from jobs.metrics.psnr import masked_mean
from model.losses.ssim import ssim, ssim_map


class Ssim(Metric):
    """SSIM of each view, as `model.losses.ssim` defines it."""

    def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> Tensor:
        return ssim(render.images, target.images)


class MaskedSsim(ObjectMetric):
    """Mean of the SSIM map over the pixels of the true object; its windows reach beyond the object's edge."""

    def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> Tensor:
        assert target.covered is not None
        return masked_mean(ssim_map(render.images, target.images), target.covered)
