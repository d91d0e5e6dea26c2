import json
import math
import re

import numpy as np
import pytest
import torch

from model.fusion.concat import Concat
from model.fusion.xattn import CrossAttention
from model.methods.splatter_image.backbones.unet import SelfAttention, UNet, join_views, split_views
from model.methods.splatter_image.camera_embedding import POSE_CHANNELS
from model.official import OfficialUNet, official_state_dict, unet_from_official
from model.official.names import published_names
from model.types import Context

# Sizes of `functional_reference.Sizes`, and the shape of the images (B, V, H, W).
VARIANTS = {
    "four levels": ({"attention": (8,)}, (2, 1, 16, 16)),
    "attention at several levels": ({"mult": (1, 2), "blocks": 2, "attention": (8, 16)}, (1, 1, 16, 16)),
    "no listed attention": ({"mult": (2, 1, 3), "blocks": 3}, (1, 1, 16, 16)),
    "four blocks": ({"mult": (1, 1), "blocks": 4, "attention": (4,), "resolution": 8}, (2, 1, 8, 8)),
    "one level": ({"mult": (2,), "attention": (8,), "resolution": 8}, (1, 1, 8, 8)),
    "more than 128 channels": ({"base": 160, "mult": (1,), "resolution": 4}, (1, 1, 4, 4)),
    "not square": ({"mult": (1, 2, 2), "attention": (8,)}, (1, 1, 16, 24)),
    "other channels": ({"channels_in": 5, "channels_out": 15, "base": 12, "mult": (1, 3)}, (1, 1, 16, 16)),
    "camera vector, one view": ({"camera": 60, "attention": (8,)}, (2, 1, 16, 16)),
    "camera vector, two views": ({"camera": 60, "attention": (8, 2), "blocks": 2}, (2, 2, 16, 16)),
    "three views": ({"mult": (1, 2), "attention": (16,)}, (2, 3, 16, 16)),
    "attention to a vector": ({"attention": (4,), "global_dim": 10, "global_at": (4,)}, (2, 1, 16, 16)),
    "attention to a map": ({"attention": (4,), "spatial_channels": 1, "spatial_at": (4,)}, (2, 1, 16, 16)),
    "attention to both, elsewhere than to itself, two views": (
        {"attention": (8,), "global_dim": 7, "global_at": (4, 2), "spatial_channels": 2, "spatial_at": (4,)},
        (2, 2, 16, 16),
    ),
    "concatenated vector": ({"attention": (4,), "concat": 9}, (2, 1, 16, 16)),
    "concatenated vector and attention to a map": (
        {"mult": (1, 2), "attention": (8,), "concat": 9, "spatial_channels": 1, "spatial_at": (8,)},
        (2, 1, 16, 16),
    ),
}


def torch_state(state):
    return {name: torch.from_numpy(value) for name, value in state.items()}


def load(state, sizes):
    return unet_from_official(
        torch_state(state),
        resolution=sizes.resolution,
        base_dim=sizes.base,
        num_blocks=sizes.blocks,
        channel_mult=sizes.mult,
        attention_resolutions=sizes.attention,
        in_channels=sizes.channels_in,
        out_channels=sizes.channels_out,
        camera_embedding_dim=sizes.camera,
        global_context_dim=sizes.global_dim,
        spatial_context_channels=sizes.spatial_channels,
        global_cross_attention_resolutions=sizes.global_at,
        spatial_cross_attention_resolutions=sizes.spatial_at,
    )


def inputs(sizes, shape):
    """Random inputs, by their parameter names in `functional_reference.unet`."""
    generator = np.random.default_rng(1)
    count, (height, width) = shape[0] * shape[1], shape[2:]
    wanted = {
        "x": (count, sizes.channels_in, height, width),
        "camera_embedding": (count, sizes.camera) if sizes.camera else None,
        "vector": (count, dim) if (dim := sizes.global_dim or sizes.concat) else None,
        "maps": (count, sizes.spatial_channels, height, width) if sizes.spatial_channels else None,
    }
    return {name: generator.standard_normal(shape) for name, shape in wanted.items() if shape is not None}


def call(network, values, views):
    tensors = {name: torch.as_tensor(value) for name, value in values.items()}
    names = {"vector": "global_context", "maps": "spatial_context"}
    return network(**{names.get(name, name): value for name, value in tensors.items()}, num_views=views)


@pytest.mark.parametrize(("settings", "shape"), VARIANTS.values(), ids=VARIANTS)
def test_every_variant_is_the_published_network(settings, shape, functional):
    sizes = functional.Sizes(**settings)
    state = functional.random_state(functional.shapes(sizes))
    values, views = inputs(sizes, shape), shape[1]
    expected = torch.from_numpy(functional.unet(state, sizes, **values, views=views))
    network = load(state, sizes)
    found = call(network, values, views)
    assert found.dtype == torch.float64
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()
    single = call(network.float(), values, views)
    assert (single - expected).abs().max() < 5e-5 * expected.abs().max()


