import torch

from model.fusion.input import InputChannel
from model.fusion.input_normalised import NormalisedInputChannel
from model.types import Context

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
DEPTH = torch.rand(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def channel(cls, depth):
    out = cls("depth", "map", 1).input_module()(IMAGES, Context(depth=depth))
    assert torch.equal(out[:, :3], IMAGES)
    return out[:, 3:]


def test_each_map_has_mean_0_and_deviation_1():
    maps = channel(NormalisedInputChannel, DEPTH * torch.tensor([1.0, 30.0]).view(2, 1, 1, 1, 1)).flatten(1)
    torch.testing.assert_close(maps.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(maps.std(1, correction=0), torch.ones(2), atol=1e-3, rtol=0)


def test_scale_and_shift_have_no_effect_unlike_in_the_published_one():
    plain, scaled = channel(NormalisedInputChannel, DEPTH), channel(NormalisedInputChannel, 20 * DEPTH + 5)
    torch.testing.assert_close(plain, scaled, atol=1e-3, rtol=1e-3)
    assert torch.equal(channel(InputChannel, 20 * DEPTH + 5), (20 * DEPTH + 5)[:, 0])


def test_a_constant_map_is_zero():
    assert channel(NormalisedInputChannel, torch.full_like(DEPTH, 7.3)).abs().max() < 1e-3
