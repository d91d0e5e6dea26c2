import pytest
import torch

from model.options import OptionsError, parse_options
from model.semantic.random import RandomEncoder, RandomOptions
from model.weights import WeightStore


@pytest.fixture
def build(tmp_path):
    """Builds a random encoder with an empty store, since it needs no file."""

    def build(of="efficientnet_lite0", seed=0, **settings):
        return RandomEncoder(WeightStore(tmp_path / "empty"), options=RandomOptions(of, seed), **settings)

    return build


def test_its_values_are_a_function_of_architecture_and_seed(build, views):
    values = build()(views)
    assert torch.equal(values, build()(views))
    assert not torch.allclose(values, build(seed=1)(views))
    assert not torch.allclose(values[0, 0], values[1, 1]), "it does not tell pictures apart"


def test_torchs_generator_is_left_alone(build):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build()
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("output_type", ["vector", "tokens"])
def test_it_has_the_shape_of_what_it_stands_in_for(output_type, build, encoder, views):
    real, random = encoder("efficientnet_lite0", output_type=output_type), build(output_type=output_type)
    assert random(views).shape == real(views).shape
    assert random.width == real.width
    assert torch.equal(random.model.prepared(views.images[0]), real.prepared(views.images[0]))


def test_the_architecture_of_a_transformer(build, views):
    model = build(of="dinov2_small", resolution=28)
    assert model(views).shape == (2, 2, 384)
    assert not any(module.training for module in model.modules())


def test_no_weights_are_needed():
    assert RandomEncoder.weights(RandomOptions()) == ()


@pytest.mark.parametrize("name", ["timm", "random", "dinov3"])
def test_what_has_no_architecture_before_its_weights_is_refused(name):
    with pytest.raises(OptionsError, match="architecture of its own"):
        parse_options(RandomOptions, {"of": name}, choice="random", where="semantic.options")
