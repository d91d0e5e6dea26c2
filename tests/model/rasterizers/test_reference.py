"""The backend `reference`: results known by hand, the exact derivative, and the two deliberate departures from it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.rasterizers.reference import render, sh_basis
from model.types import Cameras, Gaussians

Y0 = 0.28209479177387814


def splats(means, opacity=0.5, colour=(1.0, 0.0, 0.0), scale=0.01):
    """One scene of Gaussians in plain colours, float64."""
    means = torch.as_tensor(means, dtype=torch.float64).reshape(1, -1, 3)
    n = means.shape[1]
    colours = torch.as_tensor(colour, dtype=torch.float64).expand(n, 3)
    return Gaussians(
        means=means,
        scales=torch.as_tensor(scale, dtype=torch.float64).expand(1, n, 3).contiguous(),
        rotations=torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(1, n, 4).contiguous(),
        opacities=torch.full((1, n, 1), opacity, dtype=torch.float64),
        sh=((colours - 0.5) / Y0).reshape(1, n, 1, 3),
    )


def camera(height=9, width=11, focal=10.0, principal=None):
    """A camera at the world's origin that looks along z."""
    principal = (width / 2, height / 2) if principal is None else principal
    return Cameras(
        world_to_camera=torch.eye(4, dtype=torch.float64).reshape(1, 1, 4, 4),
        focal=torch.full((1, 1, 2), focal, dtype=torch.float64),
        principal=torch.tensor(principal, dtype=torch.float64).reshape(1, 1, 2),
        height=height,
        width=width,
    )


def draw(gaussians, cameras=None, background=(0.0, 0.0, 0.0), antialiasing=False):
    background = torch.tensor([background], dtype=torch.float64)
    return render(gaussians, cameras or camera(), background, antialiasing, False)[0][0, 0]


def test_a_gaussian_on_the_axis_peaks_in_the_middle_pixel():
    image = draw(splats([0, 0, 2], opacity=0.5), background=(0, 0, 1))
    torch.testing.assert_close(image[:, 4, 5], torch.tensor([0.5, 0, 0.5], dtype=torch.float64))
    assert image[0].argmax() == 4 * 11 + 5
    torch.testing.assert_close(image, image.flip(1), atol=1e-12, rtol=0)
    torch.testing.assert_close(image, image.flip(2), atol=1e-12, rtol=0)


def test_x_is_right_y_is_down_and_pixel_centres_are_at_halves():
    image = draw(splats([0.2, 0.4, 2]), camera(principal=(3.5, 2.5)))  # (3.5 + 1, 2.5 + 2): column 4, row 4
    assert image[0].argmax() == 4 * 11 + 4
    assert image[0, 4, 4] == pytest.approx(0.5, abs=1e-6)


def test_footprint_is_the_projected_variance_and_the_dilation():
    image = draw(splats([0, 0, 2], opacity=0.9, scale=0.3))  # 1.5 px
    expected = 0.9 * math.exp(-0.5 * 4 / (1.5**2 + 0.3))
    assert image[0, 4, 7] == pytest.approx(expected, rel=1e-6)
    assert image[0, 6, 5] == pytest.approx(expected, rel=1e-6)


def test_quaternions_are_real_first_and_turn_local_axes_into_the_world():
    needle = splats([0, 0, 2], scale=[0.4, 0.001, 0.001])
    half = math.sqrt(0.5)
    about_z = torch.tensor([half, 0, 0, half], dtype=torch.float64).reshape(1, 1, 4)  # x becomes y
    image = draw(replace(needle, rotations=about_z))
    assert image[0, 7, 5] > 0.1
    assert image[0, 4, 8] == 0
    torch.testing.assert_close(draw(needle)[0, 4, 2:9], image[0, 1:8, 5])


