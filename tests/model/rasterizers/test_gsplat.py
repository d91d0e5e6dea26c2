"""The adapter to gsplat: its arguments, drawn by stand-ins for both versions, and by gsplat itself on a GPU."""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from model.rasterizers import NEAR_PLANE, compat, gsplat, reference, render
from model.rasterizers.packages import BackendUnavailableError
from tests.model.rasterizers.published import as_gsplat

needs_package = pytest.mark.skipif(not gsplat.is_available(), reason="needs a GPU and gsplat")


def rasterization(
    version,
    *,
    means,
    quats,
    scales,
    opacities,
    colors,
    viewmats,
    Ks,
    width,
    height,
    near_plane,
    eps2d,
    rasterize_mode,
    packed,
    covars,
    sh_degree=None,
    backgrounds=None,
):
    """Our CPU kernels behind the part of gsplat 1.5's and 1.6's function that our adapter uses.

    Colours are (B, V, N, D).  Harmonics are (B, N, K, 3) in 1.5, and (N, K, 3) for all scenes in 1.6.
    """
    batch, count, views = means.shape[0], means.shape[1], viewmats.shape[1]
    assert quats.shape == (batch, count, 4)
    assert scales.shape == (batch, count, 3)
    assert covars.shape == (batch, count, 3, 3)
    assert opacities.shape == (batch, count)
    assert viewmats.shape == (batch, views, 4, 4)
    assert Ks.shape == (batch, views, 3, 3)
    assert (near_plane, eps2d, packed) == (NEAR_PLANE, reference.DILATION, False)
    if sh_degree is not None:
        assert colors.ndim == (4 if version == "1.5.3" else 3)
        colors = colors.expand(batch, *colors.shape[-3:])
    else:
        assert colors.shape[:-1] == (batch, views, count)
    channels = 3 if sh_degree is not None else colors.shape[-1]
    assert backgrounds is None or backgrounds.shape == (batch, views, channels)
    inputs = [means, quats, scales, opacities, colors, viewmats, Ks, covars]
    assert all(tensor.dtype == torch.float32 for tensor in inputs)
    upper = torch.triu_indices(3, 3)

    def one(b, v):
        intrinsics, view = Ks[b, v].double(), viewmats[b, v].double()
        assert intrinsics[2].tolist() == [0, 0, 1]
        size = intrinsics.new_tensor([width, height])
        projection = torch.zeros(4, 4, dtype=torch.float64)
        projection[:2, :3] = 2 * intrinsics[:2] / size[:, None]
        projection[:2, 2] -= 1
        projection[3, 2] = 1
        colours = {"colors_precomp": colors[b, v].expand(-1, 3)} if sh_degree is None else {"shs": colors[b]}
        settings = compat.GaussianRasterizationSettings(
            image_height=height,
            image_width=width,
            tanfovx=float(width / (2 * intrinsics[0, 0])),
            tanfovy=float(height / (2 * intrinsics[1, 1])),
            bg=torch.zeros(3) if backgrounds is None else backgrounds[b, v],
            scale_modifier=1.0,
            viewmatrix=view.T,
            projmatrix=(projection @ view).T,
            sh_degree=0 if sh_degree is None else sh_degree,
            campos=torch.linalg.inv(view)[:3, 3],
            prefiltered=False,
            debug=False,
            antialiasing={"classic": False, "antialiased": True}[rasterize_mode],
        )
        image, *_ = compat.GaussianRasterizer(settings)(
            means[b],
            torch.zeros_like(means[b]),
            opacities[b],
            cov3D_precomp=covars[b][:, upper[0], upper[1]],
            **colours,
        )
        return image[:channels].permute(1, 2, 0)

    images = torch.stack([torch.stack([one(b, v) for v in range(views)]) for b in range(batch)])
    return images, images[..., :1], {}


@pytest.fixture(params=["1.5.3", "1.6.0"])
def package(request, monkeypatch):
    drawing = partial(rasterization, request.param)
    module = SimpleNamespace(DRAWS_ON_CPU=True, __version__=request.param, rasterization=drawing)
    monkeypatch.setitem(sys.modules, gsplat.PACKAGE, module)
    return module


def test_without_kernels_and_a_compiler_it_is_not_available(tmp_path, monkeypatch):
    """As the wheel from PyPI on a machine without the CUDA toolkit, where it disables itself when it is imported."""
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: spec)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    for path in (None, tmp_path / "bin" / "nvcc", tmp_path / "csrc.cpython-311-x86_64-linux-gnu.so"):
        if path is not None:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        gsplat._has_kernels.cache_clear()
        assert gsplat.is_available() is (path is not None)
        if path is not None:
            path.unlink()
    gsplat._has_kernels.cache_clear()


@pytest.mark.usefixtures("package")
def test_images_and_all_gradients(make_scene, scene_kinds, agrees_with_reference):
    for seed, kind in enumerate(scene_kinds):
        scene = make_scene(seed, kind, degree=seed % 4, batch=(2, 2), yaw=150.0, count=40)
        agrees_with_reference(gsplat.render, scene)


