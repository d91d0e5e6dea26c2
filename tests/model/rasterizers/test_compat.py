"""diff-gaussian-rasterization's interface on the CPU, against `reference` in float64 and its documentation."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from model.rasterizers import reference
from model.rasterizers.compat import (
    DRAWS_ON_CPU,
    GaussianRasterizationSettings,
    GaussianRasterizer,
    rasterize_gaussians,
)
from model.rasterizers.reference import alpha_maps, composite, rotation_matrices, select
from model.types import Gaussians

TENSORS = ("means", "scales", "rotations", "opacities", "sh")


def settings_for(scene, antialiasing=None, degree=None, **changes):
    """Settings for the first camera of a scene, as code for the package constructs them."""
    cameras = scene.cameras
    height, width = cameras.height, cameras.width
    view = cameras.world_to_camera[0, 0].double()
    fx, fy = cameras.focal[0, 0].double()
    cx, cy = cameras.principal[0, 0].double()
    rows = [
        [2 * fx / width, 0, 2 * cx / width - 1, 0],
        [0, 2 * fy / height, 2 * cy / height - 1, 0],
        [0, 0, 100 / 99.9, -10 / 99.9],  # near 0.1, far 100, which nothing depends on
        [0, 0, 1, 0],
    ]
    projection = torch.tensor(rows, dtype=torch.float64)
    values = {
        "image_height": height,
        "image_width": width,
        "tanfovx": float(width / (2 * fx)),
        "tanfovy": float(height / (2 * fy)),
        "bg": scene.background[0],
        "scale_modifier": 1.0,
        "viewmatrix": view.T,
        "projmatrix": (projection @ view).T,
        "sh_degree": int(scene.gaussians.sh.shape[2] ** 0.5) - 1 if degree is None else degree,
        "campos": torch.linalg.inv(view)[:3, 3],
        "prefiltered": False,
        "debug": False,
    }
    values |= {} if antialiasing is None else {"antialiasing": antialiasing}
    return GaussianRasterizationSettings(**(values | changes))


def leaves_of(scene, dtype=torch.float32):
    """The Gaussians of the first scene and its background, as leaves without a batch dimension."""
    tensors = {name: getattr(scene.gaussians, name)[0] for name in TENSORS} | {"background": scene.background[0]}
    return {name: tensor.to(dtype, copy=True).requires_grad_() for name, tensor in tensors.items()}


def draw(settings, means, scales, rotations, opacities, sh, background, means2D=None):
    rasterizer = GaussianRasterizer(settings._replace(bg=background))
    means2D = torch.zeros_like(means) if means2D is None else means2D
    return rasterizer(means3D=means, means2D=means2D, opacities=opacities, shs=sh, scales=scales, rotations=rotations)


def judged(scene, antialiasing=False):
    """Image and inverse depth of the first scene and camera by `reference` in float64, and the leaf tensors."""
    leaves = leaves_of(scene, torch.float64)
    gaussians = Gaussians(**{name: leaves[name][None] for name in TENSORS})
    cameras = select(scene.cameras, slice(0, 1), slice(0, 1))
    images, depths = reference.render(gaussians, cameras, leaves["background"][None], antialiasing, True)
    return images[0, 0], depths[0, 0], leaves


def judged_splats(scene, antialiasing=False):
    """The splats that `reference` projects, and for each its index among the scene's Gaussians."""
    gaussians = select(scene.gaussians.to(torch.float64), 0)
    camera = select(scene.cameras.to(torch.float64), 0, 0)
    splats = reference.project(gaussians, camera, antialiasing)
    z = (gaussians.means @ camera.world_to_camera[2, :3]) + camera.world_to_camera[2, 3]
    visible = torch.nonzero(z > camera.near).squeeze(1)
    return splats, visible[torch.argsort(z[visible], stable=True)]


def composite_splats(scene, splats, colours, background):
    alphas = alpha_maps(splats, scene.cameras.height, scene.cameras.width)
    return composite(alphas, colours, background.double())


def assert_close(actual, expected, name=""):
    """Asserts that the error is within 1e-4 of the norm of `expected`."""
    error, size = (actual.double() - expected).norm(), expected.norm()
    assert error <= 1e-4 * size, f"{name}: {error:.2e} of {size:.2e}"


