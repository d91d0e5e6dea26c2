"""Rendered depth against the dataset's, in scene units: no scale or shift is fitted, since the cameras are known.

Eigen, Puhrsch, Fergus, "Depth map prediction from a single image using a multi-scale deep network", 2014.  Pixels
count where the dataset has a depth.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from jobs.metrics.base import EvaluatedViews, Metric
from jobs.metrics.psnr import masked_mean


class _DepthMetric(Metric):
    of_colours: ClassVar[bool] = False

    def defined(self, target: EvaluatedViews) -> Tensor:
        assert target.depth is not None
        return (target.depth > 0).flatten(1).any(1)


class AbsRel(_DepthMetric):
    """Mean of |rendered - true| / true."""

    def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> Tensor:
        assert render.depth is not None
        assert target.depth is not None
        true = target.depth.clamp(min=1e-12)
        return masked_mean((render.depth - target.depth).abs() / true, target.depth > 0)


class Delta1(_DepthMetric):
    """Share of pixels whose depths differ by a factor below 1.25."""

    def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> Tensor:
        assert render.depth is not None
        assert target.depth is not None
        ours, true = render.depth.clamp(min=1e-12), target.depth.clamp(min=1e-12)
        ratio = (ours / true).maximum(true / ours)
        return masked_mean((ratio < 1.25).to(ours.dtype), target.depth > 0)
