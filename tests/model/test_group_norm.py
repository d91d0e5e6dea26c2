"""Group normalisation in plain operators, and in Triton kernels under its interpreter, against torch's."""

import copy
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from model.group_norm import (
    FusedGroupNorm,
    SmallGroupNorm,
    _is_fused,
    activated,
    fuse,
    normalised,
    use_plain_operators,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


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


@pytest.fixture
def _kernels(monkeypatch):
    pytest.importorskip("triton", reason="torch brings Triton on Linux alone")
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.gpu
@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize(
    ("shape", "groups", "function"),
    [
        ((2, 12, 4, 6), 3, FusedGroupNorm),
        ((1, 24, 8, 8), 1, FusedGroupNorm),
        ((1, 8, 32, 32), 8, FusedGroupNorm),
        ((2, 12, 4, 6), 4, SmallGroupNorm),
        ((1, 24, 8, 8), 1, SmallGroupNorm),
        ((3, 8, 4, 4), 8, SmallGroupNorm),
    ],
    ids=["no power of two", "one group", "many chunks", "small", "small, one group", "small, a channel a group"],
)
def test_fused_values_and_gradients_are_torchs(shape, groups, function, silu):
    torch.manual_seed(0)
    x = (3 * torch.randn(shape) + 10).to(DEVICE).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.randn(shape[1]).to(DEVICE).requires_grad_() for _ in range(2))
    by_y = torch.randn(shape).to(DEVICE)
    y = function.apply(x, weight, bias, groups, 1e-6, silu)
    assert y.is_contiguous(memory_format=torch.channels_last)
    ours = (y, *torch.autograd.grad(y, (x, weight, bias), by_y))
    exact = F.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-6)
    exact = F.silu(exact) if silu else exact
    theirs = (exact, *torch.autograd.grad(exact, (x, weight, bias), by_y.double()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("function", [FusedGroupNorm, SmallGroupNorm])
def test_fused_results_have_the_dtype_of_the_features(function):
    """Statistics are float32, as where the features are; only features are rounded."""
    x = (torch.randn(1, 8, 8, 8) + 30).to(DEVICE).bfloat16().contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    weight, bias = torch.ones(8, device=DEVICE, requires_grad=True), torch.zeros(8, device=DEVICE, requires_grad=True)
    y = function.apply(x, weight, bias, 2, 1e-6, True)
    by_x, by_weight, _ = torch.autograd.grad(y.float().square().sum(), (x, weight, bias))
    assert (y.dtype, by_x.dtype, by_weight.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    torch.testing.assert_close(y.float(), F.silu(F.group_norm(x.float(), 2, eps=1e-6)), rtol=0.01, atol=0.01)


def test_on_the_host_nothing_is_fused():
    norm, x = nn.GroupNorm(2, 8), torch.randn(1, 8, 4, 4)
    before = F.silu(norm(x)), norm(x)
    fuse(norm)
    assert all(torch.equal(a, b) for a, b in zip(before, (activated(norm, x), normalised(norm, x)), strict=True))


@pytest.mark.parametrize(("side", "channels", "is_fused"), [(1024, 128, True), (1024, 256, False), (514, 64, False)])
def test_maps_with_more_chunks_than_a_grid_takes_are_torchs(side, channels, is_fused):
    """A GPU takes 65,535 programs in the second dimension of a grid."""
    shape = (1, channels, side, side)
    x = SimpleNamespace(is_cuda=True, dtype=torch.float32, shape=shape, dim=lambda: 4, numel=lambda: 1)
    assert _is_fused(SimpleNamespace(fused=True), x) is is_fused


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_fused_norms_on_a_gpu():
    """A network's norm is the kernels' where they can take its features, and torch's elsewhere and after `plain`."""
    norm = nn.GroupNorm(2, 8).to(DEVICE)
    fuse(norm)
    copied = copy.deepcopy(norm)
    use_plain_operators(copied)
    for side, name in ((64, "FusedGroupNormBackward"), (4, "SmallGroupNormBackward"), (3, "SiluBackward0")):
        x = torch.randn(1, 8, side, side, device=DEVICE, requires_grad=True)
        y = activated(norm, x)
        assert name in str(y.grad_fn)
        torch.testing.assert_close(y, activated(copied, x), rtol=1e-4, atol=1e-5)
        assert "Silu" in str(activated(copied, x).grad_fn)
        torch.testing.assert_close(normalised(norm, x), normalised(copied, x), rtol=1e-4, atol=1e-5)


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from model import group_norm_kernels as kernels

def build(name, **constants):
    function = getattr(kernels, name)
    numbers = {"P", "C", "G", "COUNT", "chunks"}
    types = {
        argument: "constexpr" if argument.isupper() and argument not in numbers
        else "i32" if argument in numbers
        else features if argument in {"x", "y", "by_y", "by_x"} else "*fp32"
        for argument in function.arg_names
    }
    values = {(function.arg_names.index(constant),): value for constant, value in constants.items()}
    assert {name for name, kind in types.items() if kind == "constexpr"} == set(constants)
    for capability in (80, 90) if features == "*fp32" else (90,):
        compiled = compile(ASTSource(function, types, values), target=GPUTarget("cuda", capability, 32))
        assert len(compiled.asm["cubin"]) > 1000

group, tile = {"SIZE": 12, "WIDTH": 16, "CHUNKS": 32}, {"ROWS": 8, "COLUMNS": 512}
for features in ("*fp32", "*bf16"):
    build("moments", **tile)
    build("statistics", ROWS=8, EPS=1e-6, **group)
    build("normalise", SILU=True, **tile)
    build("gradient_moments", SILU=True, SIZE=12, **tile)
    build("gradient_statistics", **group)
    build("gradient", SILU=True, SIZE=12, **tile)
    build("normalise_group", SILU=True, EPS=1e-6, SIZE=12, WIDTH=16, PIXELS=256)
    build("gradient_group", SILU=True, SIZE=12, WIDTH=16, PIXELS=256)
"""


@pytest.mark.gpu
def test_the_kernels_compile_for_a_gpu_without_one(tmp_path):
    pytest.importorskip("triton", reason="torch brings Triton on Linux alone")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
