"""Precision of products on a GPU, as settings of this process."""

from __future__ import annotations

import pytest
import torch

from jobs.metrics.metric_set import MetricSet
from jobs.precision import products


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("precision", "expected"), [("tf32", True), ("bf16", True), ("float32", False)])
def test_products_have_a_precision_and_get_the_former_one_back(precision, expected):
    before = allowed()
    with products(precision):
        assert allowed() == (expected, expected)
    assert allowed() == before


def test_metrics_are_computed_in_float32_whatever_the_trial_uses(weights, monkeypatch):
    seen = []
    metrics = MetricSet(["psnr"], "vgg", weights)
    monkeypatch.setattr(MetricSet, "_metrics", lambda _: seen.append(allowed()) or {})
    with products("tf32"):
        metrics(None, None, {})
    assert seen == [(False, False)]
