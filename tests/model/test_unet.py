import pytest
import torch

from model.fusion.concat import Concat
from model.fusion.xattn import CrossAttention
from model.types import Context
from model.unet import TAIL_CHANNELS, SelfAttention, UNet, conv

CASES = {
    "unet_attn8": ([], "", None),
    "semantic_xattn": ([CrossAttention("semantic", 1000)], "global_cross_attn_block", "global_context"),
    "depth_xattn": ([CrossAttention("depth", 1)], "spatial_cross_attn_block", "spatial_context"),
    "concat_clip": ([Concat("semantic", 512)], "", "embedding"),
}


def load_case(name, fixtures, load_published):
    """A U-Net with the reference's weights, its inputs, and what the reference made of them."""
    fusions, block, field = CASES[name]
    reference = torch.load(fixtures / f"{name}.pt", weights_only=True)
    unet = UNet(
        resolution=32,
        base_dim=16,
        num_blocks=1,
        attention_resolutions=reference["config"]["attn_resolutions"],
        fusions=fusions,
    )
    source = None if field is None else fusions[0].source
    context = Context(**({} if source is None else {source: reference[field][:, None]}))
    return load_published(unet, reference["state_dict"], 32, block), reference, context


@pytest.fixture(params=CASES)
def case(request, fixtures, load_published):
    return load_case(request.param, fixtures, load_published)


def test_outputs_are_the_references_in_double_precision(case):
    unet, reference, context = case
    out = unet.double()(reference["x"].double(), context.to(torch.float64))
    assert (out - reference["out_f64"]).abs().max() < 1e-12


def test_outputs_are_the_references_in_single_precision(case):
    unet, reference, context = case
    assert (unet(reference["x"], context) - reference["out_f32"]).abs().max() < 5e-5


@pytest.mark.parametrize("name", ["unet_attn8", "semantic_xattn", "depth_xattn"])
def test_gradient_with_respect_to_the_image_is_the_references(name, fixtures, load_published):
    unet, reference, context = load_case(name, fixtures, load_published)
    x = reference["x"].clone().requires_grad_()
    (unet(x, context) * reference["probe"]).sum().backward()
    torch.testing.assert_close(x.grad, reference["grad_x_f32"], rtol=1e-3, atol=1e-4)


def test_as_published_a_vector_as_only_key_leaves_the_query_without_gradient():
    attention = CrossAttention("semantic", 10).block_module(16)
    torch.nn.init.normal_(attention.out.weight)
    out = attention(torch.randn(2, 16, 4, 4), Context(semantic=torch.randn(2, 1, 10)))
    out.square().sum().backward()
    assert attention.query.weight.grad.abs().max() == 0
    assert attention.key_value.weight.grad.abs().max() > 0


def test_as_published_attention_to_a_map_does_not_see_where_its_pixels_are():
    attention = CrossAttention("depth", 1).block_module(16).double()
    torch.nn.init.normal_(attention.out.weight)
    h, depth = torch.randn(1, 16, 4, 4).double(), torch.rand(1, 1, 1, 8, 8).double()
    shuffled = depth.flatten()[torch.randperm(64)].view_as(depth)
    same = attention(h, Context(depth=depth)), attention(h, Context(depth=shuffled))
    torch.testing.assert_close(*same)
    scaled = attention(h, Context(depth=7 * depth + 3))
    torch.testing.assert_close(same[0], scaled, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("resolution", "mult", "blocks"), [(16, (1, 2), 1), (32, (1, 1, 2), 2), (24, (2,), 1)])
def test_maps_keep_the_size_of_the_image(resolution, mult, blocks):
    unet = UNet(resolution=resolution, base_dim=8, num_blocks=blocks, channel_mult=mult, attention_resolutions=(8,))
    out = unet(torch.rand(2, 3, resolution, resolution), Context())
    assert out.shape == (2, TAIL_CHANNELS, resolution, resolution)


def test_only_the_last_decoder_block_of_an_attention_level_attends():
    unet = UNet(resolution=32, base_dim=8, num_blocks=2, channel_mult=(1, 2, 2), attention_resolutions=(16,))
    attending = [name for name, module in unet.named_modules() if isinstance(module, SelfAttention)]
    assert attending == [
        "encoder.3.attention",  # both encoder blocks at 16 px; 0, 1 are at 32 px, 2 goes down
        "encoder.4.attention",
        "decoder_entries.0.0.attention",  # always, at the lowest level
        "decoder_blocks.1.2.attention",
    ]


def test_full_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        unet = UNet(resolution=128, base_dim=128, num_blocks=4, attention_resolutions=(16,))
    head = TAIL_CHANNELS * 24 + 24
    assert sum(p.numel() for p in unet.parameters()) + head == 56_378_736


def test_initial_weights_lie_within_their_bounds():
    torch.manual_seed(0)
    layer = conv(16, 32, 3, gain=0.2)
    bound = 0.2 * (6 / (9 * 16 + 9 * 32)) ** 0.5
    assert layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert layer.bias.abs().max() == 0


def test_a_missing_source_of_context_is_named():
    unet = UNet(resolution=16, base_dim=8, num_blocks=1, channel_mult=(1, 1), fusions=[Concat("semantic", 4)])
    with pytest.raises(ValueError, match="semantic"):
        unet(torch.rand(1, 3, 16, 16), Context())
