from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.methods.pixelnerf.rays import Rays
from model.methods.pixelnerf.sources import Sources, read_rows
from model.types import Cameras
from tests.model.methods.pixelnerf.scenery import rigid

HEIGHT, WIDTH = 12, 16
SIZE = (6, 8)  # of the feature map
#: From OpenCV's axes to the published ones: x right, y up, z backward.
OPENGL = np.diag([1.0, -1.0, -1.0])


@pytest.fixture
def world() -> dict[str, np.ndarray]:
    """Two objects in a dataset's world frame, centred at its origin, with two source cameras and three rays each."""
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(2, 3, 3))
    return {
        "cameras": np.stack([[rigid(generator, distance=3.0) for _ in range(2)] for _ in range(2)]),
        "origins": generator.normal(size=(2, 3, 3)),
        "directions": directions / np.linalg.norm(directions, axis=-1, keepdims=True),
        "distances": generator.uniform(1, 3, (2, 3, 4)),
        "focal": generator.uniform(14, 20, (2, 2, 2)),
        "principal": generator.uniform(5, 9, (2, 2, 2)),
    }


def seen(world, through):
    """The samples in the frame of our code, whose origin is the first source camera."""
    first = world["cameras"][:, 0]
    cameras = world["cameras"] @ np.linalg.inv(first)[:, None]
    origins = np.einsum("bij,brj->bri", first[:, :3, :3], world["origins"]) + first[:, None, :3, 3]
    directions = np.einsum("bij,brj->bri", first[:, :3, :3], world["directions"])
    sources = Sources(
        Cameras(
            *(torch.from_numpy(a) for a in (cameras, world["focal"], world["principal"])), height=HEIGHT, width=WIDTH
        ),
        centre=torch.from_numpy(first[:, :3, 3].copy()),
    )
    nothing = torch.zeros(2, 3, dtype=torch.float64)
    rays = Rays(torch.from_numpy(origins), torch.from_numpy(directions), nothing, nothing, nothing)
    return sources.see(rays, torch.from_numpy(world["distances"]), SIZE, through)


def samples(world):
    for b in range(2):
        for v in range(2):
            for r in range(3):
                for s in range(4):
                    point = world["origins"][b, r] + world["distances"][b, r, s] * world["directions"][b, r]
                    yield b, v, r, s, point


def test_positions_are_rotated_and_not_translated(world):
    positions = seen(world, "centre").positions
    assert positions.shape == (2, 2, 3, 4, 3)
    for b, v, r, s, point in samples(world):
        expected = OPENGL @ world["cameras"][b, v, :3, :3] @ point
        np.testing.assert_allclose(positions[b, v, r, s], expected, atol=1e-12)


def test_directions_are_unit_and_in_the_axes_of_the_source(world):
    directions = seen(world, "centre").directions
    assert directions.shape == (2, 2, 3, 1, 3)
    for b, v, r, _, _ in samples(world):
        expected = OPENGL @ world["cameras"][b, v, :3, :3] @ world["directions"][b, r]
        np.testing.assert_allclose(directions[b, v, r, 0], expected, atol=1e-12)


@pytest.mark.parametrize(("through", "offset"), [("centre", 0.5), ("corner", 0.0)])
def test_points_are_projected_to_cells(world, through, offset):
    places = seen(world, through).places
    for b, v, r, s, point in samples(world):
        x, y, z, _ = world["cameras"][b, v] @ [*point, 1]
        pixel = world["focal"][b, v] * np.array([x, y]) / z + world["principal"][b, v]
        np.testing.assert_allclose(places[b, v, r, s], (pixel - offset) * [8 / 16, 6 / 12], rtol=1e-9)


def test_the_middle_of_every_second_pixel_is_the_middle_of_a_cell():
    """A convolution of stride 2 computes cell k around pixel 2k, whose centre has the coordinate 2k + 1/2."""
    cameras = Cameras(torch.eye(4)[None, None], torch.ones(1, 1, 2), torch.zeros(1, 1, 2), height=HEIGHT, width=WIDTH)
    rays = Rays(torch.zeros(1, 1, 3), torch.tensor([[[6.5, 4.5, 1.0]]]), *torch.zeros(3, 1, 1))
    places = Sources(cameras, torch.zeros(1, 3)).see(rays, torch.ones(1, 1, 1), SIZE, "centre").places
    assert places.flatten().tolist() == [3.0, 2.0]


def test_points_in_the_plane_of_the_camera_have_finite_gradients():
    cameras = Cameras(torch.eye(4)[None, None], torch.ones(1, 1, 2), torch.zeros(1, 1, 2), height=HEIGHT, width=WIDTH)
    rays = Rays(torch.zeros(1, 1, 3), torch.tensor([[[1.0, 0.0, 0.0]]]), *torch.zeros(3, 1, 1))
    distances = torch.ones(1, 1, 1, requires_grad=True)
    places = Sources(cameras, torch.zeros(1, 3)).see(rays, distances, SIZE, "centre").places
    table = torch.rand(48, 2)
    read_rows(table, places, SIZE).sum().backward()
    assert places.isfinite().all()
    assert distances.grad.isfinite().all()


@pytest.mark.parametrize("size", [SIZE, (1, 1), (1, 5), (4, 1)])
def test_rows_are_read_as_grid_sample_reads_maps(size):
    generator = torch.Generator().manual_seed(0)
    height, width = size
    maps = torch.rand(2, 3, 5, height, width, generator=generator, dtype=torch.float64, requires_grad=True)
    span = torch.tensor([width, height], dtype=torch.float64)
    places = (torch.rand(2, 3, 7, 4, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3) * span
    places[0, 0, 0, 0], places[0, 0, 0, 1] = span - 1, torch.zeros(2)
    places.requires_grad_()
    read = read_rows(maps.permute(0, 1, 3, 4, 2).flatten(0, 3), places, size)
    assert read.shape == (2, 3, 7, 4, 5)

    largest = (span - 1).clamp(min=1e-9)
    grid = (places / largest * 2 - 1).flatten(0, 1)
    expected = F.grid_sample(maps.flatten(0, 1), grid, padding_mode="border", align_corners=True)
    expected = expected.permute(0, 2, 3, 1).unflatten(0, (2, 3))
    torch.testing.assert_close(read, expected)
    towards = torch.rand(read.shape, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad((read * towards).sum(), [maps, places])
    theirs = torch.autograd.grad((expected * towards).sum(), [maps, places])
    torch.testing.assert_close(ours[0], theirs[0])
    if min(size) > 1:  # grid_sample scales by the size less one
        kinks = (places == places.floor()).any(-1, keepdim=True)
        torch.testing.assert_close(ours[1].masked_fill(kinks, 0), theirs[1].masked_fill(kinks, 0))
