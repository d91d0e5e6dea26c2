import pytest
import torch

from model.fusion.xattn import CrossAttention
from model.fusion.xattn_positional import PositionalCrossAttention
from model.types import Context

CHANNELS = 16


def make(cls):
    torch.manual_seed(0)
    return cls("depth", "map", 1).block_module(CHANNELS)


@pytest.fixture
def block():
    module = make(PositionalCrossAttention).double()
    torch.nn.init.normal_(module.out.weight)
    return module


@pytest.fixture
def depth():
    return torch.rand(2, 1, 1, 12, 12, generator=torch.Generator().manual_seed(2)).double()


def test_sees_where_pixels_are(block, depth):
    h = torch.randn(2, CHANNELS, 6, 6).double()
    shuffled = depth.flatten(3)[..., torch.randperm(144)].view_as(depth)
    assert (block(h, Context(depth=shuffled)) - block(h, Context(depth=depth))).abs().max() > 0.1


def test_scale_and_shift_of_relative_depth_have_no_effect(block, depth):
    h = torch.randn(2, CHANNELS, 6, 6).double()
    scaled = block(h, Context(depth=7 * depth + 3))
    torch.testing.assert_close(scaled, block(h, Context(depth=depth)), rtol=1e-3, atol=1e-3)


def test_queries_learn(block, depth):
    block(torch.randn(2, CHANNELS, 6, 6).double(), Context(depth=depth)).square().sum().backward()
    assert block.query.weight.grad.abs().max() > 1e-3


def test_learns_to_hand_on_the_depth_of_each_pixel_which_the_published_one_cannot():
    unexplained = {cls: _after_training(make(cls)) for cls in (CrossAttention, PositionalCrossAttention)}
    assert unexplained[CrossAttention] > 0.9
    assert unexplained[PositionalCrossAttention] < 0.5


def _after_training(block) -> float:
    """The fraction of the depth's variance that the trained block's first channel does not explain."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(block.parameters(), lr=1e-2)
    for _ in range(120):
        depth = torch.randn(8, 1, 1, 4, 4, generator=generator)
        out = block(torch.zeros(8, CHANNELS, 4, 4), Context(depth=depth))
        loss = (out[:, 0] - torch.nn.functional.group_norm(depth[:, 0], 1)[:, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()
