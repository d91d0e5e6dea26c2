from dataclasses import replace

import numpy as np
import pytest
import torch

from model.methods.pixelnerf.rays import Bounds, cast
from model.types import Cameras
from tests.model.methods.pixelnerf.scenery import rigid

HEIGHT, WIDTH = 6, 8


@pytest.fixture
def cameras() -> Cameras:
    generator = np.random.default_rng(0)
    poses = np.stack([[rigid(generator) for _ in range(2)] for _ in range(2)])
    return Cameras(
        world_to_camera=torch.from_numpy(poses),
        focal=torch.tensor(generator.uniform(6, 9, (2, 2, 2))),
        principal=torch.tensor(generator.uniform(2, 5, (2, 2, 2))),
        height=HEIGHT,
        width=WIDTH,
    )


VIEW, ROW, COLUMN = torch.tensor([[0, 1], [1, 1]]), torch.tensor([[0, 5], [2, 3]]), torch.tensor([[7, 0], [4, 4]])


@pytest.mark.parametrize(("through", "offset"), [("centre", 0.5), ("corner", 0.0)])
def test_rays_leave_the_camera_through_their_pixel(cameras, through, offset):
    bounds = Bounds(torch.tensor([1.0, 1.0]).double(), torch.tensor([2.0, 3.0]).double(), of="camera_z")
    rays = cast(cameras, VIEW, ROW, COLUMN, through=through, bounds=bounds)
    for b in range(2):
        for r in range(2):
            view = VIEW[b, r]
            matrix = cameras.world_to_camera[b, view].numpy()
            focal, principal = cameras.focal[b, view].numpy(), cameras.principal[b, view].numpy()
            origin, direction = rays.origins[b, r].numpy(), rays.directions[b, r].numpy()
            np.testing.assert_allclose(matrix @ [*origin, 1], [0, 0, 0, 1], atol=1e-9)
            assert np.linalg.norm(direction) == pytest.approx(1)
            for distance in (0.5, 3.0):
                x, y, z, _ = matrix @ [*(origin + distance * direction), 1]
                assert z == pytest.approx(distance * rays.cosines[b, r].item())
                assert focal[0] * x / z + principal[0] == pytest.approx(COLUMN[b, r].item() + offset)
                assert focal[1] * y / z + principal[1] == pytest.approx(ROW[b, r].item() + offset)


@pytest.mark.parametrize("of", ["camera_z", "distance"])
def test_bounds_are_of_camera_z_or_of_the_distance(cameras, of):
    bounds = Bounds(torch.tensor([0.8, 1.0]).double(), torch.tensor([1.8, 3.0]).double(), of=of)
    rays = cast(cameras, VIEW, ROW, COLUMN, through="centre", bounds=bounds)
    for b in range(2):
        for r in range(2):
            matrix = cameras.world_to_camera[b, VIEW[b, r]].numpy()
            for bound, distances in ((bounds.near[b], rays.near), (bounds.far[b], rays.far)):
                distance = distances[b, r].item()
                z = (matrix @ [*(rays.origins[b, r].numpy() + distance * rays.directions[b, r].numpy()), 1])[2]
                assert (z if of == "camera_z" else distance) == pytest.approx(bound.item())


@pytest.mark.parametrize("of", ["camera_z", "distance"])
def test_bounds_may_be_counted_from_the_origin_in_every_camera(cameras, of):
    generator = np.random.default_rng(1)
    poses = cameras.world_to_camera.clone()
    poses[..., :3, 3] = torch.tensor(generator.uniform(-0.3, 0.3, (2, 2, 3)))
    poses[..., 2, 3] += 6.0
    cameras, origin = replace(cameras, world_to_camera=poses), torch.tensor(generator.normal(size=(2, 3)) / 3)
    bounds = Bounds(torch.tensor([-2.0, -1.0]).double(), torch.tensor([2.0, 1.0]).double(), of=of, origin=origin)
    rays = cast(cameras, VIEW, ROW, COLUMN, through="centre", bounds=bounds)
    for b in range(2):
        for r in range(2):
            seen = (poses[b, VIEW[b, r]].numpy() @ [*origin[b].numpy(), 1])[:3]
            offset = seen[2] if of == "camera_z" else np.linalg.norm(seen)
            scale = rays.cosines[b, r].item() if of == "camera_z" else 1.0
            assert rays.near[b, r].item() * scale == pytest.approx(offset + bounds.near[b].item())
            assert rays.far[b, r].item() * scale == pytest.approx(offset + bounds.far[b].item())


def test_nothing_lies_behind_the_camera(cameras):
    bounds = Bounds(torch.tensor([-5.0, -5.0]).double(), torch.tensor([-1.0, 2.0]).double(), of="camera_z")
    rays = cast(replace(cameras, near=0.2), VIEW, ROW, COLUMN, through="centre", bounds=bounds)
    torch.testing.assert_close(rays.near * rays.cosines, torch.full((2, 2), 0.2).double())
    torch.testing.assert_close(rays.far * rays.cosines, torch.tensor([[0.2, 0.2], [2.0, 2.0]]).double())
