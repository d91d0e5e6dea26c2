"""The adapter to diff-gaussian-rasterization, with our stand-in everywhere and with the package itself on a GPU."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch.overrides import TorchFunctionMode

from model.rasterizers import compat, inria, render
from model.rasterizers.packages import BackendUnavailableError
from model.types import Gaussians
from tests.model.rasterizers.published import as_inria

BOTH = ("newer", "older")
NEWER = compat.GaussianRasterizationSettings
#: The settings of the older generation, without `antialiasing`.
OLDER = NamedTuple("OlderSettings", list(NEWER.__annotations__.items())[:-1])

needs_package = pytest.mark.skipif(not inria.is_available(), reason="needs a GPU and diff-gaussian-rasterization")


@pytest.fixture
def package(request, monkeypatch):
    """Our stand-in under the package's name, of the requested generation."""
    settings = {"newer": NEWER, "older": OLDER}[request.param]
    module = SimpleNamespace(
        DRAWS_ON_CPU=True, GaussianRasterizationSettings=settings, GaussianRasterizer=compat.GaussianRasterizer
    )
    monkeypatch.setitem(sys.modules, inria.PACKAGE, module)
    return module


@pytest.mark.parametrize("package", BOTH, indirect=True)
@pytest.mark.usefixtures("package")
def test_images_and_all_gradients(make_scene, scene_kinds, agrees_with_reference):
    for seed, kind in enumerate(scene_kinds):
        scene = make_scene(seed, kind, degree=seed % 4, batch=(2, 2), yaw=150.0, count=40)
        agrees_with_reference(inria.render, scene)


@pytest.mark.parametrize("package", ["newer"], indirect=True)
@pytest.mark.usefixtures("package")
def test_antialiasing_and_inverse_depth(make_scene, scene_kinds, agrees_with_reference):
    for seed, kind in enumerate(scene_kinds):
        scene = make_scene(100 + seed, kind, degree=seed % 4, batch=(1, 2), yaw=150.0, count=40)
        agrees_with_reference(inria.render, scene, antialiasing=True, return_depth=True)


@pytest.mark.parametrize("near", [0.01, 1.9])
@pytest.mark.parametrize("package", ["newer"], indirect=True)
@pytest.mark.usefixtures("package")
def test_any_near_plane(make_scene, agrees_with_reference, near):
    scene = make_scene(20, batch=(1, 2))
    scene = replace(scene, cameras=replace(scene.cameras, near=near))
    agrees_with_reference(inria.render, scene, return_depth=True)


