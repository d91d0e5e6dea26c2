import pytest
import torch

from model.fusion.film import Film
from model.types import Context

VECTOR = Context(semantic=torch.randn(2, 1, 10, generator=torch.Generator().manual_seed(0)))
MAP = Context(depth=torch.rand(2, 1, 1, 12, 12, generator=torch.Generator().manual_seed(0)))
CASES = {"vector": (("semantic", "vector", 10), VECTOR), "map": (("depth", "map", 1), MAP)}


@pytest.fixture(params=CASES)
def case(request):
    torch.manual_seed(0)
    arguments, context = CASES[request.param]
    return Film(*arguments).block_module(16), context


def test_starts_as_good_as_absent_and_learns_all_the_same(case):
    block, context = case
    h = torch.randn(2, 16, 6, 6)
    out = block(h, context)
    assert 0 < (out - h).abs().max() < 1e-3
    out.square().sum().backward()
    assert block.scale_shift.weight.grad.abs().max() > 0.1


def test_scales_and_shifts():
    block = Film("semantic", "vector", 10).block_module(16)
    torch.nn.init.zeros_(block.scale_shift.weight)
    block.scale_shift.bias.data = torch.cat([torch.full((16,), 2.0), torch.arange(16.0)])
    h = torch.randn(2, 16, 6, 6)
    torch.testing.assert_close(block(h, VECTOR), 3 * h + torch.arange(16.0)[:, None, None])


def test_a_vector_acts_alike_everywhere_and_a_map_where_it_is(case):
    block, context = case
    torch.nn.init.normal_(block.scale_shift.weight)
    modulation = block(torch.ones(2, 16, 6, 6), context)
    varies = modulation.flatten(2).std(dim=2).min() > 1e-3
    assert varies == (context.get("depth") is not None)


def test_a_map_acts_on_the_pixels_below_its_own():
    block = Film("depth", "map", 1).block_module(16)
    torch.nn.init.ones_(block.scale_shift.weight)
    depth = torch.zeros(1, 1, 1, 12, 12)
    depth[..., 1, 1] = 1  # one of the four that are averaged
    out = block(torch.ones(1, 16, 6, 6), Context(depth=depth))[0, 0]
    assert out[0, 0] > out.flatten()[1:].max()
    assert out.flatten()[1:].std() < 1e-6
