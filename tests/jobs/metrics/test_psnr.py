import math

import pytest
import torch

from jobs.metrics.base import EvaluatedViews
from jobs.metrics.psnr import MaskedPsnr, masked_mean, psnr


@pytest.fixture
def reference(fixtures):
    return torch.load(fixtures / "metrics_losses.pt", weights_only=True)


def test_psnr_is_the_references(reference):
    render, target = reference["img1"].double(), reference["img2"].double()
    torch.testing.assert_close(psnr(render, target), reference["f64"]["psnr_each"].double(), rtol=1e-9, atol=0)


def test_psnr_of_a_known_error():
    assert psnr(torch.full((1, 3, 4, 4), 0.6), torch.full((1, 3, 4, 4), 0.5)).item() == pytest.approx(20, abs=1e-5)
    assert psnr(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)).item() == math.inf


def test_errors_outside_the_mask_do_not_count(weights):
    target = torch.full((2, 3, 4, 4), 0.5)
    covered = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    covered[:, :, 1:3, 1:3] = True
    render = torch.where(covered, 0.6, 0.9).expand_as(target).clone()
    render[1] = torch.where(covered[1], target[1], render[1])
    metric = MaskedPsnr(weights, "vgg")
    values = metric(EvaluatedViews(render), EvaluatedViews(target, covered), None)
    assert values.tolist() == [pytest.approx(20, abs=1e-5), math.inf]
    assert metric.defined(EvaluatedViews(target, covered & torch.tensor([True, False]).view(2, 1, 1, 1))).tolist() == [
        True,
        False,
    ]


def test_a_masked_mean_is_over_channels_and_pixels():
    values = torch.arange(8.0).view(1, 2, 2, 2)
    mask = torch.tensor([[True, False], [False, True]]).view(1, 1, 2, 2)
    assert masked_mean(values, mask).tolist() == [(0 + 4 + 3 + 7) / 4]
    mask[..., 0, 0] = False
    assert masked_mean(values, mask).tolist() == [(3 + 7) / 2]
    assert masked_mean(values, torch.zeros_like(mask)).tolist() == [0]