def test_nearest_first_in_any_given_order():
    colours = [[1.0, 0, 0], [0, 1.0, 0]]
    image = draw(splats([[0, 0, 3], [0, 0, 2]], opacity=0.6, colour=colours))
    torch.testing.assert_close(image[:, 4, 5], torch.tensor([0.4 * 0.6, 0.6, 0], dtype=torch.float64))


def test_a_pixel_stops_before_the_gaussian_that_takes_it_below_the_bound():
    """Three opacities of 0.98 leave 8e-6 < 1e-4, so the third is not drawn, nor a faint fourth, which would fit."""
    g = splats([[0, 0, 2 + i] for i in range(4)], opacity=0.98, colour=torch.eye(4)[:, :3])
    g.opacities[0, 3] = 0.01
    image = draw(g, background=(1, 1, 1))
    rest = 0.02**2
    torch.testing.assert_close(
        image[:, 4, 5], torch.tensor([0.98 + rest, 0.02 * 0.98 + rest, rest], dtype=torch.float64)
    )


def test_alpha_is_cut_off_below_and_above():
    assert draw(splats([0, 0, 2], opacity=0.99 / 255)).abs().max() == 0
    assert draw(splats([0, 0, 2], opacity=1.01 / 255))[0, 4, 5] == pytest.approx(1.01 / 255)
    assert draw(splats([0, 0, 2], opacity=1.0))[0, 4, 5] == pytest.approx(0.99)


def test_gradient_passes_the_upper_cut():
    g = splats([0, 0, 2], opacity=1.0)
    opacities = g.opacities.requires_grad_()
    draw(replace(g, opacities=opacities))[0, 4, 5].backward()
    assert opacities.grad.item() == pytest.approx(1.0)


def test_nothing_at_or_before_the_near_plane():
    assert draw(splats([0, 0, 0.2])).abs().max() == 0
    assert draw(splats([0, 0, -1.0])).abs().max() == 0
    assert draw(splats([0, 0, 0.2000001])).abs().max() > 0


def test_colours_below_zero_become_zero_without_gradient():
    g = splats([0, 0, 2], colour=(-0.25, 0.5, 2.0))
    sh = g.sh.requires_grad_()
    image = draw(replace(g, sh=sh))
    torch.testing.assert_close(image[:, 4, 5], torch.tensor([0, 0.25, 1.0], dtype=torch.float64))
    image.sum().backward()
    assert sh.grad[0, 0, 0, 0] == 0
    assert sh.grad[0, 0, 0, 1] > 0


def test_colour_depends_on_the_direction_in_the_world():
    """With only degree 1's coefficient of z, a Gaussian is brighter seen along +z than along -z."""
    g = splats([0, 0, 2], opacity=0.5)
    sh = torch.zeros(1, 1, 4, 3, dtype=torch.float64)
    sh[0, 0, 2] = 0.4
    behind = torch.diag(torch.tensor([-1.0, 1, -1, 1], dtype=torch.float64))
    behind[2, 3] = 4.0  # at z = 4, looking back
    front = camera()
    back = replace(front, world_to_camera=behind.reshape(1, 1, 4, 4))
    slope = 0.4886025119029199 * 0.4
    assert draw(replace(g, sh=sh), front)[0, 4, 5] == pytest.approx(0.5 * (0.5 + slope))
    assert draw(replace(g, sh=sh), back)[0, 4, 5] == pytest.approx(0.5 * (0.5 - slope))


def test_antialiasing_keeps_the_weight_of_what_the_dilation_widens():
    small = splats([0, 0, 2], opacity=0.9, scale=0.1)  # 0.5 px
    expected = 0.9 * 0.25 / (0.25 + 0.3)
    assert draw(small, antialiasing=True)[0, 4, 5] == pytest.approx(expected, rel=1e-6)