@pytest.mark.parametrize("antialiasing", [False, True])
def test_agrees_with_reference_on_every_kind(make_scene, scene_kinds, antialiasing):
    for seed, kind in enumerate(scene_kinds):
        scene = make_scene(seed, kind, degree=seed % 4, yaw=150.0)
        expected, expected_depth, expected_leaves = judged(scene, antialiasing)
        leaves = leaves_of(scene)
        image, _, inverse_depth = draw(settings_for(scene, antialiasing), **leaves)
        assert (image - expected).abs().max() < 1e-5, kind
        assert_close(inverse_depth, expected_depth, kind)

        by_image, by_depth = scene.weights[0, 0], scene.weights[0, 0, :1]
        gradients = torch.autograd.grad((image * by_image).sum() + (inverse_depth * by_depth).sum(), leaves.values())
        wanted = torch.autograd.grad(
            (expected * by_image).sum() + (expected_depth * by_depth).sum(), expected_leaves.values()
        )
        for name, gradient, correct in zip(leaves, gradients, wanted, strict=True):
            assert_close(gradient, correct, f"{kind}, {name}")


def test_gradient_of_the_screen_positions(make_scene):
    scene = make_scene(3, degree=2, yaw=60.0)
    splats, order = judged_splats(scene)
    centres = splats.centres.clone().requires_grad_()
    image = composite_splats(scene, replace(splats, centres=centres), splats.colours, scene.background[0])
    (by_pixel,) = torch.autograd.grad((image * scene.weights[0, 0]).sum(), centres)
    expected = torch.zeros(60, 3, dtype=torch.float64)
    expected[order, :2] = by_pixel * torch.tensor([24, 20]) / 2  # clip space is 2 wide

    screen = torch.full((60, 3), 7.0, requires_grad=True)  # values that would move everything away
    image, _ = draw(settings_for(scene), **leaves_of(scene), means2D=screen)
    (image * scene.weights[0, 0]).sum().backward()
    assert_close(screen.grad, expected)
    assert (screen.grad[:, 2] == 0).all()


@pytest.mark.parametrize("round_", [False, True])
def test_covariances_in_place_of_scales_and_rotations(make_scene, round_):
    """Isotropic covariances have no unique axes, but still a gradient."""
    scene = make_scene(5, yaw=60.0)
    if round_:
        scales = scene.gaussians.scales[..., :1].expand(-1, -1, 3)
        scene = replace(scene, gaussians=replace(scene.gaussians, scales=scales))
    splats, order = judged_splats(scene)
    gaussians, camera = select(scene.gaussians.to(torch.float64), 0), select(scene.cameras.to(torch.float64), 0, 0)
    axes = rotation_matrices(gaussians.rotations) * gaussians.scales[:, None]
    full = axes @ axes.transpose(1, 2)
    upper = torch.triu_indices(3, 3)
    covariances = full[:, upper[0], upper[1]].requires_grad_()

    symmetric = full.new_zeros(60, 3, 3)
    symmetric[:, upper[0], upper[1]] = covariances
    symmetric = symmetric + symmetric.triu(1).transpose(1, 2)
    points = gaussians.means[order] @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
    x, y, z = points.unbind(1)  # none is near enough to the frustum's margin to be bounded there
    (fx, fy), zero = camera.focal, torch.zeros_like(z)
    jacobians = torch.stack([fx / z, zero, -fx * x / z**2, zero, fy / z, -fy * y / z**2], 1).unflatten(1, (2, 3))
    to_image = jacobians @ camera.world_to_camera[:3, :3]
    projected = to_image @ symmetric[order] @ to_image.transpose(1, 2) + 0.3 * torch.eye(2)
    on_image = torch.stack([projected[:, 0, 0], projected[:, 0, 1], projected[:, 1, 1]], dim=1)
    expected = composite_splats(scene, replace(splats, covariances=on_image), splats.colours, scene.background[0])
    (wanted,) = torch.autograd.grad((expected * scene.weights[0, 0]).sum(), covariances)

    leaves, given = leaves_of(scene), covariances.detach().float().requires_grad_()
    rasterizer = GaussianRasterizer(settings_for(scene, scale_modifier=5.0))  # covariances are used as they are
    image, _ = rasterizer(
        leaves["means"], torch.zeros(60, 3), leaves["opacities"], shs=leaves["sh"], cov3D_precomp=given
    )
    assert (image - expected).abs().max() < 1e-5
    assert_close(torch.autograd.grad((image * scene.weights[0, 0]).sum(), given)[0], wanted)


