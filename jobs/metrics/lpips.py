"""LPIPS v0.1 with the trunk that `eval.lpips` names."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from jobs.metrics.base import EvaluatedViews, Metric
from model.losses import LPIPS_TRUNKS
from model.losses.lpips import shared_lpips
from model.weights import WeightStore


class Lpips(Metric):
    """LPIPS of each view."""

    @classmethod
    def weights(cls, lpips: str) -> tuple[str, ...]:
        return (LPIPS_TRUNKS[lpips],)

    def __init__(self, store: WeightStore, lpips: str) -> None:
        super().__init__(store, lpips)
        self.distance = shared_lpips(lpips, store)

    def reference(self, target: EvaluatedViews) -> list[Tensor]:
        return self.distance.features(target.images)

    def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> Tensor:
        return self.distance.between(self.distance.features(render.images), reference)
