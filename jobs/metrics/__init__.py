"""Metrics of rendered views.  One file per metric, one line here, and one on how it reads in `results/metrics.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.registry import resolve

if TYPE_CHECKING:  # brings torch
    from jobs.metrics.base import Metric

METRICS: dict[str, str] = {
    "psnr": "jobs.metrics.psnr:Psnr",
    "ssim": "jobs.metrics.ssim:Ssim",
    "lpips": "jobs.metrics.lpips:Lpips",
    "dists": "jobs.metrics.dists:Dists",
    "psnr_masked": "jobs.metrics.psnr:MaskedPsnr",
    "ssim_masked": "jobs.metrics.ssim:MaskedSsim",
    "iou": "jobs.metrics.iou:Iou",
    "abs_rel": "jobs.metrics.depth:AbsRel",
    "delta1": "jobs.metrics.depth:Delta1",
}


def find_metric(name: str) -> type[Metric]:
    """The class of a metric.  Raises `UnknownChoiceError`."""
    cls: type[Metric] = resolve(METRICS, name, "metric")
    return cls
