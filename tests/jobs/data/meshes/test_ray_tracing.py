import tracemalloc

import numpy as np
import pytest

from jobs.data.meshes.cameras import evaluation_cameras, look_at_origin, training_cameras
from jobs.data.meshes.ray_tracing import LIGHT, Mesh, Rig, render

RED = np.array([1.0, 0.0, 0.0])


def red(hits):
    return np.tile(RED, (len(hits.faces), 1))


def speck(point: np.ndarray, radius: float) -> Mesh:
    """A small octahedron around a point."""
    tips = np.concatenate([np.eye(3), -np.eye(3)]) * radius + point
    faces = [[x, y, z] for x in (0, 3) for y in (1, 4) for z in (2, 5)]
    return Mesh(tips, np.array(faces))


def facing_square(z: float, half: float) -> Mesh:
    """A square across the z axis of a camera at the origin."""
    corners = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])
    return Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]]))


def test_a_point_off_the_axes_is_drawn_where_it_projects():
    point = np.array([0.25, -0.15, 0.32])
    cameras = look_at_origin(np.radians([0.0, 70, 160, 250]), np.radians([5.0, 20, 45, -30]), radius=2.0)
    frames = render(speck(point, 0.02), red, Rig(cameras, focal=90.0, size=64), ambient=1.0)
    for view, camera in enumerate(cameras):
        seen = camera[:3, :3] @ point + camera[:3, 3]
        assert seen[2] > 0
        expected = seen[:2] / seen[2] * 90.0 + 32.0
        rows, columns = np.nonzero(frames.mask[view])
        weights = frames.mask[view][rows, columns]
        centre = [np.average(columns + 0.5, weights=weights), np.average(rows + 0.5, weights=weights)]
        np.testing.assert_allclose(centre, expected, atol=0.25)
        depth = frames.depth[view][frames.depth[view] > 0]
        assert depth.min() > seen[2] - 0.021
        assert depth.max() < seen[2] + 0.021


def test_the_rays_of_one_view_at_a_time_are_in_memory():
    def peak(views: int) -> int:
        tracemalloc.start()
        render(facing_square(2.0, 0.5), red, Rig(np.tile(np.eye(4), (views, 1, 1)), 40.0, 16), supersampling=8)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(16) < 2 * peak(1)


def test_depth_is_camera_z_not_distance():
    frames = render(facing_square(2.0, 5.0), red, Rig(np.eye(4)[None], focal=10.0, size=16))
    np.testing.assert_allclose(frames.depth[0], 2.0, rtol=1e-6)  # the corners are 2.9 away
    assert (frames.mask == 255).all()


def test_cameras_look_at_the_origin_with_their_heads_up():
    for camera in (*evaluation_cameras(9), *training_cameras(np.random.default_rng(0), 9)):
        np.testing.assert_allclose(camera @ [0, 0, 0, 1], [0, 0, 2, 1], atol=1e-12)
        above = camera @ [0, 0, 0.5, 1]
        assert above[1] < 0  # y points down
        assert above[0] == pytest.approx(0)
        np.testing.assert_allclose(camera[:3, :3] @ camera[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(camera[:3, :3]) == pytest.approx(1)


def test_edges_are_shares_of_object_and_background():
    # The square's left edge runs through the middle of pixel column 8.
    square = facing_square(1.0, 0.5)
    shifted = Mesh(square.vertices + np.array([0.55, 0, 0]), square.faces)
    frames = render(
        shifted,
        red,
        Rig(np.eye(4)[None], focal=10.0, size=16),
        background=(0.0, 0.0, 1.0),
        supersampling=4,
        ambient=1.0,
    )
    assert frames.mask[0, 8, 7:10].tolist() == [0, 128, 255]
    np.testing.assert_array_equal(frames.images[0, :, 8, 7:10].T, [[0, 0, 255], [128, 0, 128], [255, 0, 0]])
    assert frames.depth[0, 8, 7] == 0
    assert frames.depth[0, 8, 8] == pytest.approx(1.0)


def test_light_depends_on_the_surface_and_not_on_its_winding():
    # The same square, seen along the light and, wound the other way round, as well.
    towards = np.array([0.0, 0.0, -1.0])
    bright = 0.3 + 0.7 * (0.5 + 0.5 * towards @ LIGHT)
    square = facing_square(2.0, 5.0)
    for faces in (square.faces, square.faces[:, ::-1]):
        frames = render(Mesh(square.vertices, faces), red, Rig(np.eye(4)[None], 10.0, 8), ambient=0.3)
        assert (frames.images[0, 0] == round(255 * bright)).all()


def test_shaders_see_the_point_that_was_hit():
    def position(hits):
        np.testing.assert_allclose(hits.barycentric.sum(axis=1), 1)
        corners = square.vertices[square.faces[hits.faces]]
        np.testing.assert_allclose((corners * hits.barycentric[..., None]).sum(axis=1), hits.points, atol=1e-5)
        return hits.points / 4 + 0.5

    square = facing_square(1.0, 2.0)
    frames = render(square, position, Rig(np.eye(4)[None], 10.0, 16), supersampling=1, ambient=1.0)
    x = (np.arange(16) + 0.5 - 8) / 10
    np.testing.assert_allclose(frames.images[0, 0, 5] / 255, x / 4 + 0.5, atol=0.003)
    np.testing.assert_allclose(frames.images[0, 1, :, 5] / 255, x / 4 + 0.5, atol=0.003)
