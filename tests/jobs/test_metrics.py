import math

import pytest
import torch

from jobs.metrics import METRICS, ImageMetrics, psnr, ssim


@pytest.fixture
def reference(fixtures):
    return torch.load(fixtures / "metrics_losses.pt", weights_only=True)


def test_psnr_and_ssim_are_the_references(reference):
    render, target = reference["img1"].double(), reference["img2"].double()
    torch.testing.assert_close(psnr(render, target), reference["f64"]["psnr_each"].double(), rtol=1e-9, atol=0)
    # The reference keeps its window in single precision, also here.
    torch.testing.assert_close(ssim(render, target), reference["f64"]["ssim_each"].double(), rtol=1e-6, atol=0)


def test_psnr_of_a_known_error():
    assert psnr(torch.full((1, 3, 4, 4), 0.6), torch.full((1, 3, 4, 4), 0.5)).item() == pytest.approx(20, abs=1e-5)
    assert psnr(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)).item() == math.inf


def test_ssim_is_one_for_equal_pictures_only():
    picture = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ssim(picture, picture), torch.ones(2))
    assert (ssim(picture.flip(-1), picture) < 0.9).all()


def test_clamped_metrics_differ_only_where_a_render_leaves_the_range(weights):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 32, 32, generator=generator)
    render = target * 0.9
    render[1] = target[1] + 0.3
    values = ImageMetrics("alex", weights)(render, target)
    assert set(values) == set(METRICS) | {f"{name}_clamped" for name in METRICS}
    for name in METRICS:
        assert values[name][0] == values[f"{name}_clamped"][0]
    clamped = psnr(render[1:].clamp(0, 1), target[1:])
    torch.testing.assert_close(values["psnr_clamped"][1:], clamped.double())
    assert values["psnr_clamped"][1] > values["psnr"][1]
