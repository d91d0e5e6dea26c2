"""Stretches of a network in one call against the same functions on tensors, and those in float64."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model import ops
from model.ops import native, program
from model.ops.program import Placement, in_one_call

KERNELS = native.available_kernels()
pytestmark = pytest.mark.skipif(not KERNELS, reason="the kernels are not built, or not for this processor")


class Stretch(nn.Module):
    """Every kind of step; maps that two and three steps read; a residual; dropout."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        torch.manual_seed(channels)
        sides = {"first": 3, "qkv": 1, "proj": 1, "small": 3, "last": 3}
        inputs, outputs = {"last": 2 * channels}, {"qkv": 3 * channels}
        self.convs, self.norms = nn.ModuleDict(), nn.ModuleDict()
        for name, side in sides.items():
            width = inputs.get(name, channels)
            self.convs[name] = nn.Conv2d(width, outputs.get(name, channels), side, padding=side // 2)
            if name != "proj":
                self.norms[name] = nn.GroupNorm(4, width)
        for norm in self.norms.values():
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def body(self, x: Tensor) -> Tensor:
        norms: Any = self.norms
        convs: Any = self.convs
        h = ops.norm_silu_conv(x, norms["first"], convs["first"], residual=x, scale=0.7)
        qkv = ops.norm_conv(h, norms["qkv"], convs["qkv"])
        h = ops.convolve(ops.attend(qkv), convs["proj"], residual=h)
        small = ops.convolve(ops.halve(ops.norm_silu(h, norms["small"])), convs["small"])
        both = ops.concatenate(ops.repeat(small), h)
        dropout = 0.25 if self.training else 0.0
        return ops.norm_silu_conv(both, norms["last"], convs["last"], dropout=dropout, residual=x)

    def forward(self, x: Tensor) -> Tensor:
        return in_one_call(self, self.body, x)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """An item for each run of a program since the test began."""
    seen: list[None] = []
    run = program.Program.run

    def counted(self: program.Program, x: Tensor, given: Sequence[Tensor] = ()) -> Tensor:
        seen.append(None)
        return run(self, x, given)

    monkeypatch.setattr(program.Program, "run", counted)
    return seen


def values_and_gradients(compute: Callable[[Tensor], Tensor], network: nn.Module, x: Tensor) -> list[Tensor]:
    """The result, and dLoss/d of x and of every parameter for a fixed random loss."""
    x = x.detach().requires_grad_()
    y = compute(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *network.parameters()])]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(3, 16, 8, 8), (1, 32, 4, 8), (2, 16, 12, 20)])
def test_values_and_gradients(
    kernel: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, runs: list[None]
) -> None:
    monkeypatch.setattr(program, "kernel_of", lambda *_: list(KERNELS).index(kernel))
    network = Stretch(shape[1]).eval()
    x = torch.randn(shape) + 1
    in_float64 = copy.deepcopy(network).double()
    expected = values_and_gradients(in_float64.body, in_float64, x.double())
    actual = values_and_gradients(network, network, x)
    assert len(runs) == 1
    for a, e in zip(actual, expected, strict=True):
        assert (a.double() - e).norm() <= 3e-6 * e.norm()


class Reader(nn.Module):
    """Two blocks that read one map of numbers each in its own way."""

    def __init__(self, channels: int, steepness: float) -> None:
        super().__init__()
        torch.manual_seed(channels)
        self.queries = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(1, 1) for _ in range(2))
        self.keys_values = nn.ModuleList(nn.Conv2d(1, 2 * channels, 1) for _ in range(2))
        for index, norm in enumerate(self.norms):
            nn.init.constant_(norm.weight, (-1) ** index * steepness)  # type: ignore[arg-type]
            nn.init.normal_(norm.bias)  # type: ignore[arg-type]

    def body(self, x: Tensor, numbers: Tensor) -> Tensor:
        for query, norm, key_value in zip(self.queries, self.norms, self.keys_values, strict=True):
            read = ops.read(ops.convolve(x, query), numbers, norm, key_value)  # type: ignore[arg-type]
            x = ops.halve(ops.repeat(read))
        return x

    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
        return in_one_call(self, lambda x: self.body(x, numbers), x, given=(numbers,))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("steepness", [0.0, 1.0, 1000.0])
