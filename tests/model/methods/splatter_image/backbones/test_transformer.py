import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from jobs.config import TrialConfig
from model.methods.splatter_image.backbones.transformer import Layer, Transformer
from model.types import Context


def test_a_layer_is_attention_and_two_linear_layers_each_added():
    layer, tokens = Layer(8, 2).double(), torch.randn(2, 5, 8).double()
    normed = layer.norm0(tokens)
    query, key, value = (part.view(2, 5, 2, 4) for part in layer.qkv(normed).chunk(3, dim=-1))
    attended = torch.empty(2, 5, 8).double()
    for head in range(2):
        scores = torch.einsum("bqc,bkc->bqk", query[:, :, head], key[:, :, head]) / 4**0.5
        attended[..., 4 * head : 4 * head + 4] = torch.einsum("bqk,bkc->bqc", scores.softmax(-1), value[:, :, head])
    expected = tokens + layer.proj(attended)
    expected = expected + layer.reduce(F.gelu(layer.expand(layer.norm1(expected))))
    torch.testing.assert_close(layer(tokens), expected)


def test_patches_stay_where_they_are():
    """Without layers, each patch of the maps is a linear function of the same image patch and of its position."""
    network = Transformer(out_channels=5, patch_size=4, width=16, layers=0, heads=2).double()
    images = torch.rand(1, 3, 12, 8).double()
    changed = images.clone()
    changed[:, :, 4:8, 0:4] += 0.5
    moved = (network(images, Context()) - network(changed, Context())).abs().amax((0, 1)) > 1e-12
    expected = torch.zeros(12, 8, dtype=torch.bool)
    expected[4:8, 0:4] = True
    assert torch.equal(moved, expected)


def test_equal_patches_in_different_places_differ():
    network = Transformer(out_channels=5, patch_size=4, width=16, layers=1, heads=2)
    maps = network(torch.full((1, 3, 8, 8), 0.5), Context())
    assert (maps[..., :4, :4] - maps[..., 4:, 4:]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"patch_size": 5}, "data.resolution 32 does not divide by model.patch_size 5"),
        ({"width": 20, "heads": 3}, "model.width 20 does not divide among model.heads 3"),
        ({"base_dim": 16}, "Extra inputs"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(model, message):
    with pytest.raises(ValidationError, match=message):
        TrialConfig.model_validate({"model": {"backbone": "transformer"} | model})
