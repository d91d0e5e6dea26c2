import lpips
import pytest
import torch

from model.losses import LPIPS_TRUNKS
from model.losses.lpips import FeatureCache, Lpips, _unit, shared_lpips
from model.types import Rendering


@pytest.fixture
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """A render with values slightly outside [0, 1], and its target."""
    generator = torch.Generator().manual_seed(0)
    return 1.2 * torch.rand(3, 3, 32, 32, generator=generator) - 0.1, torch.rand(3, 3, 32, 32, generator=generator)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:torchvision")
@pytest.mark.parametrize("variant", ["vgg", "alex"])
def test_values_and_gradients_are_the_packages(variant, weights, pictures):
    distance, package = shared_lpips(variant, weights), lpips.LPIPS(net=variant, pnet_rand=True, verbose=False)
    tensors = weights.load(LPIPS_TRUNKS[variant])
    with torch.no_grad():
        for name, parameter in package.net.named_parameters():
            parameter.copy_(tensors[name.split(".", 1)[1]])
    render, target = pictures[0].requires_grad_(), pictures[1]
    expected = package.eval()(render, target, normalize=True).flatten()
    (expected_gradient,) = torch.autograd.grad(expected.sum(), render)
    values = distance(render, target)
    (gradient,) = torch.autograd.grad(values.sum(), render)
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=0)
    assert (gradient - expected_gradient).abs().max() < 1e-5 * expected_gradient.abs().max()


def test_the_target_has_no_part_in_the_graph(weights, pictures):
    render, target = (picture.requires_grad_() for picture in pictures)
    shared_lpips("vgg", weights)(render, target).sum().backward()
    assert render.grad.abs().max() > 0
    assert target.grad is None


def test_a_pixel_without_features_has_a_gradient():
    features = torch.zeros(1, 4, 1, 2, requires_grad=True)
    with torch.no_grad():
        features[..., 1] = torch.tensor([0.0, 3, 0, 4])[:, None]
    unit = _unit(features)
    unit.square().sum().backward()
    assert unit.detach().flatten().tolist() == pytest.approx([0, 0, 0, 0.6, 0, 0, 0, 0.8])
    assert features.grad.isfinite().all()


def test_knows_likeness(weights, ordinary):
    generator = torch.Generator().manual_seed(0)
    blobs = torch.rand(1, 3, 6, 6, generator=generator)
    picture = torch.nn.functional.interpolate(blobs, size=(48, 48), mode="bicubic")
    noise = torch.randn(picture.shape, generator=generator)
    loss = Lpips(weights)
    assert loss(Rendering(picture[None]), Rendering(picture[None]), ordinary) == 0
    little, much = (
        loss(Rendering((picture + amount * noise)[None]), Rendering(picture[None]), ordinary) for amount in (0.02, 0.2)
    )
    assert 0 < little < much


@pytest.mark.parametrize("variant", ["vgg", "alex"])
def test_stays_frozen(variant, weights):
    distance = shared_lpips(variant, weights)
    distance.train()
    assert not any(module.training for module in distance.modules())
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_features_of_targets_that_recur_are_computed_once(weights, ordinary, monkeypatch):
    loss, plain = Lpips(weights), shared_lpips("vgg", weights)
    pool = torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    computed = []
    compute = loss._target_features._compute
    monkeypatch.setattr(
        loss._target_features, "_compute", lambda images: computed.append(len(images)) or compute(images)
    )
    for chosen in ([0, 1, 2, 3, 4], [4, 3, 2], [0, 5, 5, 1], [8, 0, 1, 2]):
        render, target = pool[chosen].flip(-1).requires_grad_(), pool[chosen]
        value = loss(Rendering(render[None]), Rendering(target[None]), ordinary)
        assert torch.allclose(value, plain(render, target).mean(), rtol=1e-5)
        (gradient,) = torch.autograd.grad(value, render)
        assert gradient.abs().max() > 0
    assert computed == [8, 3, 4, 4]  # five in fours, three by themselves, one and one new ones in fours


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_features_do_not_depend_on_what_was_met_before(count, weights):
    pool = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    compute = shared_lpips("vgg", weights).features
    with torch.no_grad():
        warm = FeatureCache(compute, 2**30)
        for met in ([3, 4], [7, 0, 9, 2, 11], [5], [1, 8, 6]):
            warm(pool[met])
        chosen = pool[:count].flip(0)
        cold = FeatureCache(compute, 2**30)(chosen)
        assert all(map(torch.equal, cold, warm(chosen)))
        assert count > 3 or all(map(torch.equal, cold, compute(chosen)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_targets_of_small_batches_are_kept_too(count):
    computed = []

    def compute(images):
        computed.append(len(images))
        return [images * 2]

    cache = FeatureCache(compute, limit=2**20)
    pool = torch.rand(6, 3, 4, 4)
    first, second = pool[:count], pool[count : 2 * count]
    for images in (first, second, first.flip(0), torch.cat([first[:-1], second[:1]])):
        assert torch.equal(cache(images)[0], images * 2)
    assert computed == [count, count]


def test_a_full_cache_keeps_what_it_has():
    computed = []

    def compute(images):
        computed.append(len(images))
        return [images * 2]

    cache = FeatureCache(compute, limit=2 * 3 * 4 * 4 * 4)
    pool = torch.rand(4, 3, 4, 4)
    for _ in range(2):
        assert torch.equal(cache(pool)[0], pool * 2)
    assert torch.equal(cache(pool[[0, 1, 1, 0]])[0], pool[[0, 1, 1, 0]] * 2)
    assert computed == [4, 4]


def test_in_bfloat16_values_move_by_less_than_a_thousandth(weights, pictures):
    distance = shared_lpips("vgg", weights)
    expected = distance(*pictures)
    actual = distance.between(*(distance.features(picture, in_bf16=True) for picture in pictures))
    assert actual.dtype == torch.float32
    assert not torch.equal(actual, expected)
    assert (actual - expected).abs().max() < 1e-3