def gradients_of(network):
    """By published name; zero for a parameter without effect."""
    names, parameters = published_names(network), network.named_parameters()
    return {names[ours]: torch.zeros_like(p) if p.grad is None else p.grad for ours, p in parameters}


@pytest.mark.parametrize("name", ["camera vector, two views", "attention to both, elsewhere than to itself, two views"])
def test_gradients_are_those_of_the_published_network(name, functional):
    """Directional derivatives over all parameters and the image agree with finite differences of the reference."""
    settings, shape = VARIANTS[name]
    sizes = functional.Sizes(**settings)
    state = functional.random_state(functional.shapes(sizes))
    values, views = inputs(sizes, shape), shape[1]
    generator = np.random.default_rng(2)
    probe = generator.standard_normal((shape[0] * views, 24, *shape[2:]))
    network, image = load(state, sizes), torch.from_numpy(values["x"].copy()).requires_grad_()
    (call(network, values | {"x": image}, views) * torch.from_numpy(probe)).sum().backward()
    gradients = {name: gradient.numpy() for name, gradient in gradients_of(network.unet).items()}
    direction = {name: generator.standard_normal(gradient.shape) for name, gradient in gradients.items()}
    direction_x = generator.standard_normal(image.shape)
    slope = sum((gradients[name] * direction[name]).sum() for name in gradients)
    slope += (image.grad.numpy() * direction_x).sum()

    def value(step):
        moved = state | {name: state[name] + step * direction[name] for name in direction}
        x = values["x"] + step * direction_x
        return (functional.unet(moved, sizes, **values | {"x": x}, views=views) * probe).sum()

    step = 1e-6
    assert slope == pytest.approx((value(step) - value(-step)) / (2 * step), rel=1e-6)


SHARED = ["unet_attn8", "semantic_xattn", "depth_xattn", "concat_clip"]


def load_shared(name, fixtures):
    """A U-Net with the reference's weights, its contexts, and the reference's outputs for them."""
    reference = torch.load(fixtures / f"{name}.pt", weights_only=True)
    config = reference["config"]
    unet = unet_from_official(
        reference["state_dict"],
        resolution=config["img_resolution"],
        base_dim=config["model_channels"],
        num_blocks=config["num_blocks"],
        channel_mult=config.get("channel_mult", (1, 2, 2, 2)),
        attention_resolutions=config["attn_resolutions"],
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        global_context_dim=config.get("global_context_dim", 0),
        spatial_context_channels=config.get("spatial_context_channels", 0),
        global_cross_attention_resolutions=config.get("global_cross_attn_resolutions", ()),
        spatial_cross_attention_resolutions=config.get("spatial_cross_attn_resolutions", ()),
    )
    contexts = {
        "global_context": reference.get("global_context", reference.get("embedding")),
        "spatial_context": reference.get("spatial_context"),
    }
    return unet, contexts, reference


@pytest.mark.parametrize("name", SHARED)
def test_outputs_are_the_references(name, fixtures):
    unet, contexts, reference = load_shared(name, fixtures)
    single = unet(reference["x"], **contexts)
    assert (single - reference["out_f32"]).abs().max() < 5e-5 * reference["out_f32"].abs().max()
    double = unet.double()(reference["x"].double(), **contexts)
    assert (double - reference["out_f64"]).abs().max() < 1e-10 * reference["out_f64"].abs().max()


@pytest.mark.parametrize("name", ["unet_attn8", "semantic_xattn", "depth_xattn"])
def test_gradients_are_the_references(name, fixtures):
    unet, contexts, reference = load_shared(name, fixtures)
    x = reference["x"].clone().requires_grad_()
    (unet(x, **contexts) * reference["probe"]).sum().backward()
    expected = reference["grad_x_f32"]
    assert (x.grad - expected).abs().max() < 5e-5 * expected.abs().max()
    norms = {name: gradient.norm().item() for name, gradient in gradients_of(unet.unet).items()}
    assert norms.keys() == reference["grad_norms_f32"].keys()
    largest = max(norms.values())
    for parameter, norm in reference["grad_norms_f32"].items():
        assert norms[parameter] == pytest.approx(norm, rel=1e-3, abs=1e-6 * largest), parameter


def initial_bound(name, shape):
    """The bound of the uniform distribution that initialises a published weight; None for norms and biases."""
    if len(shape) == 1:
        return None
    gains = {
        r"conv1\.weight|(?<!_)proj\.weight|out_proj\.weight": 1e-5,
        r"qkv|q_proj|kv_proj": 0.2**0.5,
        "aux_conv": 0.2,
    }
    gain = next((gain for pattern, gain in gains.items() if re.search(pattern, name)), 1.0)
    fan_in, fan_out = (channels * math.prod(shape[2:]) for channels in (shape[1], shape[0]))
    return gain * math.sqrt(6 / (fan_in + fan_out))


