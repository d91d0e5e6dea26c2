from dataclasses import replace

import pytest
import torch

from model.methods import find_method
from model.methods.base import Setting
from model.methods.pixelnerf.options import PixelNerfOptions
from model.methods.pixelnerf.reconstructor import PixelNerfReconstructor
from model.options import MisfitError
from model.types import Context
from tests.model.methods.pixelnerf.scenery import small_options, source_views

PixelNerf = find_method("pixelnerf")


class Weights:
    """A store of random ImageNet weights that counts how often they are read."""

    def __init__(self):
        torch.manual_seed(5)
        self.tensors = dict(PixelNerfReconstructor(PixelNerfOptions()).encoder.state_dict())
        self.tensors |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
        self.loaded = []

    def load(self, name):
        self.loaded.append(name)
        return self.tensors


def build(options, weights=None, seed=0):
    return PixelNerf.build(options, Setting(resolution=32, seed=seed, weights=weights), ())


def test_the_published_sizes_are_the_defaults():
    network = PixelNerfReconstructor(PixelNerfOptions())
    assert sum(p.numel() for p in network.parameters()) == 28_161_864
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == 15_047_496
    assert PixelNerf.targets(PixelNerfOptions()).pixels == 128
    assert PixelNerf.targets(PixelNerfOptions()).in_box_until == 100_000


def test_the_encoder_starts_from_imagenet_where_it_is_pretrained():
    weights = Weights()
    network = build(PixelNerfOptions(), weights)
    assert weights.loaded == ["resnet34"] == list(PixelNerf.weights(PixelNerfOptions()))
    torch.testing.assert_close(network.encoder.conv1.weight, weights.tensors["conv1.weight"])
    from_scratch = PixelNerfOptions(pretrained=False)
    assert PixelNerf.weights(from_scratch) == ()
    assert not torch.equal(build(from_scratch, weights).encoder.conv1.weight, network.encoder.conv1.weight)
    assert weights.loaded == ["resnet34"]


def test_initial_weights_follow_the_seed_alone():
    first, again, other = (build(small_options(), seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    assert not torch.equal(first["fine.input.weight"], other["fine.input.weight"])
    assert not torch.equal(first["fine.input.weight"], first["coarse.input.weight"])


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"encoder_width": 32}, "model.encoder_width", "encoder_width 32 has no ImageNet weights.*allowed: 64"),
        ({"pretrained": False, "batch_norm": "frozen"}, "model.batch_norm", "frozen needs statistics.*allowed: batch"),
        ({"blocks": 2}, "model.view_blocks", "view_blocks 3 is more than model.blocks 2"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(changes, key, message):
    with pytest.raises(MisfitError, match=message) as caught:
        PixelNerf.check(PixelNerfOptions(**changes), 32)
    assert caught.value.key == key


def test_views_without_an_origin_are_refused():
    network = PixelNerfReconstructor(small_options())
    with pytest.raises(ValueError, match="no `origin`"):
        network(replace(source_views(), origin=None), Context())


def test_every_trained_weight_gets_a_gradient():
    torch.manual_seed(0)
    network = PixelNerfReconstructor(small_options(coarse_samples=16))
    views = source_views()
    rendering = network(views, Context()).render(views.cameras, views.background)
    loss = sum((r.images - views.images).square().mean() for r in (rendering, *rendering.auxiliary))
    loss.backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    # Second layers of blocks start at zero, so first layers have a gradient of zero.
    still = [name for name, p in network.named_parameters() if not p.grad.any()]
    assert all(".first." in name for name in still)
