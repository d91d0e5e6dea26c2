"""The fused layers against the same layers in plain torch, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import ops
from model.ops import fused, native

KERNELS = native.available_kernels()

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


@pytest.fixture(params=["torch", *KERNELS])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the layers computed by torch, or by one of this processor's kernels."""
    index = None if request.param == "torch" else list(KERNELS).index(request.param)
    monkeypatch.setattr(ops, "kernel_for", lambda *_: index)


by_all = pytest.mark.usefixtures("kernel")
needs_kernels = pytest.mark.skipif(not KERNELS, reason="the kernels are not built, or not for this processor")


def layers(inputs: int, outputs: int, side: int) -> tuple[nn.GroupNorm, nn.Conv2d]:
    torch.manual_seed(inputs + outputs)
    norm = nn.GroupNorm(min(32, inputs // 4), inputs, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, nn.Conv2d(inputs, outputs, side, padding=side // 2)


def values_and_gradients(compute: Callable[..., Tensor], *leaves: Tensor | nn.Module) -> list[Tensor]:
    """The result, and dLoss/d of every tensor and parameter for a fixed random loss."""
    tensors = []
    for leaf in leaves:
        tensors += list(leaf.parameters()) if isinstance(leaf, nn.Module) else [leaf.requires_grad_()]
    result = compute(*leaves)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result)
    return [result.detach(), *torch.autograd.grad((result * weights).sum(), tensors)]


def in_float64(*leaves: Tensor | nn.Module) -> list[Tensor | nn.Module]:
    return [copy.deepcopy(x).double() if isinstance(x, nn.Module) else x.detach().double() for x in leaves]


def assert_near(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert (a.double() - e).norm() <= 2e-6 * e.norm() + 1e-12


@by_all
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_silu_conv(shape: tuple[int, ...]) -> None:
    inputs, outputs, height, width, side = shape
    norm, conv = layers(inputs, outputs, side)
    x, residual = torch.randn(3, inputs, height, width) + 2, torch.randn(3, outputs, height, width)

    def fast(x, residual, norm, conv):
        return ops.norm_silu_conv(x, norm, conv, residual=residual, scale=0.7)

    def plain(x, residual, norm, conv):
        return (conv(F.silu(norm(x))) + residual) * 0.7

    expected = values_and_gradients(plain, *in_float64(x, residual, norm, conv))
    assert_near(values_and_gradients(fast, x, residual, norm, conv), expected)


@by_all
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_other_layers(layout: torch.memory_format) -> None:
    norm, conv = layers(32, 16, 3)
    conv = conv.to(memory_format=layout)
    x = torch.randn(2, 32, 6, 5).contiguous(memory_format=layout)
    pairs = [
        (lambda x, norm, conv: ops.norm_conv(x, norm, conv), lambda x, norm, conv: conv(norm(x))),
        (
            lambda x, norm, conv: ops.norm_silu_conv(ops.norm_silu(x, norm), norm, conv),
            lambda x, norm, conv: conv(F.silu(norm(F.silu(norm(x))))),
        ),
        (lambda x, norm, conv: ops.convolve(norm(x), conv, scale=3.0), lambda x, norm, conv: conv(norm(x)) * 3.0),
    ]
    for fast, plain in pairs:
        expected = values_and_gradients(plain, *in_float64(x, norm, conv))
        assert_near(values_and_gradients(fast, x, norm, conv), expected)


@by_all
def test_variance_survives_a_large_mean() -> None:
    norm, _ = layers(16, 16, 1)
    x = torch.randn(1, 16, 32, 32) + 1000
    assert torch.allclose(ops.norm_silu(x, norm).double(), F.silu(norm.double()(x.double())), atol=2e-3)


@by_all
def test_what_is_not_finite_shows() -> None:
    norm, conv = layers(16, 16, 3)
    for value in (float("nan"), float("inf")):
        x = torch.randn(2, 16, 4, 4)
        x[1, 3, 2, 2] = value
        y = ops.norm_silu_conv(x, norm, conv)
        assert y[0].isfinite().all()
        assert not y[1].isfinite().all()


@by_all
def test_only_wanted_gradients_are_there() -> None:
    norm, conv = layers(16, 32, 3)
    norm.requires_grad_(False)
    x = torch.randn(2, 16, 4, 4)
    ops.norm_silu_conv(x, norm, conv).sum().backward()
    assert x.grad is None
    assert norm.weight.grad is None
    assert conv.weight.grad is not None
    assert conv.bias is not None
    assert torch.allclose(conv.bias.grad, torch.full((32,), 32.0))


@by_all
def test_changing_a_weight_before_backward_is_an_error() -> None:
    norm, conv = layers(16, 16, 3)
    y = ops.norm_silu_conv(torch.randn(1, 16, 4, 4), norm, conv)
    with torch.no_grad():
        norm.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@by_all
def test_dropout_zeroes_and_rescales() -> None:
    """Seen through a convolution that is the identity; and its gradient has the same zeros."""
    norm, conv = layers(16, 16, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(16)[:, :, None, None])
        conv.bias.zero_()
        norm.weight.fill_(1e-3)
        norm.bias.fill_(5.0)  # no element is zero by itself
    x = torch.randn(8, 16, 64, 64)
    torch.manual_seed(3)
    y = ops.norm_silu_conv(x, norm, conv, dropout=0.25)
    kept = y != 0
    assert torch.allclose(y[kept], (F.silu(norm(x)) / 0.75)[kept], rtol=1e-5)
    count = x.numel()
    assert abs(kept.sum().item() - 0.75 * count) < 4 * (count * 0.75 * 0.25) ** 0.5

    (by_bias,) = torch.autograd.grad(y.sum(), norm.bias)
    slope = torch.autograd.functional.jvp(F.silu, torch.tensor(5.0), torch.tensor(1.0))[1]
    expected = kept.sum((0, 2, 3)) * slope / 0.75
    assert torch.allclose(by_bias, expected, rtol=1e-2)


@by_all
def test_dropout_tells_a_kept_zero_from_a_dropped_one() -> None:
    """Where silu's argument is zero, kept elements are zero as well; but they have a gradient."""
    norm, conv = layers(16, 16, 1)
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
    nn.init.ones_(conv.weight)
    x = torch.randn(4, 16, 32, 32)
    ops.norm_silu_conv(x, norm, conv, dropout=0.25).sum().backward()
    slope, kept = 0.5 * 16 / 0.75, 0.75 * 4 * 32 * 32
    assert norm.bias.grad is not None
    assert torch.allclose(norm.bias.grad, torch.tensor(slope * kept), rtol=0.05)
    assert (norm.bias.grad != slope * 4 * 32 * 32).all()


def masks(seed: int, count: int = 1) -> Tensor:
    """What dropout at one half keeps of a layer, (count, elements) of 0 and 1."""
    norm, conv = layers(16, 16, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(16)[:, :, None, None])
        conv.bias.zero_()
        norm.weight.fill_(1e-3)
        norm.bias.fill_(5.0)
    x = torch.randn(4, 16, 32, 32)
    torch.manual_seed(seed)
    return torch.stack([(ops.norm_silu_conv(x, norm, conv, dropout=0.5) != 0).flatten().double() for _ in range(count)])


@needs_kernels
def test_dropout_is_a_function_of_the_generator() -> None:
    assert torch.equal(masks(5, 2), masks(5, 2))


@needs_kernels
def test_dropout_of_other_calls_steps_and_neighbours_is_independent() -> None:
    signs = 2 * torch.cat([masks(seed, 2) for seed in range(6)]) - 1
    noise = 4.5 / signs.shape[1] ** 0.5  # in 66 pairs and 30 shifts, beyond this by chance once in a thousand
    between = signs @ signs.T / signs.shape[1] - torch.eye(len(signs))
    assert between.abs().max() < noise
    for shift in (1, 2, 16, 32, 512):
        assert ((signs * signs.roll(shift, 1)).mean(1)).abs().max() < noise


@needs_kernels
@pytest.mark.parametrize("inputs", [16, 48])
def test_threads_change_no_bit(inputs: int) -> None:
    norm, conv = layers(inputs, 32, 3)
    x, residual = torch.randn(5, inputs, 9, 8), torch.randn(5, 32, 9, 8)

    def layer(x, residual, norm, conv):
        return ops.norm_silu_conv(x, norm, conv, dropout=0.1, residual=residual, scale=0.5)

    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        torch.manual_seed(0)
        results.append(values_and_gradients(layer, x, residual, norm, conv))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_kernels
def test_the_network_fits_the_kernels() -> None:
    """A guard of the speed: that all that can be fused is."""
    lanes = max(KERNELS.values())
    x, conv = torch.randn(1, lanes, 8, 8), nn.Conv2d(lanes, lanes, 3, padding=1)
    assert fused.kernel_for(x, conv.weight) is not None
    assert fused.kernel_for(x, None) is not None


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.randn(1, 16, 4, 4, dtype=torch.float64), torch.randn(16, 16, 3, 3, dtype=torch.float64)),
        (torch.randn(1, 16, 4, 4, dtype=torch.bfloat16), torch.randn(16, 16, 3, 3, dtype=torch.bfloat16)),
        (torch.randn(1, 12, 4, 4), torch.randn(12, 12, 3, 3)),
        (torch.randn(1, 16, 4, 4), torch.randn(16, 16, 5, 5)),
        (torch.randn(0, 16, 4, 4), torch.randn(16, 16, 3, 3)),
        (torch.randn(1, 16, 4, 4, device="meta"), torch.randn(16, 16, 3, 3, device="meta")),
    ],
    ids=["float64", "bfloat16", "channels", "side", "empty", "device"],
)
def test_torch_does_what_the_kernels_cannot(x: Tensor, weight: Tensor) -> None:
    assert fused.kernel_for(x, weight) is None


def test_torch_computes_under_autocast() -> None:
    norm, conv = layers(16, 16, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.norm_silu_conv(torch.randn(1, 16, 4, 4), norm, conv).dtype == torch.bfloat16


def test_without_the_library_torch_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.importlib.machinery, "EXTENSION_SUFFIXES", [".of-another-python"])
    native.load_library.cache_clear()
    native.available_kernels.cache_clear()
    try:
        assert native.load_library() is None
        assert fused.kernel_for(torch.randn(1, 16, 4, 4), None) is None
    finally:
        native.load_library.cache_clear()
        native.available_kernels.cache_clear()
