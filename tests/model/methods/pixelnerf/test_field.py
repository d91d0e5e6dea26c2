import math

import numpy as np
import pytest
import torch

from model.methods.pixelnerf.field import FieldNetwork, encode


def test_positions_are_encoded_by_doubling_frequencies():
    generator = np.random.default_rng(0)
    x, d = generator.normal(size=3), generator.normal(size=3)
    expected = list(x)
    for frequency in (1.5, 3.0, 6.0, 12.0, 24.0, 48.0):
        expected += [math.sin(frequency * value) for value in x]
        expected += [math.cos(frequency * value) for value in x]
    expected += list(d)
    features = encode(torch.tensor(x)[None], torch.tensor(d)[None])
    assert features.shape == (1, 42)
    np.testing.assert_allclose(features[0], expected, atol=1e-12)


def network(**options) -> FieldNetwork:
    torch.manual_seed(0)
    made = FieldNetwork(latent=7, hidden=6, **options).double()
    for parameter in made.parameters():  # as after some training: no zeros
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def by_hand(weights, features, latents, blocks, view_blocks, combination):
    """The field at one point: features (V, 42) and latents (V, L) of its source views -> colour (3,), density."""

    def layer(name, x):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def block(index, x):
        inner = layer(f"blocks.{index}.first", np.maximum(x, 0))
        return x + layer(f"blocks.{index}.second", np.maximum(inner, 0))

    states = []
    for point, latent in zip(features, latents, strict=True):
        x = layer("input", point)
        for index in range(view_blocks):
            x = block(index, x + layer(f"injections.{index}", latent))
        states.append(x)
    x = np.mean(states, axis=0) if combination == "mean" else np.max(states, axis=0)
    for index in range(view_blocks, blocks):
        x = block(index, x)
    raw = layer("output", np.maximum(x, 0))
    return 1 / (1 + np.exp(-raw[:3])), max(raw[3], 0.0)


@pytest.mark.parametrize("combination", ["mean", "max"])
@pytest.mark.parametrize(("blocks", "view_blocks"), [(5, 3), (2, 2), (3, 1)])
def test_blocks_take_source_features_then_combine_views(combination, blocks, view_blocks):
    made = network(blocks=blocks, view_blocks=view_blocks, combination=combination)
    features, latents = (torch.randn(1, 2, 4, n, dtype=torch.float64) for n in (42, 7))
    weight, bias = made.injection
    colours, densities = made(features, latents @ weight.T + bias)
    weights = {name: tensor.numpy() for name, tensor in made.state_dict().items()}
    for point in range(4):
        colour, density = by_hand(
            weights, features[0, :, point].numpy(), latents[0, :, point].numpy(), blocks, view_blocks, combination
        )
        np.testing.assert_allclose(colours[0, point].detach(), colour, rtol=1e-9)
        np.testing.assert_allclose(densities[0, point].item(), density, rtol=1e-9)


def test_softplus_starts_as_a_fog_that_is_the_same_everywhere():
    torch.manual_seed(0)
    made = FieldNetwork(latent=7, hidden=6, density="softplus").double()
    _, densities = made(torch.randn(1, 1, 9, 42).double(), torch.randn(1, 1, 9, 18).double())
    np.testing.assert_allclose(densities.detach(), math.log(1 + math.exp(-1)), rtol=1e-6)


def test_softplus_is_never_zero():
    made = network(density="softplus")
    _, densities = made(torch.randn(1, 2, 50, 42).double(), torch.randn(1, 2, 50, 18).double())
    raw = np.log(np.expm1(densities.detach().numpy()))
    assert (raw < 0).any()
    relu = network()
    _, cut = relu(torch.randn(1, 2, 50, 42).double(), torch.randn(1, 2, 50, 18).double())
    assert not cut.all()


def test_initial_weights_are_the_published_ones():
    torch.manual_seed(0)
    made = FieldNetwork(latent=512)
    assert sum(p.numel() for p in made.parameters()) == 3_438_596
    for name, parameter in made.named_parameters():
        if name.endswith("bias") or name.endswith("second.weight"):
            assert not parameter.any(), name
        else:
            fan_in = parameter.shape[1]
            assert parameter.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05), name