def test_colours_in_place_of_harmonics(make_scene):
    """Colours are used unchanged: without an offset of 0.5 or clamping, and with a gradient at and below 0."""
    scene = make_scene(6)
    splats, order = judged_splats(scene)
    colours = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    colours[::3] = 0
    colours[1] = -40
    exact = colours.double().requires_grad_()
    expected = composite_splats(scene, splats, exact[order], scene.background[0])
    (wanted,) = torch.autograd.grad((expected * scene.weights[0, 0]).sum(), exact)

    leaves, given = leaves_of(scene), colours.clone().requires_grad_()
    image, _ = GaussianRasterizer(settings_for(scene))(
        leaves["means"],
        torch.zeros(60, 3),
        leaves["opacities"],
        colors_precomp=given,
        scales=leaves["scales"],
        rotations=leaves["rotations"],
    )
    torch.testing.assert_close(image, expected.float(), rtol=1e-5, atol=2e-5)
    assert_close(torch.autograd.grad((image * scene.weights[0, 0]).sum(), given)[0], wanted)


def test_scale_modifier_multiplies_scales(make_scene):
    scene = make_scene(7)
    leaves = leaves_of(scene)
    image, radii = draw(settings_for(scene, scale_modifier=2.5), **leaves)
    expected, expected_radii = draw(settings_for(scene), **(leaves | {"scales": leaves["scales"] * 2.5}))
    torch.testing.assert_close(image, expected)
    assert torch.equal(radii, expected_radii)
    assert not torch.equal(radii, draw(settings_for(scene), **leaves)[1])


def test_fewer_bands_than_there_are_harmonics(make_scene):
    scene = make_scene(8, degree=3)
    leaves = leaves_of(scene)
    image, _ = draw(settings_for(scene, degree=1), **leaves)
    first = leaves["sh"][:, :4].detach()
    assert torch.equal(image, draw(settings_for(scene, degree=1), **(leaves | {"sh": first}))[0])
    (gradient,) = torch.autograd.grad(image.square().sum(), leaves["sh"])
    assert (gradient[:, 4:] == 0).all()
    assert (gradient[:, 1:4] != 0).any()


def test_colours_are_evaluated_from_the_given_centre(make_scene):
    scene = make_scene(9, degree=2)
    leaves = leaves_of(scene)
    elsewhere = settings_for(scene, campos=torch.tensor([5.0, -3.0, 1.0]))
    assert not torch.allclose(draw(elsewhere, **leaves)[0], draw(settings_for(scene), **leaves)[0], atol=1e-2)
    flat = leaves | {"sh": leaves["sh"][:, :1]}
    there, here = (draw(settings._replace(sh_degree=0), **flat)[0] for settings in (elsewhere, settings_for(scene)))
    assert torch.equal(there, here)


def test_radii(make_scene):
    scene = make_scene(count=1, size=(40, 40))
    eye, focal = torch.eye(4).expand(1, 1, 4, 4), torch.full((1, 1, 2), 40.0)
    cameras = replace(scene.cameras, world_to_camera=eye, focal=focal, principal=focal / 2)
    places = torch.tensor([[0, 0, 2.0], [0, 0, -2.0], [0, 0, 0.2], [2.0, 0, 2.0], [1.4, 0, 2.0], [0, 0, 2.0]])
    sizes = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.1, 0.0])[:, None].expand(-1, 3)
    leaves = {
        "means": places,
        "scales": sizes,
        "rotations": torch.tensor([1.0, 0, 0, 0]).expand(6, 4),
        "opacities": torch.ones(6, 1),
        "sh": torch.zeros(6, 1, 3),
        "background": torch.zeros(3),
    }
    settings = settings_for(replace(scene, cameras=cameras))._replace(sh_degree=0)
    _, radii = draw(settings, **leaves)
    assert radii.dtype == torch.int32
    # 0.1 seen at 2 with focal 40 has variance 4 + 0.3, which counts as no less than 0.1 in the larger eigenvalue's
    # square root: 3 * sqrt(4.3 + sqrt(0.1)) = 6.4.  Beside the image its square reaches the last tile, to x = 48.
    assert radii.tolist()[:4] == [7, 0, 0, 0]
    assert radii[4] == 8  # 28 px off the middle, at x = 47.5; wider by the obliqueness
    assert radii[5] == 3


