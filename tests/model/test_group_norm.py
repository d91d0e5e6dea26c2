"""Group normalisation in plain operators against torch's."""

import copy

import pytest
import torch
from torch import nn

from model.group_norm import use_plain_operators


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
def test_values_and_gradients_are_torchs(layout, affine):
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 24, eps=1e-6, affine=affine).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    plain = nn.Sequential(copy.deepcopy(norm))
    use_plain_operators(plain)
    x = (3 * torch.randn(2, 24, 5, 7, dtype=torch.float64) + 10).contiguous(memory_format=layout).requires_grad_()
    outcomes = []
    for module in (norm, plain):
        y = module(x)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
        outcomes.append([y, *torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])])
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_statistics_are_in_float32_at_least():
    norm = nn.Sequential(nn.GroupNorm(2, 8))
    use_plain_operators(norm)
    x = torch.randn(1, 8, 16, 16) + 30
    result = norm(x.bfloat16())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, nn.GroupNorm(2, 8)(x.bfloat16().float()))


def test_names_stay():
    network = nn.Sequential(nn.GroupNorm(2, 8))
    before = list(network.state_dict())
    use_plain_operators(network)
    assert list(network.state_dict()) == before
