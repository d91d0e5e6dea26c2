from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet34

from model.methods.pixelnerf import PixelNerf
from model.methods.pixelnerf.encoder import Encoder, project, resize
from model.methods.pixelnerf.options import PixelNerfOptions
from model.options import MisfitError


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    network = resnet34()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def torchvision_maps(network, images, *, first_pool):
    first = network.relu(network.bn1(network.conv1(images)))
    second = network.layer1(network.maxpool(first) if first_pool else first)
    third = network.layer2(second)
    return first, second, third, network.layer3(third)


@pytest.mark.parametrize(("first_pool", "sides"), [(True, (32, 16, 8, 4)), (False, (32, 32, 16, 8))])
def test_maps_are_those_of_torchvisions_network(published, first_pool, sides):
    encoder = Encoder(first_pool=first_pool).eval()
    encoder.load_imagenet(published.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps, expected = encoder(images), torchvision_maps(published, images * 2 - 1, first_pool=first_pool)
    assert [features.shape[1:] for features in maps] == [
        (channels, side, side) for channels, side in zip((64, 64, 128, 256), sides, strict=True)
    ]
    assert encoder.channels == (64, 64, 128, 256)
    for features, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(features, theirs)


def test_names_and_numbers_are_torchvisions_without_the_classifier(published):
    encoder = Encoder()
    assert set(encoder.state_dict()) == {name for name in published.state_dict() if not name.startswith("fc.")}
    assert sum(p.numel() for p in encoder.parameters()) == 21_284_672
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == 8_170_304


def test_a_smaller_width_makes_a_smaller_network_without_the_last_stage():
    encoder = Encoder(32, first_pool=False)
    assert encoder.channels == (32, 32, 64, 128)
    assert not any(name.startswith("layer4") for name in encoder.state_dict())
    assert [f.shape[1:] for f in encoder(torch.rand(1, 3, 32, 32))] == [
        (32, 16, 16),
        (32, 16, 16),
        (64, 8, 8),
        (128, 4, 4),
    ]


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match="not the weights of a ResNet34 of width 64"):
        Encoder().load_imagenet(Encoder(32).state_dict())


@pytest.mark.parametrize("frozen", [False, True])
def test_statistics_follow_the_batch_unless_they_are_frozen(frozen):
    encoder = Encoder(8, frozen_statistics=frozen).train()
    before = {name: t.clone() for name, t in encoder.state_dict().items() if "running" in name}
    encoder(torch.rand(2, 3, 32, 32))
    after = encoder.state_dict()
    assert before
    assert all(torch.equal(after[name], t) == frozen for name, t in before.items())
    assert encoder.bn1.weight.requires_grad


def bilinear(cells, place):
    """The interpolated value of a row of cells at a fractional index, with the border replicated outside."""
    place = min(max(place, 0.0), len(cells) - 1.0)
    low = min(int(place), len(cells) - 2) if len(cells) > 1 else 0
    high = min(low + 1, len(cells) - 1)
    return cells[low] * (1 - (place - low)) + cells[high] * (place - low)


@pytest.mark.parametrize(("stride", "cells", "side"), [(2, 8, 16), (4, 4, 16), (8, 2, 16), (2, 3, 6), (8, 1, 8)])
def test_a_deeper_map_lies_where_it_was_computed(stride, cells, side):
    values = torch.rand(cells, dtype=torch.float64)
    rows = values.view(1, cells, 1, 1).expand(1, cells, cells, 1)
    strided = resize(rows, (side, side), stride, "strided")
    expected = [bilinear(values.tolist(), k / stride) for k in range(side)]
    np.testing.assert_allclose(strided[0, :, 0, 0], expected, rtol=1e-12)
    columns = resize(rows.transpose(1, 2), (side, side), stride, "strided")
    np.testing.assert_allclose(columns[0, 0, :, 0], expected, rtol=1e-12)


@pytest.mark.parametrize(("height", "width", "size"), [(8, 4, (16, 8)), (2, 3, (16, 16)), (5, 1, (9, 4))])
def test_published_maps_lie_corner_on_corner(height, width, size):
    maps = torch.rand(2, height, width, 3, dtype=torch.float64)
    expected = F.interpolate(maps.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    torch.testing.assert_close(resize(maps, size, 2, "corners"), expected)


@pytest.mark.parametrize("alignment", ["strided", "corners"])
@pytest.mark.parametrize("first_pool", [True, False])
def test_a_layer_on_all_maps_equals_the_layer_on_their_concatenation(alignment, first_pool):
    encoder = Encoder(8, first_pool=first_pool).double().eval()
    pyramid = encoder(torch.rand(2, 3, 64, 64, dtype=torch.float64))
    weight, bias = torch.randn(5, 64, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    projected = project(pyramid, encoder.strides, weight, bias, alignment)
    size = tuple(pyramid[0].shape[-2:])
    laid_over = [
        resize(f.permute(0, 2, 3, 1), size, s, alignment) for f, s in zip(pyramid, encoder.strides, strict=True)
    ]
    torch.testing.assert_close(projected, torch.cat(laid_over, -1) @ weight.T + bias, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("first_pool", [True, False])
@pytest.mark.parametrize("resolution", [8, 16, 24])
@pytest.mark.parametrize(("batch_size", "input_views"), [(1, 1), (2, 1), (1, 2)])
def test_the_check_refuses_exactly_the_batches_that_leave_its_norm_a_single_value(
    resolution, first_pool, batch_size, input_views
):
    images = torch.rand(batch_size * input_views, 3, resolution, resolution)
    sizes = {"encoder_width": 8, "pretrained": False, "first_pool": first_pool, "input_views": input_views}
    try:
        Encoder(8, first_pool=first_pool).train()(images)
        outcome = nullcontext()
    except ValueError:
        outcome = pytest.raises(MisfitError, match=r"train\.batch_size 1 .* 2 objects or more")
    with outcome:
        PixelNerf.check_batch(PixelNerfOptions(**sizes), resolution, batch_size)
    PixelNerf.check_batch(PixelNerfOptions(batch_norm="frozen"), resolution, 1)
