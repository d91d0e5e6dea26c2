import pytest
import torch

from jobs.metrics.base import EvaluatedViews
from jobs.metrics.ssim import MaskedSsim, Ssim
from model.losses.ssim import ssim


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_ssim_is_the_references(fixtures):
    reference = torch.load(fixtures / "metrics_losses.pt", weights_only=True)
    render, target = reference["img1"].double(), reference["img2"].double()
    # The reference keeps its window in single precision, also here.
    torch.testing.assert_close(ssim(render, target), reference["f64"]["ssim_each"].double(), rtol=1e-6, atol=0)


def test_ssim_is_one_for_equal_pictures_only(pictures):
    torch.testing.assert_close(ssim(pictures, pictures), torch.ones(2))
    assert (ssim(pictures.flip(-1), pictures) < 0.9).all()


def test_a_mask_of_everything_changes_nothing_and_one_of_a_part_looks_there(pictures, weights):
    render = pictures.clone()
    render[:, :, :, 10:] = 0.5  # beyond the reach of windows around the first four columns
    everything = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    whole = Ssim(weights, "vgg")(EvaluatedViews(render), EvaluatedViews(pictures), None)
    masked = MaskedSsim(weights, "vgg")
    torch.testing.assert_close(masked(EvaluatedViews(render), EvaluatedViews(pictures, everything), None), whole)
    left = everything.clone()
    left[..., 4:] = False
    torch.testing.assert_close(masked(EvaluatedViews(render), EvaluatedViews(pictures, left), None), torch.ones(2))
    assert (masked(EvaluatedViews(render), EvaluatedViews(pictures, ~left), None) < whole).all()