def test_reading_numbers(kernel: str, steepness: float, monkeypatch: pytest.MonkeyPatch, runs: list[None]) -> None:
    monkeypatch.setattr(program, "kernel_of", lambda *_: list(KERNELS).index(kernel))
    network = Reader(32, steepness)
    x = torch.randn(3, 32, 4, 6)
    in_float64 = copy.deepcopy(network).double()
    for numbers in (100 + 3 * torch.randn(3, 1, 8, 12), torch.randn(3, 1, 8, 12).exp(), torch.full((3, 1, 8, 12), 7.0)):
        expected = values_and_gradients(lambda x, n=numbers: in_float64.body(x, n.double()), in_float64, x.double())
        actual = values_and_gradients(lambda x, n=numbers: network(x, n), network, x)
        for a, e in zip(actual, expected, strict=True):
            assert (a.double() - e).norm() <= 3e-5 * e.norm() + 5e-5
    assert len(runs) == 3


def test_numbers_that_cannot_be_read_as_they_are_run_on_tensors(runs: list[None]) -> None:
    network, x = Reader(32, 1.0), torch.randn(2, 32, 4, 4)
    numbers = torch.randn(2, 1, 8, 8)
    recorded = network(x, numbers)
    assert len(runs) == 1
    for others in (numbers[:, :, :7, :7], numbers.clone().requires_grad_()):
        assert torch.allclose(network(x, others), network.body(x, others), atol=1e-5)
    assert torch.allclose(in_one_call(nn.Identity(), lambda x: network.body(x, numbers), x), recorded, atol=1e-5)
    assert len(runs) == 1


def test_dropout_is_that_of_the_layers_one_by_one(runs: list[None]) -> None:
    network, x = Stretch(), torch.randn(2, 16, 8, 8)
    results = []
    for compute in (network.body, network):
        torch.manual_seed(5)
        results.append(values_and_gradients(compute, network, x))
        results[-1].append(torch.rand(3))  # and the generator goes on from the same state
    assert len(runs) == 1
    for a, e in zip(*results, strict=True):
        assert torch.allclose(a, e, rtol=1e-4, atol=1e-4)
    torch.manual_seed(6)
    assert not torch.allclose(network(x), results[0][0], atol=1e-2)


def test_threads_change_no_bit() -> None:
    network, x = Stretch(), torch.randn(5, 16, 8, 8)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        torch.manual_seed(0)
        results.append(values_and_gradients(network, network, x))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_same_bits_without_a_graph() -> None:
    network, x = Stretch().eval(), torch.randn(2, 16, 8, 8)
    with_graph = network(x)
    assert with_graph.requires_grad
    with torch.no_grad():
        assert torch.equal(network(x), with_graph)


def test_modes_and_shapes_are_told_apart(runs: list[None]) -> None:
    network = Stretch()
    for x in (torch.randn(2, 16, 8, 8), torch.randn(1, 16, 4, 4)):
        network.train()
        assert not torch.equal(network(x), network(x))
        network.eval()
        assert torch.equal(network(x), network(x))
        assert torch.allclose(network(x), network.body(x), atol=1e-4)
    assert len(runs) == 10


def test_the_key_tells_apart_what_the_function_does() -> None:
    network = Stretch()
    x = torch.randn(1, 16, 4, 4)

    def scaled(scale: float) -> Tensor:
        return in_one_call(network, lambda h: ops.convolve(h, network.convs["first"], scale=scale), x, scale)

    assert torch.allclose(scaled(2.0), 2 * scaled(1.0))


def test_parameters_may_be_replaced_or_frozen() -> None:
    network, x = Stretch().eval(), torch.randn(2, 16, 8, 8)
    network(x)
    conv: Any = network.convs["last"]
    conv.weight = nn.Parameter(torch.zeros_like(conv.weight))
    assert torch.allclose(network(x), conv.bias[None, :, None, None] + x)
    network.norms.requires_grad_(False)
    network(x).sum().backward()
    assert all(p.grad is None for p in network.norms.parameters())
    assert all(p.grad is not None for p in network.convs.parameters())


