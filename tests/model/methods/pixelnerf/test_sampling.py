import numpy as np
import pytest
import torch

from model.methods.pixelnerf.sampling import Draws, SampleCounts, around_depth, by_importance, stratified

NEAR, FAR = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 2.5]).double()


def test_stratified_samples_lie_one_in_each_interval():
    uniform = torch.rand(2, 8, dtype=torch.float64)
    distances = stratified(NEAR, FAR, uniform)
    for ray in range(2):
        length = (FAR[ray] - NEAR[ray]).item() / 8
        for k in range(8):
            expected = NEAR[ray].item() + (k + uniform[ray, k].item()) * length
            assert distances[ray, k].item() == pytest.approx(expected)


def test_intervals_are_found_by_the_inverse_of_their_cumulated_weights():
    weights = torch.tensor([[0.0, 0.5, 0.0, 0.25], [0.0, 0.0, 0.0, 0.0]]).double()
    interval = torch.tensor([[0.0, 0.3, 0.7, 0.999999], [0.1, 0.26, 0.51, 0.9]]).double()
    within = torch.tensor([[0.5, 0.25, 0.0, 0.75], [0.5, 0.5, 0.5, 0.5]]).double()
    distances = by_importance(NEAR, FAR, weights, interval, within)
    for ray in range(2):
        share = (weights[ray].numpy() + 1e-5) / (weights[ray].numpy() + 1e-5).sum()
        for sample in range(4):
            chosen, mass = 0, share[0]
            while mass <= interval[ray, sample].item():
                chosen += 1
                mass += share[chosen]
            place = (chosen + within[ray, sample].item()) / 4
            expected = NEAR[ray].item() + (FAR[ray] - NEAR[ray]).item() * place
            assert distances[ray, sample].item() == pytest.approx(expected)
    # First ray: an interval without weight is almost never drawn.  Second ray: all intervals are equally likely.
    places = ((distances - NEAR[:, None]) / (FAR - NEAR)[:, None] * 4).floor().tolist()
    assert places == [[0, 1, 3, 3], [0, 1, 2, 3]]


def test_samples_fall_where_the_weights_are():
    weights = torch.tensor([1.0, 3.0, 0.0, 4.0]).double()
    uniform = torch.rand(2, 1, 20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    distances = by_importance(NEAR[:1], FAR[:1], weights[None], uniform[0], uniform[1])
    counts = np.histogram(distances.numpy(), bins=4, range=(1.0, 3.0))[0] / 20_000
    np.testing.assert_allclose(counts, [1 / 8, 3 / 8, 0, 4 / 8], atol=0.015)


def test_no_number_falls_behind_the_last_interval():
    weights = torch.full((1, 64), 0.3)
    distances = by_importance(torch.zeros(1), torch.ones(1), weights, torch.ones(1, 1), torch.full((1, 1), 0.5))
    assert distances.item() == pytest.approx(63.5 / 64)


def test_weights_get_no_gradient():
    weights = torch.rand(2, 8, dtype=torch.float64, requires_grad=True)
    uniform = torch.rand(2, 4, dtype=torch.float64)
    assert not by_importance(NEAR, FAR, weights, uniform, uniform).requires_grad


def test_depth_samples_are_normal_within_the_bounds():
    normal = torch.tensor([[0.0, 2.0, -500.0, 500.0], [-1.0, 1.0, 0.5, -0.5]]).double()
    depth = torch.tensor([1.5, 2.25]).double()
    distances = around_depth(NEAR, FAR, depth, 0.01, normal)
    np.testing.assert_allclose(distances[0], [1.5, 1.52, 1.0, 3.0])
    np.testing.assert_allclose(distances[1], [2.24, 2.26, 2.255, 2.245])


def test_depth_samples_pass_gradients_except_at_the_bounds():
    depth = torch.tensor([1.5, 2.25]).double().requires_grad_()
    normal = torch.tensor([[0.0, 2.0, -500.0, 500.0], [-1.0, 1.0, 0.5, -0.5]]).double()
    around_depth(NEAR, FAR, depth, 0.01, normal).sum().backward()
    assert depth.grad.tolist() == [2.0, 4.0]


def test_draws_follow_their_generator():
    counts = SampleCounts(coarse=5, importance=3, depth=2)
    like = torch.zeros(())
    first, again = (Draws.make((2, 4), counts, like, torch.Generator().manual_seed(7)) for _ in range(2))
    torch.manual_seed(3)
    other = Draws.make((2, 4), counts, like)
    torch.manual_seed(3)
    same = Draws.make((2, 4), counts, like)
    assert counts.fine == 10
    for name, count in (("coarse", 5), ("interval", 3), ("within", 3), ("depth", 2)):
        assert getattr(first, name).shape == (2, 4, count)
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert torch.equal(getattr(other, name), getattr(same, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
        assert torch.equal(getattr(first.part(1, 3), name), getattr(first, name)[:, 1:3])
