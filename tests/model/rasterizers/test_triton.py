"""Features of backend `triton` alone: launches, tile lists, sums in a fixed order, kernels that compile for GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.rasterizers import BACKENDS, compat, is_available, packages, render
from model.rasterizers import triton as triton_backend
from model.rasterizers.backend import deferred_checks
from model.rasterizers.reference import Splats
from tests.cuda_graphs import CudaGraphs

triton = pytest.importorskip("triton", reason="torch brings Triton on Linux alone")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.gpu
#: The interpreter takes its time per program; a compiler for one that is too large.
FEW_TILES = 32 if DEVICE == "cpu" else 8


@pytest.fixture(autouse=True)
def _on_this_machine(monkeypatch):
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def kernels():
    from model.rasterizers import triton_kernels

    return triton_kernels


def drawn(scene, **options):
    arguments = {"antialiasing": False, "return_depth": True} | options
    gaussians, cameras = scene.gaussians.to(DEVICE), scene.cameras.to(DEVICE)
    return triton_backend.render(gaussians, cameras, scene.background.to(DEVICE), **arguments)


@pytest.mark.parametrize("tile", [4, 8, 16])
def test_tiles_of_any_size_agree(make_scene, assert_agrees, monkeypatch, tile):
    monkeypatch.setattr(triton_backend, "TILE", tile)
    assert_agrees(make_scene(3, size=(18, 13), count=30), True, True, triton_backend.render, DEVICE)


class Launches:
    """Counts the launches of a kernel."""

    def __init__(self, kernel, counts):
        self.kernel, self.counts = kernel, counts

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            self.counts.append(self.kernel.__name__)
            return self.kernel[grid](*arguments, **options)

        return launch


def test_the_number_of_launches_does_not_depend_on_scenes_and_views(make_scene, evaluate, monkeypatch, kernels):
    monkeypatch.setattr(triton_backend, "TILE", FEW_TILES)
    counts = []
    for name in ("project", "fill_tiles", "composite", "composite_backward", "project_backward"):
        monkeypatch.setattr(kernels, name, Launches(getattr(kernels, name), counts))
    for batch in ((1, 1), (3, 2)):
        counts.clear()
        evaluate(triton_backend.render, make_scene(batch=batch, count=9, size=(8, 8)), device=DEVICE)
        assert counts == ["project", "fill_tiles", "composite", "composite_backward", "project_backward"]


class HostReads(TorchDispatchMode):
    """Counts the values that the host reads from tensors, for which it would wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def test_grids_of_large_images(make_scene, monkeypatch, kernels):
    """A GPU takes 2**31 - 1 programs in the first dimension of a grid, and 65,535 in the second."""
    grids = {}

    class Grid:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, grid):
            grids[self.name] = grid
            return lambda *_, **__: None

    for name in ("project", "fill_tiles", "composite", "composite_backward", "project_backward"):
        monkeypatch.setattr(kernels, name, Grid(name))
    scene = make_scene(0, size=(2048, 2048), count=1)
    gaussians = scene.gaussians.to(DEVICE)
    gaussians.means.requires_grad_()
    images, _ = triton_backend.render(gaussians, scene.cameras.to(DEVICE), scene.background.to(DEVICE), False, False)
    images.sum().backward()
    assert len(grids) == 5
    assert grids["composite"][0] == (2048 // 8) ** 2
    assert all(second < 2**16 for _, second in grids.values())


def test_the_host_reads_nothing(make_scene, monkeypatch):
    monkeypatch.setattr(triton_backend, "TILE", FEW_TILES)
    scene = make_scene(batch=(2, 2), count=9, size=(8, 8))
    means = scene.gaussians.means.to(DEVICE).requires_grad_()
    with HostReads() as reads:
        images, depths = drawn(replace(scene, gaussians=replace(scene.gaussians, means=means)))
        (images.square().sum() + depths.sum()).backward()
    assert reads.count == 0
    assert means.grad.any()


@pytest.mark.parametrize("room", [1, 3])
def test_lists_that_are_too_short_are_made_longer(make_scene, monkeypatch, room):
    """The images do not depend on a list's first length, and the next call of the shape starts with the needed one."""
    scene = make_scene(kind="huge", count=20, size=(16, 16))
    expected = drawn(scene)
    monkeypatch.setattr(triton_backend, "_needed", {})
    monkeypatch.setattr(triton_backend, "LIST_BYTES", 4 * 4 * room)  # four tiles
    for before, after in zip(expected, drawn(scene), strict=True):
        assert torch.equal(before, after)
    ((shape, needed),) = triton_backend._needed.items()
    assert shape == (1, 4, 20)
    assert needed == 20
    with HostReads() as reads:
        drawn(scene)
    assert reads.count == 0


def test_checks_are_deferred(make_scene, monkeypatch):
    """No value is read; the check shows that room was lacking, and makes it."""
    scene = make_scene(kind="huge", count=20, size=(16, 16))
    expected, _ = drawn(scene)
    monkeypatch.setattr(triton_backend, "_needed", {})
    monkeypatch.setattr(triton_backend, "LIST_BYTES", 4 * 4 * 3)  # four tiles of three splats
    for is_first in (True, False):
        with HostReads() as reads, deferred_checks() as checks:
            images, _ = drawn(scene)
        assert reads.count == 0
        lacking = [check for check in checks if check.lacked_room]
        assert bool(lacking) == is_first
        assert torch.equal(images, expected) != is_first
        for check in lacking:
            check.make_room()


@pytest.mark.skipif(DEVICE == "cuda", reason="records operations on the CPU")
def test_a_graph_may_contain_a_call(make_scene, monkeypatch, kernels):
    """A replay draws the Gaussians that are in the captured tensors then, forward and backward."""
    graphs = CudaGraphs(monkeypatch)
    graphs.record_launches(kernels, "project", "fill_tiles", "composite", "composite_backward", "project_backward")
    one, other = (make_scene(seed, count=6, size=(8, 8), degree=1) for seed in (1, 2))
    means = one.gaussians.means.clone().requires_grad_()
    scene = replace(one, gaussians=replace(one.gaussians, means=means))

    def images_and_gradient():
        images, _ = drawn(scene)
        (gradient,) = torch.autograd.grad(images.square().sum(), means)
        return images, gradient

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=None):
        captured = images_and_gradient()
    with torch.no_grad():
        means.copy_(other.gaussians.means)
    graph.replay()
    for replayed, expected in zip(captured, images_and_gradient(), strict=True):
        assert torch.equal(replayed, expected)