def test_what_is_not_drawn_gets_radius_0_and_no_gradient(make_scene):
    scene = make_scene(2, "near plane", count=40)
    leaves = leaves_of(scene)
    image, radii = draw(settings_for(scene), **leaves)
    visible = GaussianRasterizer(settings_for(scene)).markVisible(leaves["means"])
    z = scene.gaussians.means[0, :, 2].double() + 2
    assert torch.equal(visible, z > 0.2)  # none is nearer to it than float32 resolves
    assert 0 < visible.sum() < 40
    assert (radii[~visible] == 0).all()
    (gradient,) = torch.autograd.grad(image.sum(), leaves["means"])
    assert (gradient[~visible] == 0).all()


class OlderSettings(NamedTuple):
    """The settings type of a version without antialiasing."""

    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: torch.Tensor
    scale_modifier: float
    viewmatrix: torch.Tensor
    projmatrix: torch.Tensor
    sh_degree: int
    campos: torch.Tensor
    prefiltered: bool
    debug: bool


def test_each_generation_returns_what_it_does(make_scene):
    scene = make_scene(4)
    leaves = leaves_of(scene)
    older, newer = settings_for(scene), settings_for(scene, antialiasing=False)
    image, radii = draw(older, **leaves)
    newer_image, newer_radii, inverse_depth = draw(newer, **leaves)
    assert torch.equal(image, newer_image)
    assert torch.equal(radii, newer_radii)
    assert inverse_depth.shape == (1, 20, 24)
    assert torch.equal(draw(OlderSettings(*older[:12]), **leaves)[0], image)
    assert not torch.equal(draw(settings_for(scene, antialiasing=True), **leaves)[0], image)


def test_the_function_takes_empty_tensors_for_absent_ones(make_scene):
    scene = make_scene(4)
    leaves, absent = leaves_of(scene), torch.Tensor([])
    image, radii = rasterize_gaussians(
        leaves["means"],
        torch.zeros(60, 3),
        leaves["sh"],
        absent,
        leaves["opacities"],
        leaves["scales"],
        leaves["rotations"],
        absent,
        settings_for(scene),
    )
    expected, expected_radii = draw(settings_for(scene), **leaves)
    assert torch.equal(image, expected)
    assert torch.equal(radii, expected_radii)


def test_without_gaussians_the_background_is_drawn(make_scene):
    scene = make_scene(count=0)
    image, radii = draw(settings_for(scene), **leaves_of(scene))
    torch.testing.assert_close(image, scene.background[0][:, None, None].expand(3, 20, 24))
    assert radii.shape == (0,)


