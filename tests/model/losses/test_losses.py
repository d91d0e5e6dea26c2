import pytest
import torch

from model.losses.edge import Edge
from model.losses.edge_published import EdgePublished
from model.losses.l1 import L1
from model.losses.l2 import L2
from model.losses.lpips import Lpips, shared_lpips
from model.losses.tv import TotalVariation

PLAIN = {"l1": L1, "l2": L2, "tv": TotalVariation, "edge": EdgePublished}


@pytest.fixture
def reference(fixtures):
    return torch.load(fixtures / "metrics_losses.pt", weights_only=True)


@pytest.mark.parametrize("name", PLAIN)
def test_values_are_the_references(name, reference, weights):
    value = PLAIN[name](weights)(reference["img1"], reference["img2"])
    torch.testing.assert_close(value, torch.as_tensor(reference["f32"][name]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["tv", "edge"])
def test_gradients_are_the_references(name, reference, weights):
    render = reference["img1"].clone().requires_grad_()
    PLAIN[name](weights)(render, reference["img2"]).backward()
    torch.testing.assert_close(render.grad, reference["f32"][f"{name}_grad"], rtol=1e-3, atol=1e-8)


def test_published_edge_loss_has_nan_gradients_exactly_where_the_reference_has_them(reference, weights):
    render = reference["img1"].clone()
    render[:, :, 20:40, 20:40] = 0
    render.requires_grad_()
    EdgePublished(weights)(render, reference["img2"]).backward()
    assert torch.equal(render.grad.isnan(), reference["f32"]["edge_flat_patch_nan_grad_mask"].bool())


def test_corrected_edge_loss_has_a_gradient_on_flat_patches(weights):
    render = torch.ones(1, 3, 8, 8, requires_grad=True)
    target = torch.rand(1, 3, 8, 8)
    Edge(weights)(render, target).backward()
    assert render.grad.isfinite().all()
    flat = torch.ones(1, 3, 8, 8, requires_grad=True)
    EdgePublished(weights)(flat, target).backward()
    assert flat.grad.isnan().any()


def test_total_variation_counts_each_direction_by_its_own_number_of_differences(weights):
    ramp = torch.arange(4.0).expand(1, 3, 2, 4)  # 1 from column to column, 0 from row to row
    assert TotalVariation(weights)(ramp, torch.zeros_like(ramp)) == 1.0


def test_lpips_knows_likeness(weights):
    generator = torch.Generator().manual_seed(0)
    blobs = torch.rand(1, 3, 6, 6, generator=generator)
    picture = torch.nn.functional.interpolate(blobs, size=(48, 48), mode="bicubic")
    noise = torch.randn(picture.shape, generator=generator)
    loss = Lpips(weights)
    assert loss(picture, picture) == 0
    little, much = loss(picture + 0.02 * noise, picture), loss(picture + 0.2 * noise, picture)
    assert 0 < little < much


@pytest.mark.parametrize("variant", ["vgg", "alex"])
def test_lpips_stays_frozen(variant, weights):
    distance = shared_lpips(variant, weights)
    distance.train()
    assert not any(module.training for module in distance.modules())
    assert not any(parameter.requires_grad for parameter in distance.parameters())
