"""LPIPS v0.1 with the trunk that `eval.lpips` names."""

from __future__ import annotations

from jobs.metrics.base import FeatureMetric
from model.losses import LPIPS_TRUNKS
from model.losses.lpips import shared_lpips
from model.weights import WeightStore


class Lpips(FeatureMetric):
    """LPIPS of each view."""

    @classmethod
    def weights(cls, lpips: str) -> tuple[str, ...]:
        return (LPIPS_TRUNKS[lpips],)

    def __init__(self, store: WeightStore, lpips: str) -> None:
        super().__init__(store, lpips)
        self.distance = shared_lpips(lpips, store)
