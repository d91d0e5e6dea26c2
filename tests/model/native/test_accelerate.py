"""Accelerated networks agree with the same networks in plain torch, in float64."""

from __future__ import annotations

import copy
import gc
import logging
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.attention import depth_cross_attention, self_attention
from model.fusion.concat import Concat
from model.fusion.film import Film
from model.fusion.input import InputChannel
from model.fusion.xattn import CrossAttention
from model.fusion.xattn_positional import PositionalCrossAttention
from model.methods.splatter_image.backbones.unet import UNet
from model.native import accelerate as door
from model.native import graph_executor, layers, library, lowering
from model.native.accelerate import accelerate
from model.native.graph_executor import GraphExecutor, Placement
from model.types import Context
from tests.kernels import layer_kernels

KERNELS = layer_kernels()
needs_kernels = pytest.mark.skipif(not KERNELS, reason="the kernels are not built, or not for this processor")
pytestmark = needs_kernels

#: Channels in and out, height, width, side of the convolution's kernel.
SHAPES = [
    (16, 16, 8, 8, 3),
    (48, 16, 6, 7, 3),
    (64, 80, 5, 4, 3),
    (32, 48, 16, 16, 3),
    (96, 32, 9, 17, 1),
    (192, 48, 3, 3, 3),  # groups of six channels
    (16, 32, 1, 1, 3),
    (32, 16, 2, 1, 1),
    (16, 16, 33, 30, 3),  # more tiles, and of more channels, than are transformed at a time
    (96, 64, 13, 18, 3),
    (320, 224, 4, 5, 3),  # too many channels to be transformed
]


class Layer(nn.Module):
    """scale * (conv(dropout(silu(norm(x)))) + residual), with optional parts."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        side: int,
        *,
        norm: bool = True,
        silu: bool = True,
        conv: bool = True,
        dropout: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        torch.manual_seed(inputs + outputs)
        self.norm = nn.GroupNorm(min(32, inputs // 4), inputs, eps=1e-6) if norm else None
        if self.norm is not None:
            nn.init.normal_(self.norm.weight)
            nn.init.normal_(self.norm.bias)
        self.conv = nn.Conv2d(inputs, outputs, side, padding=side // 2) if conv else None
        self.silu, self.dropout, self.scale = silu, dropout, scale

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        h = x if self.norm is None else self.norm(x)
        h = F.silu(h) if self.norm is not None and self.silu else h
        h = F.dropout(h, self.dropout, self.training)
        if self.conv is None:
            return h
        h = self.conv(h)
        return (h if residual is None else h + residual) * self.scale


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[GraphExecutor]:
    """The programs that have run since the start of the test."""
    seen: list[GraphExecutor] = []
    run = GraphExecutor.run

    def counted(self: GraphExecutor, *arguments: Any) -> list[Tensor]:
        seen.append(self)
        return run(self, *arguments)

    monkeypatch.setattr(GraphExecutor, "run", counted)
    return seen


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Selects one of this processor's kernels for the layers."""
    index = list(KERNELS).index(request.param)
    for module in (layers, lowering):
        monkeypatch.setattr(module, "kernel_of", lambda *_: index)


by_each_kernel = pytest.mark.usefixtures("kernel")


def plain(network: nn.Module, *arguments: Any) -> Tensor:
    """The network without acceleration."""
    y: Tensor = type(network).forward(network, *arguments)
    return y