def test_changing_a_weight_before_backward_is_an_error() -> None:
    network = Stretch()
    y = network(torch.randn(1, 16, 4, 4))
    norm: Any = network.norms["last"]
    with torch.no_grad():
        norm.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_backward_can_be_repeated() -> None:
    network = Stretch()
    y = network(torch.randn(1, 16, 4, 4))
    parameters = list(network.parameters())
    first, second = (torch.autograd.grad(y.square().sum(), parameters, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def read_again(x: Tensor) -> Tensor:
    y = ops.halve(x)
    ops.repeat(y)
    return y


def read_never(x: Tensor) -> Tensor:
    ops.repeat(x)
    return ops.halve(x)


@pytest.mark.parametrize(
    "change",
    [
        lambda network, x: network.body(x + 1.0),
        lambda network, x: network.body(x.add(1.0)),
        lambda network, x: network.body(nn.functional.max_pool2d(x, 2)),
        lambda network, x: torch.ones(1, 16, 1, 1) + network.body(x),
        lambda network, x: network.body(network.body(x)),
        lambda _, x: x,
        lambda _, x: read_again(x),
        lambda _, x: read_never(x),
    ],
    ids=["operator", "method", "function", "operator on the right", "twice", "nothing", "read again", "read never"],
)
def test_what_cannot_be_recorded_runs_on_tensors(change: Callable[..., Tensor], runs: list[None]) -> None:
    network, x = Stretch().eval(), torch.randn(1, 16, 8, 8)
    for _ in range(2):
        y = in_one_call(network, lambda x: change(network, x), x)
        assert torch.equal(y, change(network, x))
    assert not runs


@pytest.mark.parametrize("x", [torch.randn(1, 12, 8, 8), torch.randn(1, 16, 3, 3), torch.randn(1, 16, 64, 32)])
def test_shapes_the_kernels_cannot_do_run_on_tensors(x: Tensor, runs: list[None]) -> None:
    network = nn.Conv2d(x.shape[1], 3 * x.shape[1], 1)

    def body(x: Tensor) -> Tensor:
        return ops.attend(ops.convolve(x, network))

    assert torch.equal(in_one_call(network, body, x), body(x))
    assert not runs


def test_a_users_mistake_passes_through() -> None:
    def body(_: Tensor) -> Tensor:
        raise ValueError("context lacks a depth map")

    with pytest.raises(ValueError, match="lacks a depth map"):
        in_one_call(nn.Identity(), body, torch.randn(1, 16, 4, 4))


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: ops.convolve(x, nn.Conv2d(32, 16, 1)),
        lambda x: ops.convolve(x, nn.Conv2d(16, 16, 1), residual=ops.halve(x)),
        lambda x: ops.norm_silu(x, nn.GroupNorm(4, 32)),
        lambda x: ops.concatenate(x, ops.halve(x)),
        lambda x: ops.attend(x),
    ],
    ids=["channels", "residual", "norm", "sizes", "no three parts"],
)
def test_maps_that_do_not_fit_are_an_error(mistake: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        in_one_call(nn.Identity(), mistake, torch.randn(1, 16, 4, 4))


def test_other_precisions_run_on_tensors(runs: list[None]) -> None:
    network, x = Stretch(), torch.randn(1, 16, 4, 4)
    network(x)
    assert network.double()(x.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        network.float()(x)
    assert len(runs) == 1


def test_records_die_with_their_module() -> None:
    network = Stretch()
    network(torch.randn(1, 16, 4, 4))
    alive = weakref.ref(network)
    del network
    gc.collect()
    assert alive() is None


def test_copies_compute_from_their_own_parameters() -> None:
    network, x = Stretch().eval(), torch.randn(1, 16, 4, 4)
    y = network(x)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(other(x), x)
    assert torch.equal(network(x), y)


def test_buffers_that_are_needed_at_once_do_not_overlap() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = (torch.rand(200, 3, generator=generator) * torch.tensor([1000, 60, 10])).int().tolist()
    spans = {n: (length + 1, first, first + more) for n, (length, first, more) in enumerate(draws)}
    placement = Placement.of(spans)
    offsets = dict(zip(placement.numbers.tolist(), placement.offsets.tolist(), strict=True))
    assert offsets.keys() == spans.keys()
    for a, (length, first, last) in spans.items():
        assert offsets[a] + length <= placement.total
        for b, (_, other_first, other_last) in spans.items():
            if a != b and first <= other_last and other_first <= last and offsets[a] <= offsets[b]:
                assert offsets[a] + length <= offsets[b]
    assert placement.total < 0.5 * sum(length for length, _, _ in spans.values())  # memory is used again