@pytest.mark.parametrize("package", BOTH, indirect=True)
@pytest.mark.usefixtures("package")
def test_is_a_backend_of_render(make_scene):
    scene = make_scene(21, batch=(2, 2))
    arguments = (scene.gaussians, scene.cameras, scene.background)
    images = render(*arguments, backend="inria")
    torch.testing.assert_close(images, render(*arguments, backend="reference"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("package", ["newer"], indirect=True)
@pytest.mark.usefixtures("package")
def test_results_do_not_depend_on_torchs_defaults(make_scene, other_defaults):
    scene = make_scene(22, batch=(1, 2))
    expected = inria.render(scene.gaussians, scene.cameras, scene.background, True, True)
    with other_defaults():
        assert all(
            map(torch.equal, inria.render(scene.gaussians, scene.cameras, scene.background, True, True), expected)
        )


@pytest.mark.parametrize("package", BOTH, indirect=True)
def test_background_is_drawn_once_where_it_needs_no_gradient(make_scene, package):
    calls = []

    class Counting(compat.GaussianRasterizer):
        def forward(self, *arguments, **named):
            calls.append(self.raster_settings.bg)
            return super().forward(*arguments, **named)

    package.GaussianRasterizer = Counting
    scene = make_scene(22)
    images, _ = inria.render(scene.gaussians, scene.cameras, scene.background, False, False)
    assert len(calls) == 1
    assert torch.equal(calls[0], scene.background[0])
    background = scene.background.clone().requires_grad_()
    again, _ = inria.render(scene.gaussians, scene.cameras, background, False, False)
    assert len(calls) == 3
    torch.testing.assert_close(again, images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("package", BOTH, indirect=True)
@pytest.mark.parametrize(("batch", "count"), [((2, 3), 0), ((0, 2), 5), ((2, 0), 5)])
@pytest.mark.usefixtures("package")
def test_nothing_to_draw(make_scene, take, batch, count):
    scenes, views = batch
    scene = take(make_scene(count=count, batch=(2, 3)), slice(scenes), slice(views))
    images, depths = inria.render(scene.gaussians, scene.cameras, scene.background, False, False)
    assert torch.equal(images, scene.background[:, None, :, None, None].expand(scenes, views, 3, 20, 24))
    assert depths is None


class ReadsOfTheDevice(TorchFunctionMode):
    """Counts, by name, operations that make the host wait for a GPU or copy Python lists to it.

    Tensors are on the CPU here, so it counts the calls, not their cost.
    """

    READS = ("item", "tolist", "numpy", "cpu", "nonzero", "is_nonzero", "equal", "allclose")
    CONVERSIONS = ("__bool__", "__float__", "__int__", "__index__", "__array__", "__contains__")
    CONSTRUCTION = ("tensor", "as_tensor", "new_tensor", "asarray")
    MOVES = ("to", "type", "cuda", "copy_")
    CHECKED = ("solve", "linalg_solve", "linalg_inv", "inverse", "linalg_cholesky")  # errors are read back
    COUNTED = frozenset((*READS, *CONVERSIONS, *CONSTRUCTION, *MOVES, *CHECKED))

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in self.COUNTED:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


class Flat(torch.nn.Module):
    """A rasteriser without synchronisation: it returns images of one colour, with gradients for all inputs."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings

    def forward(self, **arguments):
        size = (self.settings.image_height, self.settings.image_width)
        level = sum(tensor.sum() for tensor in arguments.values()) + self.settings.viewmatrix.sum()
        picture = level.expand(3, *size) + self.settings.bg[:, None, None]
        return picture, None, picture[:1]


@pytest.mark.parametrize("package", ["newer"], indirect=True)
@pytest.mark.parametrize("wants_background", [False, True])
def test_reads_of_the_device_do_not_grow_with_the_views(make_scene, package, wants_background):
    package.GaussianRasterizer = Flat

    def counted(batch):
        scene = make_scene(23, batch=batch)
        gaussians = Gaussians(
            *(getattr(scene.gaussians, field.name).requires_grad_() for field in fields(scene.gaussians))
        )
        background = scene.background.requires_grad_(wants_background)
        with ReadsOfTheDevice() as reads:
            images, depths = inria.render(gaussians, scene.cameras, background, True, True)
        (images.sum() + depths.sum()).backward()
        assert all(getattr(gaussians, field.name).grad is not None for field in fields(gaussians))
        return reads.counts

    many = counted((8, 4))
    assert many == counted((1, 1))
    assert many["cpu"] == 1
    assert sum(many.values()) < 10


def test_the_counter_of_reads_sees_them():
    with ReadsOfTheDevice() as reads:
        tensor = torch.tensor([1.0])
        tensor.tolist()
        tensor.item()
        float(tensor)
        if tensor > 0:
            tensor.cpu()
        tensor.new_tensor([1.0])
        torch.linalg.solve(torch.eye(2), torch.ones(2))
    assert sum(reads.counts.values()) == 8, reads.counts


@pytest.mark.parametrize("package", BOTH, indirect=True)
def test_states_what_its_generation_can_do(package):
    can = inria.capabilities()
    is_newer = package.GaussianRasterizationSettings is NEWER
    assert (can.antialiasing, can.inverse_depth) == (is_newer, is_newer)
    assert can.generation == ("newer generation" if is_newer else "older generation")
    assert can.devices == ("cuda",)


@pytest.mark.parametrize("package", ["older"], indirect=True)
@pytest.mark.parametrize(("wish", "named"), [((True, False), "antialiasing"), ((False, True), "inverse depth")])
@pytest.mark.usefixtures("package")
def test_errors_of_the_older_generation_name_what_it_lacks(make_scene, wish, named):
    scene = make_scene()
    with pytest.raises(BackendUnavailableError, match=f"older generation, which has no {named}.*pip install"):
        inria.render(scene.gaussians, scene.cameras, scene.background, *wish)


@pytest.mark.parametrize("package", ["newer"], indirect=True)
def test_an_unknown_fork_is_refused(make_scene, package):
    fields = [*OLDER.__annotations__.items(), ("gamma", float)]
    package.GaussianRasterizationSettings = NamedTuple("ForkedSettings", fields)
    scene = make_scene()
    with pytest.raises(BackendUnavailableError, match="settings differ by antialiasing, gamma"):
        inria.render(scene.gaussians, scene.cameras, scene.background, False, False)


@pytest.mark.parametrize("package", ["newer"], indirect=True)
def test_tensors_on_the_host_are_kept_from_cuda_code(make_scene, package):
    del package.DRAWS_ON_CPU
    scene = make_scene()
    with pytest.raises(ValueError, match="'inria' draws tensors on a GPU, got means on cpu"):
        inria.render(scene.gaussians, scene.cameras, scene.background, False, False)


def test_absence_is_explained(make_scene, monkeypatch):
    monkeypatch.setattr(inria, "PACKAGE", "diff_gaussian_rasterization_that_is_nowhere")
    scene = make_scene()
    with pytest.raises(BackendUnavailableError, match=r"is not installed\..*pip install .*git"):
        render(scene.gaussians, scene.cameras, scene.background, backend="inria")
    assert not inria.is_available()


def test_a_package_that_does_not_load_is_explained(make_scene, monkeypatch, tmp_path):
    (tmp_path / "broken_rasterization.py").write_text("raise ImportError('libcudart.so.12: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(inria, "PACKAGE", "broken_rasterization")
    scene = make_scene()
    with pytest.raises(BackendUnavailableError, match=r"cannot be imported \(libcudart"):
        inria.render(scene.gaussians, scene.cameras, scene.background, False, False)


@pytest.mark.gpu
@needs_package
@pytest.mark.parametrize("degree", range(4))
def test_on_a_gpu(make_scene, agrees_with_reference, monkeypatch, degree):
    """The expected values have the package's own cut; the tolerances are those of float32 (`published.py`)."""
    import diff_gaussian_rasterization

    newer = "antialiasing" in diff_gaussian_rasterization.GaussianRasterizationSettings._fields
    scene = make_scene(30 + degree, degree=degree, batch=(2, 2), yaw=150.0)
    as_inria(monkeypatch)
    agrees_with_reference(
        inria.render,
        scene,
        antialiasing=newer,
        return_depth=newer,
        device="cuda",
        image_error=1e-4,
        relative_error=1e-3,
    )