def values_and_gradients(compute: Callable[..., Tensor], network: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """The output, and the gradients of a fixed random loss with respect to every input and parameter."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = compute(network, *leaves)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [*leaves, *network.parameters()])]


def assert_is_computed(network: nn.Module, *inputs: Tensor, tolerance: float = 2e-6) -> None:
    """Asserts that the accelerated network has the values and gradients of the network in float64."""
    in_float64 = copy.deepcopy(network).double()
    expected = values_and_gradients(plain, in_float64, *(x.double() for x in inputs))
    actual = values_and_gradients(lambda n, *xs: n(*xs), accelerate(network), *inputs)
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert (a.double() - e).norm() <= tolerance * e.norm() + 1e-12


@by_each_kernel
@pytest.mark.parametrize("shape", SHAPES)
def test_a_whole_layer(shape: tuple[int, ...], runs: list[GraphExecutor]) -> None:
    inputs, outputs, height, width, side = shape
    x, residual = torch.randn(3, inputs, height, width) + 2, torch.randn(3, outputs, height, width)
    assert_is_computed(Layer(inputs, outputs, side, scale=0.7), x, residual)
    assert len(runs) == 1


@by_each_kernel
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "parts",
    [{"silu": False}, {"conv": False}, {"conv": False, "silu": False}, {"norm": False, "scale": 3.0}, {"scale": 0.5}],
    ids=["norm and conv", "norm and silu", "norm", "conv", "without residual"],
)
def test_parts_of_a_layer(layout: torch.memory_format, parts: dict[str, Any], runs: list[GraphExecutor]) -> None:
    layer = Layer(32, 16, 3, **parts).to(memory_format=layout)
    assert_is_computed(layer, torch.randn(2, 32, 6, 5).contiguous(memory_format=layout))
    assert len(runs) == 1


class Stretch(nn.Module):
    """A network with every kind of operator, maps that two or three of them read, a reused norm, and dropout."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        torch.manual_seed(channels)
        sides = {"first": 3, "qkv": 1, "proj": 1, "small": 3, "again": 3, "last": 3}
        inputs, outputs = {"last": 2 * channels}, {"qkv": 3 * channels}
        self.convs, self.norms = nn.ModuleDict(), nn.ModuleDict()
        for name, side in sides.items():
            width = inputs.get(name, channels)
            self.convs[name] = nn.Conv2d(width, outputs.get(name, channels), side, padding=side // 2)
            if name not in ("proj", "again"):
                self.norms[name] = nn.GroupNorm(4, width)
        for norm in self.norms.values():
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        norms: Any = self.norms
        convs: Any = self.convs
        h = (convs["first"](F.silu(norms["first"](x))) + x) * 0.7
        h = convs["proj"](self_attention(convs["qkv"](norms["qkv"](h)))) + h
        small = convs["small"](F.avg_pool2d(F.silu(norms["small"](h)), 2))
        small = small + convs["again"](F.silu(norms["small"](small)))
        both = torch.cat([F.interpolate(small, scale_factor=2, mode="nearest"), h], dim=1)
        return convs["last"](F.dropout(F.silu(norms["last"](both)), 0.25, self.training)) + x


@by_each_kernel
@pytest.mark.parametrize("shape", [(3, 16, 8, 8), (1, 32, 4, 8), (2, 16, 12, 20)])
def test_a_stretch_of_a_network(shape: tuple[int, ...], runs: list[GraphExecutor]) -> None:
    assert_is_computed(Stretch(shape[1]).eval(), torch.randn(shape) + 1, tolerance=4e-6)
    assert len(runs) == 1


class DepthReader(nn.Module):
    """A network with two attentions to one depth map."""

    def __init__(self, channels: int, steepness: float) -> None:
        super().__init__()
        torch.manual_seed(channels)
        self.queries = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(1, 1) for _ in range(2))
        self.keys_values = nn.ModuleList(nn.Conv2d(1, 2 * channels, 1) for _ in range(2))
        for index, norm in enumerate(self.norms):
            nn.init.constant_(norm.weight, (-1) ** index * steepness)  # type: ignore[arg-type]
            nn.init.normal_(norm.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        for query, norm, key_value in zip(self.queries, self.norms, self.keys_values, strict=True):
            x = depth_cross_attention(query(x), depth, norm, key_value)
        return x


@by_each_kernel
@pytest.mark.parametrize("steepness", [0.0, 1.0, 1000.0])
def test_attention_to_a_depth_map(steepness: float, runs: list[GraphExecutor]) -> None:
    network = DepthReader(32, steepness)
    x = torch.randn(3, 32, 4, 6)
    in_float64 = copy.deepcopy(network).double()
    accelerate(network)
    for depth in (100 + 3 * torch.randn(3, 1, 8, 12), torch.randn(3, 1, 8, 12).exp(), torch.full((3, 1, 8, 12), 7.0)):
        expected = values_and_gradients(lambda n, x, d=depth: n(x, d.double()), in_float64, x.double())
        actual = values_and_gradients(lambda n, x, d=depth: n(x, d), network, x)
        for a, e in zip(actual, expected, strict=True):
            assert (a.double() - e).norm() <= 3e-5 * e.norm() + 5e-5
    assert len(runs) == 3


def test_a_gradient_to_the_depth_map_is_torchs() -> None:
    network, x, depth = DepthReader(32, 1.0), torch.randn(2, 32, 4, 4), torch.randn(2, 1, 8, 8)
    assert_is_computed(network, x, depth, tolerance=1e-5)
    (gradient,) = torch.autograd.grad(network(x, depth.requires_grad_()).square().sum(), depth)
    assert gradient.abs().sum() > 0


SIZES: dict[str, Any] = {
    **{"resolution": 16, "base_dim": 16, "num_blocks": 1, "channel_mult": (1, 2), "attention_resolutions": (8,)},
}
WAYS: dict[str, tuple[dict[str, Any], int]] = {
    # arguments of the network, and how many programs it is
    "plain": ({}, 1),
    "depth as input": ({"fusions": [InputChannel("depth", "map", 1)]}, 1),
    "depth by attention": ({"fusions": [CrossAttention("depth", "map", 1)]}, 1),
    "vector by attention": ({"fusions": [CrossAttention("semantic", "vector", 5)]}, 4),
    "modulation": ({"fusions": [Film("semantic", "vector", 5)]}, 4),
    "positional": ({"fusions": [PositionalCrossAttention("depth", "map", 1)]}, 7),
    "concatenation": ({"fusions": [Concat("semantic", "vector", 5)]}, 1),
    "two views": ({"camera_channels": 60}, 17),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_networks(way: str, training: bool, runs: list[GraphExecutor]) -> None:
    """The test also guards the speed: a network compiles to the fewest possible programs."""
    options, programs = WAYS[way]
    torch.manual_seed(0)
    unet = UNet(**SIZES, **options).train(training)
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
    views = 2 if "camera_channels" in options else 1
    images, pose = torch.rand(4, 3, 16, 16), torch.rand(4, 60) if views == 2 else None
    depth, semantic = torch.rand(4 // views, views, 1, 16, 16), torch.rand(4 // views, views, 5)
    judge = copy.deepcopy(unet).double()
    unet = accelerate(unet.to(memory_format=torch.channels_last))

    def outcome(network: nn.Module, dtype: torch.dtype) -> list[Tensor]:
        torch.manual_seed(1)
        context = Context(depth=depth.to(dtype), semantic=semantic.to(dtype))
        maps = network(images.to(dtype), context, views, None if pose is None else pose.to(dtype))
        wanted = list(network.parameters())
        gradients = torch.autograd.grad(maps.square().sum(), wanted, allow_unused=True)
        return [maps, *(torch.zeros_like(p) if g is None else g for p, g in zip(wanted, gradients, strict=True))]

    actual = outcome(unet, torch.float32)
    assert len(runs) == programs
    if training:  # with the same numbers of the generator dropout is the same
        assert all(torch.equal(a, b) for a, b in zip(actual, outcome(unet, torch.float32), strict=True))
        assert not torch.allclose(actual[0].double(), outcome(judge, torch.float64)[0])
        return
    for a, e in zip(actual, outcome(judge, torch.float64), strict=True):
        assert (a.double() - e).norm() <= 3e-5 * e.norm() + 1e-9


def test_variance_survives_a_large_mean() -> None:
    norm = accelerate(Layer(16, 16, 1, conv=False))
    x = torch.randn(1, 16, 32, 32) + 1000
    assert torch.allclose(norm(x).double(), plain(copy.deepcopy(norm).double(), x.double()), atol=2e-3)


def test_what_is_not_finite_shows() -> None:
    layer = accelerate(Layer(16, 16, 3))
    for value in (float("nan"), float("inf")):
        x = torch.randn(2, 16, 4, 4)
        x[1, 3, 2, 2] = value
        y = layer(x)
        assert y[0].isfinite().all()
        assert not y[1].isfinite().all()


def test_only_wanted_gradients_are_there() -> None:
    layer = accelerate(Layer(16, 32, 3))
    layer.norm.requires_grad_(False)
    x = torch.randn(2, 16, 4, 4)
    layer(x).sum().backward()
    assert x.grad is None
    assert layer.norm.weight.grad is None
    assert layer.conv.weight.grad is not None
    assert torch.allclose(layer.conv.bias.grad, torch.full((32,), 32.0))


def test_changing_a_weight_before_backward_is_an_error() -> None:
    network = accelerate(Stretch())
    y = network(torch.randn(1, 16, 4, 4))
    norm: Any = network.norms["last"]
    with torch.no_grad():
        norm.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def identity_behind_dropout(probability: float) -> Layer:
    """A layer whose output before dropout has no zeros, so that dropped elements can be recognised."""
    layer = Layer(16, 16, 1, dropout=probability)
    assert layer.norm is not None
    assert layer.conv is not None
    with torch.no_grad():
        layer.conv.weight.copy_(torch.eye(16)[:, :, None, None])
        layer.conv.bias.zero_()  # type: ignore[union-attr]
        layer.norm.weight.fill_(1e-3)
        layer.norm.bias.fill_(5.0)
    return layer


def test_dropout_zeroes_and_rescales() -> None:
    layer = accelerate(identity_behind_dropout(0.25))
    x = torch.randn(8, 16, 64, 64)
    torch.manual_seed(3)
    y = layer(x)
    kept = y != 0
    assert torch.allclose(y[kept], (F.silu(layer.norm(x)) / 0.75)[kept], rtol=1e-5)
    count = x.numel()
    assert abs(kept.sum().item() - 0.75 * count) < 4 * (count * 0.75 * 0.25) ** 0.5

    (by_bias,) = torch.autograd.grad(y.sum(), layer.norm.bias)
    slope = torch.autograd.functional.jvp(F.silu, torch.tensor(5.0), torch.tensor(1.0))[1]
    expected = kept.sum((0, 2, 3)) * slope / 0.75
    assert torch.allclose(by_bias, expected, rtol=1e-2)


def test_dropout_distinguishes_a_kept_zero_from_a_dropped_one() -> None:
    """Kept elements are zero too where silu's argument is, but have a gradient."""
    layer = Layer(16, 16, 1, dropout=0.25)
    nn.init.zeros_(layer.norm.weight)
    nn.init.zeros_(layer.norm.bias)
    nn.init.ones_(layer.conv.weight)
    accelerate(layer)(torch.randn(4, 16, 32, 32)).sum().backward()
    slope, kept = 0.5 * 16 / 0.75, 0.75 * 4 * 32 * 32
    assert torch.allclose(layer.norm.bias.grad, torch.tensor(slope * kept), rtol=0.05)
    assert (layer.norm.bias.grad != slope * 4 * 32 * 32).all()


def masks(seed: int, count: int = 1) -> Tensor:
    """Masks of the elements that dropout with p = 0.5 keeps, (count, elements) of 0 and 1."""
    layer = accelerate(identity_behind_dropout(0.5))
    x = torch.randn(4, 16, 32, 32)
    layer(x)  # records
    torch.manual_seed(seed)
    return torch.stack([(layer(x) != 0).flatten().double() for _ in range(count)])


def test_dropout_is_a_function_of_the_generator() -> None:
    assert torch.equal(masks(5, 2), masks(5, 2))


def test_recording_draws_nothing_from_the_generator() -> None:
    layer, x = accelerate(identity_behind_dropout(0.5)), torch.randn(2, 16, 8, 8)
    torch.manual_seed(5)
    first = layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first)


def test_dropout_of_other_calls_steps_and_neighbours_is_independent() -> None:
    signs = 2 * torch.cat([masks(seed, 2) for seed in range(6)]) - 1
    noise = 4.5 / signs.shape[1] ** 0.5  # in 66 pairs and 30 shifts, beyond this by chance once in a thousand
    between = signs @ signs.T / signs.shape[1] - torch.eye(len(signs))
    assert between.abs().max() < noise
    for shift in (1, 2, 16, 32, 512):
        assert ((signs * signs.roll(shift, 1)).mean(1)).abs().max() < noise


@pytest.mark.parametrize("network", [Layer(48, 48, 3, dropout=0.1, scale=0.5), Stretch()])
def test_threads_change_no_bit(network: nn.Module) -> None:
    x = torch.randn(5, 48 if isinstance(network, Layer) else 16, 8, 8)
    accelerate(network)
    results, before = [], torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        torch.manual_seed(0)
        results.append(values_and_gradients(lambda n, x: n(x), network, x))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_same_bits_with_other_defaults_of_torch(
    other_defaults: Callable[[], AbstractContextManager[None]],
) -> None:
    network, x = accelerate(Layer(16, 16, 3, dropout=0.5)), torch.randn(2, 16, 8, 8)

    def outcome() -> list[Tensor]:
        torch.manual_seed(0)
        leaf = x.detach().requires_grad_()
        y = network(leaf)
        return [y, *torch.autograd.grad(y.square().sum(), [leaf, *network.parameters()])]

    expected = outcome()
    with other_defaults():
        assert all(map(torch.equal, outcome(), expected))


def test_the_same_bits_without_a_graph() -> None:
    network, x = accelerate(Stretch().eval()), torch.randn(2, 16, 8, 8)
    with_graph = network(x)
    assert with_graph.requires_grad
    with torch.no_grad():
        assert torch.equal(network(x), with_graph)
    with torch.inference_mode():
        assert torch.equal(network(x), with_graph)


def test_modes_and_shapes_have_separate_graphs(runs: list[GraphExecutor]) -> None:
    network = accelerate(Stretch())
    for x in (torch.randn(2, 16, 8, 8), torch.randn(1, 16, 4, 4)):
        network.train()
        assert not torch.equal(network(x), network(x))
        network.eval()
        assert torch.equal(network(x), network(x))
        assert torch.allclose(network(x), plain(network, x), atol=1e-4)
    assert len(runs) == 10


def test_other_arguments_have_separate_graphs() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: Tensor, scale: float) -> Tensor:
            return self.conv(x) * scale

    network, x = accelerate(Scaled()), torch.randn(1, 16, 4, 4)
    assert torch.allclose(network(x, 2.0), 2 * network(x, scale=1.0))


def test_parameters_may_be_replaced_or_frozen() -> None:
    network, x = accelerate(Stretch().eval()), torch.randn(2, 16, 8, 8)
    network(x)
    conv: Any = network.convs["last"]
    conv.weight = nn.Parameter(torch.zeros_like(conv.weight))
    assert torch.allclose(network(x), conv.bias[None, :, None, None] + x)
    network.norms.requires_grad_(False)
    network(x).sum().backward()
    assert all(p.grad is None for p in network.norms.parameters())
    assert all(p.grad is not None for p in network.convs.parameters())


def test_backward_can_be_repeated() -> None:
    network = accelerate(Stretch())
    y = network(torch.randn(1, 16, 4, 4))
    parameters = list(network.parameters())
    first, second = (torch.autograd.grad(y.square().sum(), parameters, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_names_and_state_stay() -> None:
    network = Stretch()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    after = accelerate(network).state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert accelerate(network) is network


class Odd(nn.Module):
    """A sequence of layers with an unsupported operator in between."""

    def __init__(self, odd: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.after, self.odd = Layer(16, 16, 3), Layer(16, 16, 3), odd

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.odd(self.before(x)))


@pytest.mark.parametrize(
    "odd",
    [
        lambda x: x + 1.0,
        lambda x: x.square(),
        lambda x: F.max_pool2d(x, 2),
        lambda x: torch.ones(1, 16, 1, 1) - x,
        lambda x: torch.cat([part * 2 for part in x.chunk(2, dim=1)], dim=1),
        lambda x: F.avg_pool2d(x, 3, stride=1, padding=1),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    ],
    ids=["operator", "method", "function", "constant", "several results", "other pooling", "other resampling"],
)
def test_what_the_layers_do_not_know_is_called_in_torch(
    odd: Callable[[Tensor], Tensor], runs: list[GraphExecutor]
) -> None:
    assert_is_computed(Odd(odd), torch.randn(2, 16, 8, 8), tolerance=4e-6)
    assert len(runs) == 2


@pytest.mark.parametrize(
    "odd",
    [
        lambda x: x * 2 if x.sum() > 0 else x,
        lambda x: x * x.mean().item(),
        lambda x: x.mul_(2),
        lambda x: torch.relu_(x),
        lambda x: x.detach().clone().requires_grad_(),
    ],
    ids=["branch", "number", "method in place", "function in place", "graph"],
)
def test_what_cannot_be_recorded_runs_as_written(
    odd: Callable[[Tensor], Tensor], runs: list[GraphExecutor], caplog: pytest.LogCaptureFixture
) -> None:
    network, x = Odd(odd), torch.randn(2, 16, 8, 8)
    expected = plain(network, x)
    door._logged.clear()
    with caplog.at_level(logging.INFO, "model.native.accelerate"):
        for _ in range(2):
            assert torch.equal(accelerate(network)(x), expected)
    assert not runs
    assert len(caplog.messages) == 1
    assert "torch computes Odd" in caplog.messages[0]


def test_without_gradients_inside_is_not_recorded(runs: list[GraphExecutor]) -> None:
    class Frozen(Odd):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.before(x)
            return self.after(h)

    network = accelerate(Frozen(torch.relu))
    network(torch.randn(1, 16, 4, 4)).sum().backward()
    assert not runs
    assert network.before.conv.weight.grad is None


@pytest.mark.parametrize(
    ("network", "x"),
    [
        (Layer(12, 12, 3), torch.randn(1, 12, 4, 4)),
        (Layer(16, 16, 5), torch.randn(1, 16, 4, 4)),
        (nn.Conv2d(16, 16, 3, stride=2, padding=1), torch.randn(1, 16, 4, 4)),
        (nn.Conv2d(16, 16, 3, padding=1, groups=16), torch.randn(1, 16, 4, 4)),
        (nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular"), torch.randn(1, 16, 4, 4)),
    ],
    ids=["channels", "side", "stride", "groups", "padding"],
)
def test_sizes_the_layers_cannot_do_are_torchs(network: nn.Module, x: Tensor) -> None:
    assert_is_computed(network, x)


@pytest.mark.parametrize(("channels", "height", "width"), [(12, 8, 8), (16, 3, 3), (16, 64, 32)])
def test_attention_of_other_sizes_is_torchs(channels: int, height: int, width: int) -> None:
    class Attention(nn.Module):
        def forward(self, qkv: Tensor) -> Tensor:
            return self_attention(qkv)

    qkv = torch.randn(1, 3 * channels, height, width)
    assert torch.equal(accelerate(Attention())(qkv), self_attention(qkv))


def test_what_torch_does_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    door._logged.clear()
    with caplog.at_level(logging.INFO, "model.native.accelerate"):
        for batch in (1, 2):
            accelerate(UNet(**SIZES))(torch.rand(batch, 3, 16, 16), Context())
    assert [message for message in caplog.messages if "3 and 16 channels" in message] == caplog.messages
    assert len(caplog.messages) == 1


def test_a_users_mistake_passes_through() -> None:
    unet = accelerate(UNet(**SIZES, fusions=[Concat("semantic", "vector", 5)]))
    with pytest.raises(ValueError, match="context has none"):
        unet(torch.rand(1, 3, 16, 16), Context())
    with pytest.raises(RuntimeError):
        accelerate(Layer(16, 16, 3))(torch.rand(1, 32, 4, 4))


def test_other_precisions_run_in_torch(runs: list[GraphExecutor]) -> None:
    network, x = accelerate(Stretch()), torch.randn(1, 16, 4, 4)
    network(x)
    assert network.double()(x.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert network.float()(x).shape == x.shape
        assert Layer(16, 16, 3, scale=1.0)(x).dtype == torch.bfloat16
    assert len(runs) == 1


def test_other_devices_run_in_torch(runs: list[GraphExecutor]) -> None:
    layer = accelerate(Layer(16, 16, 3)).to("meta")
    assert layer(torch.randn(1, 16, 4, 4, device="meta")).device.type == "meta"
    assert not runs


def test_an_empty_batch_is_torchs() -> None:
    assert accelerate(Layer(16, 16, 3))(torch.randn(0, 16, 4, 4)).shape == (0, 16, 4, 4)


def test_records_die_with_their_module() -> None:
    network = accelerate(Stretch())
    network(torch.randn(1, 16, 4, 4))
    alive = weakref.ref(network)
    del network
    gc.collect()
    assert alive() is None


def test_copies_compute_from_their_own_parameters(runs: list[GraphExecutor]) -> None:
    network, x = accelerate(Stretch().eval()), torch.randn(1, 16, 4, 4)
    y = network(x)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(other(x), x)
    assert torch.equal(network(x), y)
    assert len(runs) == 3


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


def test_without_the_library_torch_computes_everything_with_a_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(library.importlib.machinery, "EXTENSION_SUFFIXES", [".of-another-python"])
    caches = (library.load_library, library.layer_kernels)
    for cache in caches:
        cache.cache_clear()
    door._logged.clear()
    try:
        with caplog.at_level(logging.INFO, "model.native.accelerate"):
            layer = accelerate(Layer(16, 16, 3))
        assert "pip install" in caplog.text
        assert torch.equal(layer(torch.ones(1, 16, 4, 4)), plain(layer, torch.ones(1, 16, 4, 4)))
    finally:
        for cache in caches:
            cache.cache_clear()


def test_running_out_of_memory_is_an_error() -> None:
    with pytest.raises(MemoryError):
        library.check(library.STATUS_OUT_OF_MEMORY)
    assert graph_executor.check is library.check
