"""The published cross-attention, and tests of the two reasons for its weakness."""

import torch

from model.fusion.xattn import CrossAttention, CrossAttentionBlock, attend
from model.types import Context

CHANNELS, SIZE = 16, 6


def block(source, context_type, width):
    """A block in double precision, with an output layer large enough to have an effect."""
    torch.manual_seed(0)
    module = CrossAttention(source, context_type, width).block_module(CHANNELS).double()
    torch.nn.init.normal_(module.out.weight)
    return module


def features():
    return torch.randn(2, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).double()


def test_attention_is_torchs_own():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, CHANNELS, SIZE, SIZE, generator=generator).double()
    key_value = torch.randn(2, 2 * CHANNELS, 5, 7, generator=generator).double()
    rows = [x.flatten(2).transpose(1, 2) for x in (query, key_value[:, 0::2], key_value[:, 1::2])]
    expected = torch.nn.functional.scaled_dot_product_attention(*rows)
    torch.testing.assert_close(attend(query, key_value).flatten(2).transpose(1, 2), expected)


def test_attention_to_a_depth_map_among_its_numbers_is_that_to_their_keys():
    module = block("depth", "map", 1)
    torch.nn.init.normal_(module.key_value.weight)
    torch.nn.init.normal_(module.key_value.bias)
    torch.nn.init.constant_(module.context_norm.bias, 0.3)
    h, depth = features().requires_grad_(), torch.rand(2, 1, 1, 5, 7).double()
    plain = CrossAttentionBlock("depth", CHANNELS, module.context_norm, module.key_value).double()
    plain.load_state_dict(module.state_dict())
    ours, theirs = module(h, Context(depth=depth)), plain(h, Context(depth=depth))
    torch.testing.assert_close(ours, theirs)
    direction = torch.randn_like(ours)
    for (name, mine), its in zip(module.named_parameters(), plain.parameters(), strict=True):
        found, expected = (
            torch.autograd.grad(y, weights, direction, retain_graph=True)[0]
            for y, weights in ((ours, mine), (theirs, its))
        )
        torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")
    found, expected = (torch.autograd.grad(y, h, direction)[0] for y in (ours, theirs))
    torch.testing.assert_close(found, expected)


def test_starts_as_good_as_absent():
    module = CrossAttention("semantic", "vector", 10).block_module(CHANNELS)
    h = features().float()
    assert (module(h, Context(semantic=torch.rand(2, 1, 10))) - h).abs().max() < 1e-4


def test_with_a_vector_as_only_key_the_softmax_is_one_and_every_pixel_gets_the_value():
    attended = attend(features(), torch.randn(2, 2 * CHANNELS, 1).double())
    assert torch.equal(attended, attended[:, :, :1, :1].expand_as(attended))
    value = torch.randn(2, CHANNELS).double()
    key_value = torch.stack([torch.randn(2, CHANNELS).double(), value], dim=2).flatten(1)
    assert torch.equal(attend(features(), key_value), value[:, :, None, None].expand(2, -1, SIZE, SIZE))


def test_with_a_vector_as_only_key_queries_and_keys_have_no_effect():
    """The block leaves them out; as published, they get a gradient of exactly zero."""
    module = block("semantic", "vector", 10)
    plain = CrossAttentionBlock("semantic", CHANNELS, module.context_norm, module.key_value).double()
    plain.load_state_dict(module.state_dict())
    h, context = features().requires_grad_(), Context(semantic=torch.randn(2, 1, 10).double())
    ours, theirs = module(h, context), plain(h, context)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(ours)
    for (name, mine), its in zip(module.named_parameters(), plain.parameters(), strict=True):
        found, expected = (
            torch.autograd.grad(y, weights, direction, retain_graph=True, allow_unused=True)[0]
            for y, weights in ((ours, mine), (theirs, its))
        )
        if name.startswith("query"):
            assert found is None
            assert expected.abs().max() == 0
        else:
            torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")
    found, expected = (torch.autograd.grad(y, h, direction)[0] for y in (ours, theirs))
    torch.testing.assert_close(found, expected)


def test_to_a_map_it_does_not_see_where_pixels_are():
    module, h = block("depth", "map", 1), features()
    depth = torch.rand(2, 1, 1, 12, 12, generator=torch.Generator().manual_seed(2)).double()
    order = torch.randperm(144, generator=torch.Generator().manual_seed(3))
    shuffled = depth.flatten(3)[..., order].view_as(depth)
    torch.testing.assert_close(
        module(h, Context(depth=shuffled)), module(h, Context(depth=depth)), rtol=1e-12, atol=1e-12
    )


def test_to_a_map_it_does_not_see_scale_and_shift():
    module, h = block("depth", "map", 1), features()
    depth = torch.rand(2, 1, 1, 12, 12, generator=torch.Generator().manual_seed(2)).double()
    scaled = module(h, Context(depth=7 * depth + 3))
    torch.testing.assert_close(scaled, module(h, Context(depth=depth)), rtol=1e-3, atol=1e-3)
