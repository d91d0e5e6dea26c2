"""Intersection over union of the rendered and the true silhouette."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from jobs.metrics.base import EvaluatedViews, ObjectMetric


class Iou(ObjectMetric):
    """Pixels in both silhouettes over pixels in either, each of those that are at least half covered."""

    of_colours: ClassVar[bool] = False

    def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> Tensor:
        assert render.covered is not None
        assert target.covered is not None
        ours, theirs = render.covered.flatten(1), target.covered.flatten(1)
        return (ours & theirs).sum(1) / (ours | theirs).sum(1).clamp(min=1)