@pytest.mark.usefixtures("package")
def test_antialiasing_and_inverse_depth(make_scene, scene_kinds, agrees_with_reference):
    for seed, kind in enumerate(scene_kinds):
        if kind == "needles":
            continue  # gsplat's covariances are float32, in which the width of these is lost
        scene = make_scene(100 + seed, kind, degree=seed % 4, batch=(1, 2), yaw=150.0, count=40)
        agrees_with_reference(gsplat.render, scene, antialiasing=True, return_depth=True)


@pytest.mark.usefixtures("package")
def test_a_gaussian_without_inverse_depth(make_scene, agrees_with_reference):
    scene = make_scene(4, "near plane")
    scene.gaussians.means[:, 0] = torch.tensor([0.0, 0.0, -2.0])  # in the plane of the camera
    agrees_with_reference(gsplat.render, scene, return_depth=True)


def test_one_call_for_all_scenes_and_views(make_scene, package):
    calls, drawing = [], package.rasterization

    def recorded(**arguments):
        calls.append(arguments)
        return drawing(**arguments)

    package.rasterization = recorded
    scene = make_scene(3, degree=2, batch=(2, 3))
    gsplat.render(scene.gaussians, scene.cameras, scene.background, True, True)
    colours, depths = calls
    assert colours["viewmats"].shape == (2, 3, 4, 4)
    assert torch.equal(colours["Ks"][1, 2, :2, 2], scene.cameras.principal[1, 2])
    assert torch.equal(colours["backgrounds"], scene.background[:, None].expand(2, 3, 3))
    assert colours["colors"].shape == (2, 3, 60, 3)
    assert colours["rasterize_mode"] == depths["rasterize_mode"] == "antialiased"
    assert depths["colors"].shape == (2, 3, 60, 1)
    assert "backgrounds" not in depths
    assert not any("sh_degree" in call for call in calls)


@pytest.mark.parametrize(("batch", "count"), [((2, 3), 0), ((0, 2), 5), ((2, 0), 5)])
@pytest.mark.usefixtures("package")
def test_nothing_to_draw(make_scene, take, batch, count):
    scenes, views = batch
    scene = take(make_scene(count=count, batch=(2, 3)), slice(scenes), slice(views))
    images, depths = gsplat.render(scene.gaussians, scene.cameras, scene.background, False, True)
    assert torch.equal(images, scene.background[:, None, :, None, None].expand(scenes, views, 3, 20, 24))
    assert torch.equal(depths, torch.zeros(scenes, views, 1, 20, 24))


@pytest.mark.usefixtures("package")
def test_is_a_backend_of_render(make_scene):
    scene = make_scene(21, batch=(2, 2))
    arguments = (scene.gaussians, scene.cameras, scene.background)
    images = render(*arguments, backend="gsplat")
    torch.testing.assert_close(images, render(*arguments, backend="reference"), rtol=0, atol=1e-5)


def test_versions_without_batches_are_refused(make_scene, package):
    package.__version__ = "1.4.0"
    scene = make_scene()
    with pytest.raises(BackendUnavailableError, match=r"gsplat 1\.4\.0 is too old\. Install it with: pip install"):
        gsplat.render(scene.gaussians, scene.cameras, scene.background, False, False)


def test_tensors_on_the_host_are_kept_from_cuda_code(make_scene, package):
    del package.DRAWS_ON_CPU
    scene = make_scene()
    with pytest.raises(ValueError, match="'gsplat' draws tensors on a GPU, got means on cpu"):
        gsplat.render(scene.gaussians, scene.cameras, scene.background, False, False)


def test_states_what_it_can_do(package):
    can = gsplat.capabilities()
    assert (can.generation, can.devices) == (package.__version__, ("cuda",))
    assert can.lacks(antialiasing=True, inverse_depth=True) == ()


@pytest.mark.usefixtures("package")
def test_a_gaussian_at_the_centre_of_projection_has_finite_gradients(make_scene, evaluate):
    scene = make_scene(4)
    scene.gaussians.means[0, 0] = -(scene.cameras.world_to_camera[0, 0, :3, :3].T @ torch.tensor([0.0, 0.0, 2.0]))
    found = evaluate(gsplat.render, scene)
    assert all(torch.isfinite(tensor).all() for tensor in found.values())


def test_absence_is_explained(make_scene, monkeypatch):
    monkeypatch.setattr(gsplat, "PACKAGE", "gsplat_that_is_nowhere")
    scene = make_scene()
    with pytest.raises(BackendUnavailableError, match=r"is not installed\..*pip install .*gsplat"):
        render(scene.gaussians, scene.cameras, scene.background, backend="gsplat")
    assert not gsplat.is_available()


@pytest.mark.gpu
@needs_package
@pytest.mark.parametrize("antialiasing", [False, True])
@pytest.mark.parametrize("degree", range(4))
def test_on_a_gpu(make_scene, agrees_with_reference, monkeypatch, degree, antialiasing):
    """The expected values have gsplat's own approximations; only float32 and fast math differ (`published.py`)."""
    scene = make_scene(30 + degree, degree=degree, batch=(2, 2), yaw=150.0)
    as_gsplat(monkeypatch, version=gsplat.capabilities().generation)
    agrees_with_reference(gsplat.render, scene, antialiasing, True, "cuda", image_error=1e-4, relative_error=1e-3)