def assert_starts_as_published(name, shape, largest, spread):
    bound, count = initial_bound(name, shape), math.prod(shape)
    if bound is None:
        is_gain = "norm" in name and name.endswith("weight")
        assert (largest, spread) == (float(is_gain), 0), name
        return
    assert largest <= bound * (1 + 1e-6), name
    assert largest > bound * (1 - 12 / count), name  # fails once in 160,000
    # The variance of a uniform sample's variance is 0.8 / count of its square; five deviations.
    assert spread == pytest.approx(bound / 3**0.5, rel=2.5 / count**0.5), name


def initialised():
    torch.manual_seed(0)
    fusions = [CrossAttention("semantic", "vector", 1000), CrossAttention("depth", "map", 1)]
    return UNet(
        resolution=32,
        base_dim=16,
        num_blocks=1,
        attention_resolutions=(16,),
        camera_channels=POSE_CHANNELS,
        fusions=fusions,
    )


def test_weights_start_as_published():
    for name, value in official_state_dict(OfficialUNet(initialised())).items():
        if not name.endswith("resample_filter"):
            spread = value.std(correction=0).item()
            assert_starts_as_published(name, value.shape, value.abs().max().item(), spread)


def test_the_reference_starts_from_the_same_distributions(fixtures):
    statistics = json.loads((fixtures / "init_stats_unet.json").read_text())
    statistics = {name: facts for name, facts in statistics.items() if not name.endswith("resample_filter")}
    ours = official_state_dict(OfficialUNet(initialised()))
    assert {name: list(ours[name].shape) for name in statistics} == {n: f["shape"] for n, f in statistics.items()}
    for name, facts in statistics.items():
        assert_starts_as_published(name, facts["shape"], facts["absmax"], facts["std"])


@pytest.mark.parametrize(("resolution", "mult", "blocks"), [(16, (1, 2), 1), (32, (1, 1, 2), 2), (24, (2,), 1)])
def test_maps_keep_the_size_of_the_image(resolution, mult, blocks):
    unet = UNet(resolution=resolution, base_dim=8, num_blocks=blocks, channel_mult=mult, attention_resolutions=(8,))
    out = unet(torch.rand(2, 3, resolution, resolution), Context())
    assert out.shape == (2, 24, resolution, resolution)


def test_only_the_last_decoder_block_of_an_attention_level_attends():
    unet = UNet(resolution=32, base_dim=8, num_blocks=2, channel_mult=(1, 2, 2), attention_resolutions=(16,))
    attending = [name for name, module in unet.named_modules() if isinstance(module, SelfAttention)]
    assert attending == [
        "encoder.3.attention",  # both encoder blocks at 16 px; 0, 1 are at 32 px, 2 goes down
        "encoder.4.attention",
        "decoder_entries.0.0.attention",  # always, at the lowest level
        "decoder_blocks.1.2.attention",
    ]


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    unet, images = UNet(resolution=8, base_dim=8, num_blocks=1, channel_mult=(1,)), torch.rand(1, 3, 8, 8)
    for module in unet.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.xavier_uniform_(module.weight)
    assert not torch.equal(unet(images, Context()), unet(images, Context()))
    unet.eval()
    assert torch.equal(unet(images, Context()), unet(images, Context()))


def test_views_are_joined_along_the_height_and_parted_again():
    x = torch.arange(2 * 3 * 4 * 2 * 5).view(6, 4, 2, 5)
    joined = join_views(x, 3)
    assert joined.shape == (2, 4, 6, 5)
    assert torch.equal(joined[1, :, 2:4], x[4])
    assert torch.equal(split_views(joined, 3), x)


def test_views_know_each_other_only_by_attention():
    unet = UNet(resolution=8, base_dim=8, num_blocks=1, channel_mult=(1, 1), attention_resolutions=(8,)).eval()
    for module in unet.modules():
        if isinstance(module, SelfAttention):
            torch.nn.init.xavier_uniform_(module.proj.weight)
    images = torch.rand(4, 3, 8, 8)
    alone, together = unet(images, Context()), unet(images, Context(), 2)
    assert not torch.allclose(alone, together)
    swapped = unet(images[[1, 0, 3, 2]], Context(), 2)
    torch.testing.assert_close(swapped[[1, 0, 3, 2]], together)
    other = torch.cat([images[:2], torch.rand(2, 3, 8, 8)])
    torch.testing.assert_close(unet(other, Context(), 2)[:2], together[:2])


def test_a_missing_source_of_context_is_named():
    fusions = [Concat("semantic", "vector", 4)]
    unet = UNet(resolution=16, base_dim=8, num_blocks=1, channel_mult=(1, 1), fusions=fusions)
    with pytest.raises(ValueError, match="semantic"):
        unet(torch.rand(1, 3, 16, 16), Context())


def test_a_pose_embedding_is_required_or_refused():
    sizes = {"resolution": 8, "base_dim": 8, "num_blocks": 1, "channel_mult": (1,)}
    images, pose = torch.rand(1, 3, 8, 8), torch.rand(1, 60)
    with pytest.raises(ValueError, match="takes no pose_embedding"):
        UNet(**sizes)(images, Context(), pose_embedding=pose)
    with pytest.raises(ValueError, match="none was given"):
        UNet(**sizes, camera_channels=60)(images, Context())
