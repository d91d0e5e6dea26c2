"""The benchmark's reference network computes what ours does."""

from __future__ import annotations

import pytest
import torch

from model.methods.splatter_image.backbones.unet import UNet
from model.types import Context
from sweep.bench.stock import stock_unet


@pytest.mark.parametrize("blocks", [1, 2])
def test_stock_network_equals_ours(blocks):
    torch.manual_seed(0)
    ours = UNet(resolution=16, base_dim=16, num_blocks=blocks, attention_resolutions=(8,)).eval()
    stock = stock_unet(ours).eval()
    images = torch.rand(2, 3, 16, 16)
    expected, actual = ours(images, Context()), stock(images, Context())
    assert torch.allclose(actual, expected, atol=1e-5)

    expected.square().sum().backward()
    actual.square().sum().backward()
    gradients = [[p.grad for p in network.parameters()] for network in (ours, stock)]
    assert len(gradients[0]) == len(gradients[1])
    for a, b in zip(*gradients, strict=True):
        assert (a - b).norm() <= 1e-4 * a.norm() + 1e-7