def test_sums_in_a_fixed_order(make_scene, evaluate, assert_agrees):
    """The results are as close to `reference` as others, and bit-identical with tiles in any order."""
    scene = make_scene(5, count=40, batch=(1, 2), degree=2)
    torch.use_deterministic_algorithms(True)
    try:
        assert_agrees(scene, True, True, triton_backend.render, DEVICE)
        once, again = (evaluate(triton_backend.render, scene, True, True, device=DEVICE) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_sums_in_a_fixed_order_have_room_for_splats_as_large_as_the_picture(make_scene, monkeypatch):
    """By 50 bits, 32 pixels have as little room as 512 have by 34."""
    scene = make_scene(count=1, size=(32, 32))
    monkeypatch.setattr(triton_backend, "_FIXED_POINT_BITS", 50)
    found = []
    for deterministic in (False, True):
        scales = torch.full((1, 1, 3), 1.0, device=DEVICE, requires_grad=True)
        images, _ = drawn(replace(scene, gaussians=replace(scene.gaussians, scales=scales)))
        torch.use_deterministic_algorithms(deterministic)
        try:
            images.sum().backward()
        finally:
            torch.use_deterministic_algorithms(False)
        found.append(scales.grad)
    torch.testing.assert_close(found[1], found[0])


def test_a_gradient_that_is_not_finite_stays_so(make_scene):
    scene = make_scene(count=5, size=(8, 8))
    for deterministic in (False, True):
        means = scene.gaussians.means.to(DEVICE).requires_grad_()
        images, _ = drawn(replace(scene, gaussians=replace(scene.gaussians, means=means)))
        torch.use_deterministic_algorithms(deterministic)
        try:
            (images * float("nan")).sum().backward()
        finally:
            torch.use_deterministic_algorithms(False)
        assert not torch.isfinite(means.grad).any()


def test_splats_that_were_projected_elsewhere(make_scene):
    """`compat` uses this on a GPU: the image and gradients are those of its CPU kernels."""
    from model.rasterizers import orthographic
    from model.rasterizers.reference import Splats, project, select

    scene = make_scene(2, count=50)
    splats = project(select(scene.gaussians.to(torch.float64), 0), select(scene.cameras.to(torch.float64), 0, 0), False)
    splats = replace(splats, opacities=splats.opacities.float().double())
    outcomes = []
    for draw, device in ((orthographic.draw, "cpu"), (triton_backend.draw, DEVICE)):
        tensors = {field.name: getattr(splats, field.name).detach().to(device) for field in fields(splats)}
        leaves = [tensors[name].requires_grad_() for name in ("centres", "covariances", "colours")]
        image, depth = draw(Splats(**tensors), 20, 24, scene.background[0].double().to(device), True)
        ((image * scene.weights[0, 0].to(device)).sum() + depth.sum()).backward()
        outcomes.append([image, depth, *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours.float().cpu(), theirs.float().cpu(), rtol=1e-3, atol=2e-5)


def test_tensors_on_the_host_are_refused_without_the_interpreter(make_scene, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    scene = make_scene(count=3)
    with pytest.raises(ValueError, match=r"'triton' draws tensors on a GPU, got means on cpu"):
        render(scene.gaussians, scene.cameras, scene.background, "triton")
    if DEVICE == "cpu":
        assert not is_available("triton")


def test_a_missing_package_is_named(make_scene, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(packages.importlib, "import_module", missing)
    scene = make_scene(count=3)
    with pytest.raises(packages.BackendUnavailableError, match=r"needs the package triton, which is not installed"):
        triton_backend.render(scene.gaussians, scene.cameras, scene.background, False, False)
    splats = Splats(*(torch.zeros(0, *shape) for shape in ((), (2,), (3,), (), (3,))))
    with pytest.raises(packages.BackendUnavailableError, match=r"needs the package triton, which is not installed"):
        triton_backend.draw(splats, 8, 8, torch.zeros(3), False)
    assert "triton" in BACKENDS


COMPILE = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from model.rasterizers import triton_kernels as kernels

def build(name, pointers, numbers, **constants):
    function = getattr(kernels, name)
    types = dict(zip(function.arg_names, [*pointers, *["i32"] * numbers]))
    types |= {constant: "constexpr" for constant in constants}
    assert set(types) == set(function.arg_names), name
    values = {(function.arg_names.index(constant),): value for constant, value in constants.items()}
    for capability in (80, 90):
        source, target = ASTSource(function, types, values), GPUTarget("cuda", capability, 32)
        compiled = compile(source, target=target, options={"num_warps": warps})
        assert len(compiled.asm["cubin"]) > 1000

F, D, I, L = "*fp32", "*fp64", "*i32", "*i64"
shared = {"NEAR": 0.2, "ANTIALIASING": True, "COEFFICIENTS": 4, "BLOCK": 128}
warps = 4
build("project", [F] * 7 + [D, L], 4, TILE=8, **shared)
build("project_backward", [F] * 12, 4, **shared)
build("fill_tiles", [L, L, I, I], 4, BLOCK=1024)
warps = 1
build("composite", [F, I, I, F, F, F], 7, TILE=8)
build("composite_backward", [F, I, I, F, F, F, D], 6, TILE=8, FIXED_POINT=False)
build("composite_backward", [F, I, I, F, F, L, D], 6, TILE=8, FIXED_POINT=True)
"""


def test_the_kernels_compile_for_a_gpu_without_one(tmp_path):
    """Triton's compiler produces code for capabilities 8.0 and 9.0, which finds errors that the interpreter ignores."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_compat_takes_it_for_tensors_on_a_gpu():
    assert compat._drawing(torch.device("cuda")) is triton_backend.draw
    assert compat._drawing(torch.device("cpu")) is not triton_backend.draw