def test_code_for_the_package_trains(make_scene):
    """A training loop as in 3D Gaussian Splatting: fits an image, and collects the statistics for densification."""
    scene = make_scene(11, count=40, degree=0)
    settings = settings_for(scene)
    target = draw(settings, **leaves_of(scene))[0].detach()
    leaves = leaves_of(make_scene(12, count=40, degree=0))
    leaves["background"] = scene.background[0]
    trained = [leaves[name] for name in ("means", "opacities", "sh")]
    optimizer = torch.optim.Adam(trained, lr=0.02)
    losses, accumulated = [], torch.zeros(40)
    for _ in range(40):
        screen = torch.zeros_like(leaves["means"], requires_grad=True)
        image, radii = draw(settings, **leaves, means2D=screen)
        loss = (image - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accumulated[radii > 0] += screen.grad[radii > 0, :2].norm(dim=1)
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert (accumulated > 0).sum() > 30


def test_is_no_stand_in_for_a_gpu_package_by_accident():
    assert DRAWS_ON_CPU


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shs": None}, "either shs or colors_precomp, got neither"),
        ({"colors_precomp": torch.zeros(60, 3)}, "either shs or colors_precomp, got both"),
        ({"scales": None}, "either scales and rotations or cov3D_precomp, got rotations"),
        ({"scales": None, "rotations": None}, "got none of them"),
        ({"cov3D_precomp": torch.zeros(60, 6)}, "got scales, rotations, cov3D_precomp"),
        ({"means3D": torch.zeros(60, 2)}, r"means3D must be \(60, 3\), got \(60, 2\)"),
        ({"means2D": torch.zeros(59, 3)}, r"means2D must be \(60, 3\), got \(59, 3\)"),
        ({"opacities": torch.zeros(60, 2)}, r"opacities must be \(60, 1\), got \(60, 2\)"),
        ({"shs": torch.zeros(60, 1, 3)}, r"shs must be \(60, 4, 3\), got \(60, 1, 3\)"),
        ({"shs": torch.zeros(60, 12)}, r"shs must be \(60, 4, 3\), got \(60, 12\)"),
        ({"rotations": torch.full((60, 4), float("nan"))}, "rotations holds values that are NaN or infinite"),
    ],
)
def test_wrong_tensors_are_refused(make_scene, changes, message):
    scene = make_scene()
    leaves = leaves_of(scene)
    arguments = {
        "means3D": leaves["means"],
        "means2D": torch.zeros(60, 3),
        "opacities": leaves["opacities"],
        "shs": leaves["sh"],
        "scales": leaves["scales"],
        "rotations": leaves["rotations"],
    }
    with pytest.raises(ValueError, match=message):
        GaussianRasterizer(settings_for(scene))(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sh_degree": 4}, "sh_degree must be 0, 1, 2 or 3, got 4"),
        ({"tanfovx": 0.0}, r"tanfovx must be positive and finite, got 0\.0"),
        ({"tanfovy": float("inf")}, "tanfovy must be positive and finite, got inf"),
        ({"viewmatrix": torch.zeros(3, 4)}, r"viewmatrix must be \(4, 4\), got \(3, 4\)"),
        ({"projmatrix": torch.full((4, 4), float("inf"))}, "projmatrix holds values that are NaN"),
        ({"campos": torch.zeros(4)}, r"campos must be \(3,\), got \(4,\)"),
    ],
)
def test_wrong_settings_are_refused(make_scene, changes, message):
    scene = make_scene()
    with pytest.raises(ValueError, match=message):
        draw(settings_for(scene, **changes), **leaves_of(scene))


def test_what_stands_for_a_number_or_a_tensor_is_taken(make_scene):
    scene = make_scene()
    plain = settings_for(scene)
    odd = settings_for(
        scene,
        image_height=np.int64(plain.image_height),
        image_width=float(plain.image_width),
        sh_degree=np.int32(plain.sh_degree),
        campos=plain.campos.tolist(),
        viewmatrix=plain.viewmatrix.numpy(),
        projmatrix=plain.projmatrix.tolist(),
        bg=[0.25, 0.5, 0.75],
    )
    leaves = leaves_of(scene)
    arguments = {"opacities": leaves["opacities"], "shs": leaves["sh"], "scales": leaves["scales"]}
    arguments |= {"means3D": leaves["means"], "rotations": leaves["rotations"]}
    expected, _ = GaussianRasterizer(plain._replace(bg=torch.tensor([0.25, 0.5, 0.75])))(means2D=None, **arguments)
    image, _ = GaussianRasterizer(odd)(means2D=None, **arguments)
    torch.testing.assert_close(image, expected)
    image.sum().backward()
    assert leaves["means"].grad is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sh_degree": 1.5}, "sh_degree must be a whole number, got 1.5"),
        ({"image_height": "32"}, "image_height must be a whole number, got '32'"),
        ({"image_width": float("nan")}, "image_width must be a whole number, got nan"),
        ({"campos": "here"}, "campos must be a tensor or a list of numbers, got 'here'"),
    ],
)
def test_what_stands_for_neither_is_named(make_scene, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        draw(settings_for(make_scene(), **changes), **leaves_of(make_scene()))
