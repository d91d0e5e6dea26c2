"""Losses that are a formula over pixels."""

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel
from torch.nn import functional as F

from model.losses import edge, ssim
from model.losses.edge import Edge, sobel_magnitude
from model.losses.edge_published import EdgePublished
from model.losses.l1 import L1
from model.losses.l2 import L2
from model.losses.tv import TotalVariation
from model.precision import tf32
from model.types import Rendering


def seen(pictures: torch.Tensor) -> Rendering:
    """Images (V, 3, H, W) as the views of one object."""
    return Rendering(pictures[None])


PLAIN = {"l1": L1, "l2": L2, "tv": TotalVariation, "edge": EdgePublished}


@pytest.mark.parametrize("name", PLAIN)
def test_values_are_the_references(name, reference, weights, ordinary):
    value = PLAIN[name](weights)(seen(reference["img1"]), seen(reference["img2"]), ordinary)
    torch.testing.assert_close(value, torch.as_tensor(reference["f32"][name]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["tv", "edge"])
def test_gradients_are_the_references(name, reference, weights, ordinary):
    render = reference["img1"].clone().requires_grad_()
    PLAIN[name](weights)(seen(render), seen(reference["img2"]), ordinary).backward()
    torch.testing.assert_close(render.grad, reference["f32"][f"{name}_grad"], rtol=1e-3, atol=1e-8)


def test_published_edge_loss_has_nan_gradients_exactly_where_the_reference_has_them(reference, weights, ordinary):
    render = reference["img1"].clone()
    render[:, :, 20:40, 20:40] = 0
    render.requires_grad_()
    EdgePublished(weights)(seen(render), seen(reference["img2"]), ordinary).backward()
    assert torch.equal(render.grad.isnan(), reference["f32"]["edge_flat_patch_nan_grad_mask"].bool())


def test_edges_are_sobels():
    images = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0)).double()
    planes = images.flatten(0, 1).numpy()
    magnitudes = [np.hypot(sobel(plane, 0, mode="constant"), sobel(plane, 1, mode="constant")) for plane in planes]
    expected = torch.from_numpy(np.stack(magnitudes)).view_as(images)
    torch.testing.assert_close(sobel_magnitude(images, eps=0.0), expected)
    assert (sobel_magnitude(images, Edge.eps) - expected).abs().max() <= Edge.eps**0.5


def test_corrected_edge_loss_has_a_gradient_on_flat_patches_and_the_published_one_none(weights, ordinary):
    target = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for loss, spoilt in ((Edge, False), (EdgePublished, True)):
        render = torch.ones(1, 3, 8, 8, requires_grad=True)
        value = loss(weights)(seen(render), seen(target), ordinary)
        value.backward()
        assert value.isfinite()
        assert render.grad.isnan().any() == spoilt


def test_total_variation_counts_each_direction_by_its_own_number_of_differences(weights, ordinary):
    ramp = torch.arange(4.0).expand(1, 3, 2, 4)  # 1 from column to column, 0 from row to row
    for pictures in ramp, ramp.mT:
        assert TotalVariation(weights)(seen(pictures), seen(torch.zeros_like(pictures)), ordinary) == 1.0


@pytest.mark.parametrize(("loss", "expected"), [(L1, 0.5 + 0.25), (L2, 0.25 + 0.0625)])
def test_other_passes_count_as_much_as_the_rendering_itself(loss, expected, weights, ordinary):
    coarse = Rendering(torch.full((2, 5, 3), 0.75))
    fine = Rendering(torch.full((2, 5, 3), 0.5), auxiliary=(coarse,))
    assert loss(weights)(fine, Rendering(torch.ones(2, 5, 3)), ordinary) == expected


@pytest.mark.parametrize(
    ("module", "compute"), [(ssim, lambda images: ssim.ssim(images, images)), (edge, lambda i: sobel_magnitude(i, 0.0))]
)
def test_differences_of_large_sums_are_not_rounded_to_tf32(module, compute, monkeypatch):
    """A GPU with TF32 rounds the factors of a convolution to 10 bits where pictures are in channels last."""
    convolve, allowed = F.conv2d, []

    def recorded(*args, **kwargs):
        allowed.append(torch.backends.cudnn.allow_tf32)
        return convolve(*args, **kwargs)

    monkeypatch.setattr(F, "conv2d", recorded)
    monkeypatch.setattr(module, "full_precision", lambda _device: tf32(False))  # as on a GPU
    with tf32(True):
        compute(torch.rand(1, 3, 16, 16))
    assert allowed
    assert not any(allowed)
