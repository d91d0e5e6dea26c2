"""The poses of the turntable's cameras, and images as sheets and animations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from jobs.data.meshes.cameras import look_at_origin
from jobs.data.prepare import open_dataset
from jobs.gaussian_sources import measured
from jobs.turntable import render_turntable, ring, save_pictures
from model.types import Cameras


@pytest.fixture
def store(home, tiny):
    return open_dataset("chairs", tiny()["data"]["options"], home)


def cameras_at(*azimuths, elevation=0.4, radius=3.0, pose=None):
    """Cameras around the origin of a z-up world, or of that world moved by `pose`; 20 x 10 pixels."""
    around = look_at_origin(np.array(azimuths), np.full(len(azimuths), elevation), radius)
    if pose is not None:
        around = around @ np.linalg.inv(pose)
    count = len(azimuths)
    return Cameras(
        world_to_camera=torch.from_numpy(around).float()[None],
        focal=torch.full((1, count, 2), 15.0),
        principal=torch.tensor([10.0, 5.0]).expand(1, count, 2),
        height=10,
        width=20,
    )


@pytest.mark.parametrize("moved", [False, True])
def test_the_ring_starts_near_the_first_camera(moved):
    pose = np.eye(4)
    if moved:  # any frame will do
        pose[:3, :3] = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
        pose[:3, :3] *= np.sign(np.linalg.det(pose[:3, :3]))
        pose[:3, 3] = [4.0, -2.0, 7.0]
    given = cameras_at(*(0.7 + 2 * np.pi * np.arange(3) / 3), pose=pose)
    cameras = ring(given, 8, 40)
    expected = cameras_at(*(0.7 + 2 * np.pi * np.arange(8) / 8), pose=pose)
    torch.testing.assert_close(cameras.world_to_camera, expected.world_to_camera, atol=1e-5, rtol=0)
    assert (cameras.height, cameras.width) == (40, 40)
    assert torch.equal(cameras.focal, torch.full((1, 8, 2), 30.0))
    assert torch.equal(cameras.principal, torch.full((1, 8, 2), 20.0))


def test_a_ring_needs_two_cameras():
    with pytest.raises(ValueError, match="at least 2 views"):
        ring(cameras_at(0.7), 8, 40)
    with pytest.raises(ValueError, match="at least 1 camera, got 0"):
        ring(cameras_at(0.7, 2.0), 0, 40)


def test_pictures(store):
    subject = measured(store)
    subject = replace(subject, scene=replace(subject.scene, backend="inria"))  # there is no GPU for it
    images = render_turntable(subject, 5, 24)
    assert images.shape == (5, 3, 24, 24)
    assert images.min() >= 0
    assert images.max() <= 1
    assert all(picture.std() > 0.05 for picture in images)
    assert not torch.allclose(images[0], images[2], atol=0.05)


def test_sheet_and_animation(tmp_path):
    images = torch.rand(8, 3, 4, 5)
    save_pictures(images, tmp_path / "ring.png")
    sheet = np.asarray(Image.open(tmp_path / "ring.png"))
    assert sheet.shape == (2 * 4, 6 * 5, 3)
    expected = (images[7] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    assert np.array_equal(sheet[4:, 5:10], expected)
    assert (sheet[4:, 10:] == 255).all()
    save_pictures(images, tmp_path / "ring.gif", comment="chair_1")
    animation = Image.open(tmp_path / "ring.gif")
    assert (animation.n_frames, animation.info["comment"]) == (8, b"chair_1")
    for index, picture in enumerate(ImageSequence.Iterator(animation)):
        shown = np.asarray(picture.convert("RGB"), np.float32) / 255
        assert np.abs(shown - images[index].permute(1, 2, 0).numpy()).max() < 0.15  # of 160 colours, with 256
    with pytest.raises(ValueError, match=r"must end in \.png or \.gif"):
        save_pictures(images, tmp_path / "ring.jpg")
