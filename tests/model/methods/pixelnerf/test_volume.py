import math

import numpy as np
import pytest
import torch

from model.methods.pixelnerf.volume import composite


def by_hand(colours, densities, distances, far):
    """Volume rendering of one ray, sample by sample."""
    ends = [*distances[1:], far]
    transmittance, weights = 1.0, []
    for density, start, end in zip(densities, distances, ends, strict=True):
        alpha = 1 - math.exp(-(end - start) * density)
        weights.append(alpha * transmittance)
        transmittance *= 1 - alpha + 1e-10
    colour = sum(weight * np.array(c) for weight, c in zip(weights, colours, strict=True))
    depth = sum(weight * z for weight, z in zip(weights, distances, strict=True))
    return weights, colour, depth


def test_samples_are_composited_front_to_back():
    generator = torch.Generator().manual_seed(0)
    distances = torch.rand(3, 6, generator=generator, dtype=torch.float64).sort(-1).values + 1
    densities = torch.rand(3, 6, generator=generator, dtype=torch.float64) * 4
    densities[1, 2], densities[2] = 1e4, 0.0  # a wall, and nothing at all
    colours = torch.rand(3, 6, 3, generator=generator, dtype=torch.float64)
    far = torch.full((3,), 2.5, dtype=torch.float64)
    seen = composite(colours, densities, distances, far)
    for ray in range(3):
        weights, colour, depth = by_hand(
            colours[ray].tolist(), densities[ray].tolist(), distances[ray].tolist(), far[ray].item()
        )
        np.testing.assert_allclose(seen.weights[ray], weights, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(seen.colours[ray], colour, rtol=1e-9, atol=1e-15)
        assert seen.depth[ray].item() == pytest.approx(depth)
        assert seen.opacity[ray].item() == pytest.approx(sum(weights))
    assert seen.opacity[2].item() == 0


def test_the_last_sample_reaches_to_far():
    distances, far = torch.tensor([[1.0, 1.5]]).double(), torch.tensor([1.75]).double()
    seen = composite(torch.ones(1, 2, 3).double(), torch.tensor([[0.0, 2.0]]).double(), distances, far)
    assert seen.weights[0, 1].item() == pytest.approx(1 - math.exp(-0.25 * 2.0))


def test_depth_is_not_divided_by_the_opacity():
    seen = composite(
        torch.ones(1, 1, 3).double(),
        torch.tensor([[1.0]]).double(),
        torch.tensor([[2.0]]).double(),
        torch.tensor([3.0]),
    )
    assert seen.depth.item() == pytest.approx(2 * (1 - math.exp(-1)))


def test_a_wall_hides_what_is_behind_it_in_single_precision():
    densities = torch.tensor([[1e3, 1e3, 1e3]])
    colours = torch.eye(3)[None].requires_grad_()
    seen = composite(colours, densities, torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([4.0]))
    torch.testing.assert_close(seen.colours, torch.tensor([[1.0, 0.0, 0.0]]), atol=1e-6, rtol=0)
    seen.colours.sum().backward()
    assert colours.grad.isfinite().all()


def test_gradients_are_those_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    arguments = (
        torch.rand(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True),
        (torch.rand(2, 5, generator=generator, dtype=torch.float64) * 3).requires_grad_(),
        (torch.rand(2, 5, generator=generator, dtype=torch.float64).sort(-1).values).requires_grad_(),
        torch.full((2,), 1.25, dtype=torch.float64),
    )

    def seen(*given):
        result = composite(*given)
        return result.colours, result.depth

    assert torch.autograd.gradcheck(seen, arguments)