def test_inverse_depth_is_composited_like_a_colour_over_nothing():
    g = splats([[0, 0, 2], [0, 0, 4]], opacity=0.5)
    background = torch.ones(1, 3, dtype=torch.float64)
    images, inverse_depths = render(g, camera(), background, False, True)
    assert images.shape == (1, 1, 3, 9, 11)
    assert inverse_depths.shape == (1, 1, 1, 9, 11)
    assert inverse_depths[0, 0, 0, 4, 5] == pytest.approx(0.5 / 2 + 0.25 / 4)
    assert inverse_depths[0, 0, 0, 0, 0] == 0
    assert render(g, camera(), background, False, False)[1] is None


def test_harmonics_are_orthonormal_with_the_signs_of_3dgs():
    nodes, weights = np.polynomial.legendre.leggauss(8)  # exact for products up to degree 6
    azimuths = np.arange(16) * 2 * np.pi / 16
    z = torch.as_tensor(np.repeat(nodes, 16))
    phi = torch.as_tensor(np.tile(azimuths, 8))
    ring = (1 - z**2).sqrt()
    basis = sh_basis(torch.stack([ring * phi.cos(), ring * phi.sin(), z], dim=1), 16)
    area = torch.as_tensor(np.repeat(weights, 16)) * 2 * np.pi / 16
    torch.testing.assert_close(basis.T @ (area[:, None] * basis), torch.eye(16, dtype=torch.float64))

    diagonal = torch.full((1, 3), 1 / math.sqrt(3), dtype=torch.float64)
    signs = sh_basis(diagonal, 16)[0, [1, 2, 3, 4, 5, 7, 10, 11, 12, 13]].sign()
    assert signs.tolist() == [-1, 1, -1, 1, -1, -1, 1, -1, -1, -1]


@pytest.mark.parametrize("antialiasing", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_gradient_is_the_derivative(make_scene, degree, antialiasing):
    scene = make_scene(seed=3 + degree, degree=degree, count=3, size=(4, 5))
    g = scene.gaussians.to(torch.float64)
    leaves = [
        t.requires_grad_()
        for t in (g.means * 0.3, g.scales * 4, g.rotations, g.opacities * 0.8, g.sh, scene.background.double())
    ]

    def function(*tensors):
        return render(Gaussians(*tensors[:5]), scene.cameras, tensors[5], antialiasing, True)

    assert torch.autograd.gradcheck(function, leaves, eps=1e-7, atol=1e-5)


def test_jacobian_outside_the_frustum_takes_the_clamped_point_as_constant():
    """Beyond 1.3 tan(fov/2) the slope of depth enters the footprint through 1/z and 1/z^2 only."""
    g = splats([2.0, 0, 2], opacity=0.9, scale=1.0)  # slope 1.0; the bound is 1.3 * 11 / 20 = 0.715
    means = g.means.clone().requires_grad_()
    image = draw(replace(g, means=means))
    by_means = torch.autograd.grad(image[0].sum(), means)[0]
    step = 1e-6

    def total(dx, dz):
        return draw(replace(g, means=g.means + torch.tensor([dx, 0, dz], dtype=torch.float64)))[0].sum()

    by_x = (total(step, 0.0) - total(-step, 0.0)) / (2 * step)
    by_z = (total(0.0, step) - total(0.0, -step)) / (2 * step)
    assert by_means[0, 0, 0] == pytest.approx(by_x.item(), rel=1e-4)  # sideways, the clamped slope is constant
    assert by_means[0, 0, 2] != pytest.approx(by_z.item(), rel=1e-2)  # in depth it is not: see the module


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gaussians(dtype):
    empty = splats(torch.zeros(0, 3)).to(dtype)
    image, inverse_depth = render(empty, camera(), torch.tensor([[0.1, 0.2, 0.3]], dtype=dtype), False, True)
    assert image.dtype == inverse_depth.dtype == dtype
    assert inverse_depth.abs().max() == 0
    assert torch.equal(image[0, 0, :, 3, 4], torch.tensor([0.1, 0.2, 0.3], dtype=dtype))
