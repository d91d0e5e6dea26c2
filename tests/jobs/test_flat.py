import math

import pytest
import torch
from torch import Tensor, nn

from jobs.flat import backward, flatten_parameters, gather_gradients, to_logical_order, to_memory_order


def network() -> nn.Sequential:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    return nn.Sequential(conv, nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8 * 4 * 4, 5))


def train(trained: nn.Module, parameters: list[nn.Parameter], steps: int) -> torch.optim.Adam:
    optimizer = torch.optim.Adam(parameters, lr=0.01, fused=True)
    for seed in range(steps):
        images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad(set_to_none=False)
        trained(images).square().mean().backward()
        optimizer.step()
    return optimizer


def test_training_is_the_same_to_the_bit():
    plain, laid = network(), network()
    flat = flatten_parameters(laid)
    assert flat.shape == (sum(p.numel() for p in plain.parameters()),)
    assert not flat.grad.any()
    train(plain, list(plain.parameters()), 3)
    train(laid, [flat], 3)
    for a, b in zip(plain.parameters(), laid.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a.grad, b.grad)
        assert a.stride() == b.stride()
    assert torch.equal(flat.grad.norm(), torch.cat([p.grad.flatten() for p in laid.parameters()]).norm())


def test_gathered_gradients_equal_added_ones():
    laid = network()
    laid.register_parameter("unused", nn.Parameter(torch.ones(3)))
    flat = flatten_parameters(laid)
    images = torch.randn(2, 3, 6, 6)

    def loss() -> Tensor:
        return laid(images).square().mean()

    backward(loss(), laid, flat)
    added, gathered = flat.grad.clone(), torch.full_like(flat, math.nan, requires_grad=False)
    assert (added == 0).sum() == 3, "of the parameter that the loss does not depend on"
    gather_gradients(loss(), laid, gathered)
    assert torch.equal(gathered, added)
    backward(loss(), laid, flat)
    assert torch.equal(flat.grad, added), "the former gradient is replaced"


def test_odd_parameters_come_last():
    """Parameters of 1 and 3 numbers: those that follow in the network are aligned as without them."""
    odd = nn.Sequential(nn.GroupNorm(1, 1), nn.Conv2d(1, 16, 4), nn.Linear(3, 1), nn.Linear(32, 32))
    flat = flatten_parameters(odd)
    begins = {name: (p.data_ptr() - flat.data_ptr()) // 4 for name, p in odd.named_parameters()}
    assert {begins[name] % 16 for name in ("1.weight", "1.bias", "3.weight", "3.bias")} == {0}
    assert begins["0.weight"] > begins["3.bias"]
    ends = sorted((begins[name], begins[name] + p.numel()) for name, p in odd.named_parameters())
    assert [end for _, end in ends] == [*(begin for begin, _ in ends[1:]), len(flat)], "no gaps, nothing twice"
    logical = to_logical_order(flat.detach(), odd)
    assert torch.equal(logical, torch.cat([p.detach().reshape(-1) for p in odd.parameters()]))
    assert torch.equal(to_memory_order(logical, odd), flat)
    loss = odd[1](torch.randn(2, 1, 4, 4)).square().sum() + odd[2](torch.ones(3)).sum()
    expected = torch.autograd.grad(
        loss, list(odd.parameters()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    gathered = torch.full_like(flat, math.nan, requires_grad=False)
    gather_gradients(loss, odd, gathered)
    assert torch.equal(to_logical_order(gathered, odd), torch.cat([part.reshape(-1) for part in expected]))


def test_weights_that_are_loaded_are_trained():
    laid, source = network(), network()
    flat = flatten_parameters(laid)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(1.0)
    laid.load_state_dict(source.state_dict())
    train(laid, [flat], 1)
    train(source, list(source.parameters()), 1)
    assert all(torch.equal(a, b) for a, b in zip(laid.parameters(), source.parameters(), strict=True))


def test_frozen_parameters_are_left_out():
    laid = network()
    laid[3].requires_grad_(False)
    before = laid[3].weight.clone()
    flat = flatten_parameters(laid)
    assert len(flat) == sum(p.numel() for p in (*laid[0].parameters(), *laid[1].parameters()))
    train(laid, [flat], 2)
    assert torch.equal(laid[3].weight, before)
    assert laid[3].weight.grad is None


def test_a_network_of_mixed_or_no_parameters_is_refused():
    mixed = network()
    mixed[3].double()
    with pytest.raises(ValueError, match=r"float32.*float64"):
        flatten_parameters(mixed)
    with pytest.raises(ValueError, match="one type"):
        flatten_parameters(nn.Flatten())


def test_logical_order_is_that_of_the_indices():
    laid = network()
    flat = flatten_parameters(laid)
    logical = to_logical_order(flat.detach(), laid)
    assert torch.equal(logical, torch.cat([p.detach().reshape(-1) for p in laid.parameters()]))
    assert not torch.equal(logical, flat)
    assert torch.equal(to_memory_order(logical, laid), flat)
