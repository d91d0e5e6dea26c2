"""A reconstructed object, seen from a ring of cameras."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jobs.data.inspect import frame_with_z, nearest_point
from jobs.data.meshes.cameras import look_at_origin
from jobs.pixels import as_pictures
from model.scenes import Scene
from model.types import Cameras, Views

PICTURE_SUFFIXES = (".png", ".gif")
_COLUMNS = 6
_GIF_MILLISECONDS = 120


@dataclass(frozen=True)
class GaussianObject:
    """An object and its views, both in the axes of its first camera."""

    name: str
    scene: Scene  # of one object
    views: Views  # (1, V, ...)


def render_turntable(subject: GaussianObject, count: int, size: int) -> Tensor:
    """Images (count, 3, size, size) from one orbit around the object."""
    cameras = ring(subject.views.cameras, count, size)
    with torch.inference_mode():
        images = subject.scene.for_pictures().render(cameras, subject.views.background).images
    return images[0].clamp(0, 1)


def ring(cameras: Cameras, count: int, size: int) -> Cameras:
    """`count` cameras in even steps around the point that the given ones (1, V) look at, starting near the first one.

    Their distance and height are the means of the given ones', their upward direction the given ones' mean, and
    the field of view is the first one's, in images of size x size pixels.  Raises ValueError for a single camera,
    which does not determine the distance of its object.
    """
    given = cameras.world_to_camera[0].double().cpu().numpy()
    if len(given) < 2:
        raise ValueError("a ring of cameras needs an object with at least 2 views")
    if count < 1:
        raise ValueError(f"a ring needs at least 1 camera, got {count}")
    middle = nearest_point(given, np.zeros((len(given), 2)))
    outward = -np.einsum("vji,vj->vi", given[:, :3, :3], given[:, :3, 3]) - middle
    distances = np.linalg.norm(outward, axis=1)
    up = -given[:, 1, :3].mean(axis=0)
    elevation = np.arcsin(np.clip(outward @ up / np.linalg.norm(up) / distances, -1, 1)).mean()
    return orbit(cameras, middle, up, outward[0], float(distances.mean()), float(elevation), count, size)


def orbit(
    cameras: Cameras,
    middle: np.ndarray,
    up: np.ndarray,
    front: np.ndarray,
    distance: float,
    elevation: float,
    count: int,
    size: int,
) -> Cameras:
    """`count` cameras in even steps around the point `middle` (3,) of the world, with the first one's field of view.

    up, front: directions (3,) of the axis and, from it, of the first camera; distance: scene units; elevation: radians
    above the plane across the axis; size: side of the images, pixels.
    """
    axes, upright = upright_axes(up, front), np.eye(4)
    upright[:3, :3], upright[:3, 3] = axes, -axes @ middle
    azimuths = 2 * np.pi * np.arange(count) / count
    around = look_at_origin(azimuths, np.full(count, elevation), distance) @ upright
    focal = cameras.focal[:, :1] * (size / cameras.width)
    return replace(
        cameras,
        world_to_camera=torch.from_numpy(around).float()[None].to(focal.device),
        focal=focal.expand(1, count, 2),
        principal=torch.full((1, count, 2), size / 2, device=focal.device),
        height=size,
        width=size,
    )


def upright_axes(up: np.ndarray, front: np.ndarray) -> np.ndarray:
    """The rows x, y, z (3, 3) of a frame with z along `up` and `front` in the half-plane of x and z."""
    z = up / np.linalg.norm(up)
    x = front - (front @ z) * z
    if np.linalg.norm(x) < 1e-6 * np.linalg.norm(front):  # seen from directly above
        return frame_with_z(z)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def save_pictures(images: Tensor, path: Path, comment: str = "") -> None:
    """Pictures (V, 3, H, W) in [0, 1]: side by side in a .png, one after another in a .gif, which keeps the comment."""
    check_picture_path(path)
    pixels = as_pictures(images)
    if path.suffix == ".gif":
        _save_gif(pixels, path, comment)
        return
    count, height, width, _ = pixels.shape
    columns = min(count, _COLUMNS)
    sheet = np.full((math.ceil(count / columns) * height, columns * width, 3), 255, np.uint8)
    for index, picture in enumerate(pixels):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = picture
    Image.fromarray(sheet).save(path)


def _save_gif(pixels: np.ndarray, path: Path, comment: str) -> None:
    """(V, H, W, 3) uint8: an endless GIF with one palette for all pictures, so that nothing but the object moves."""
    height = pixels.shape[1]
    strip = Image.fromarray(np.concatenate(pixels)).quantize(256, dither=Image.Dither.NONE)
    first, *others = [
        strip.crop((0, index * height, strip.width, (index + 1) * height)) for index in range(len(pixels))
    ]
    note = comment.encode()[:255]
    first.save(path, save_all=True, append_images=others, duration=_GIF_MILLISECONDS, loop=0, comment=note)


def check_picture_path(path: Path) -> None:
    """Raises ValueError for an unsupported suffix."""
    if path.suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"{path}: a picture's name must end in {' or '.join(PICTURE_SUFFIXES)}")
