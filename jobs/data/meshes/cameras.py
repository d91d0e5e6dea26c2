"""Cameras of rendered datasets: on a sphere, around an object of fixed size at its centre.

The world is z-up, camera matrices are those of `model.types`, angles are radians.
"""

from __future__ import annotations

import numpy as np

# Setup shared by rendered datasets.  An object of this size fills about 3/4 of the image.
RADIUS = 2.0  # of the sphere that the cameras stand on, scene units
EXTENT = 0.66  # of the sphere around the object, scene units
FIELD_OF_VIEW = np.radians(40.0)
NEAR, FAR = 1.25, 2.75
MAX_ELEVATION = np.radians(60.0)
#: The source view of evaluated objects: from the front, a little to the side.
SOURCE_AZIMUTH = np.radians(35.0)
#: Elevations of `evaluation_cameras`, in turn: neighbours differ, and every side is seen low and high.  The
#: first is the source view's.
RING_ELEVATIONS = np.radians([25.0, 10.0, 40.0])
Y_UP_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def generator_of(*seed: int) -> np.random.Generator:
    """The generator of an object's random numbers: PCG64, seeded by a `SeedSequence`."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


def split_cameras(split: str, generator: np.random.Generator, count: int, radius: float = RADIUS) -> np.ndarray:
    """Cameras (count, 4, 4) of an object: `training_cameras` in the split "train", else `evaluation_cameras`."""
    return training_cameras(generator, count, radius) if split == "train" else evaluation_cameras(count, radius)


def training_cameras(generator: np.random.Generator, count: int, radius: float = RADIUS) -> np.ndarray:
    """Random cameras (count, 4, 4), evenly over the upper hemisphere's area below MAX_ELEVATION."""
    azimuth = generator.uniform(0, 2 * np.pi, count)
    elevation = np.arcsin(generator.uniform(0, np.sin(MAX_ELEVATION), count))
    return look_at_origin(azimuth, elevation, radius)


def evaluation_cameras(count: int, radius: float = RADIUS) -> np.ndarray:
    """Cameras (count, 4, 4) once around in even steps at changing heights; the source view first."""
    steps = np.arange(count)
    azimuth = SOURCE_AZIMUTH + 2 * np.pi * steps / count
    return look_at_origin(azimuth, RING_ELEVATIONS[steps % len(RING_ELEVATIONS)], radius)


def focal_length(size: int, field_of_view: float = FIELD_OF_VIEW) -> float:
    """Focal length in pixels of images of `size` x `size` pixels that span `field_of_view` radians."""
    return float(size / 2 / np.tan(field_of_view / 2))


def centred(vertices: np.ndarray) -> np.ndarray:
    """Vertices (N, 3) moved and scaled: bounding box centred at the origin, largest radius EXTENT."""
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    around = vertices - middle
    return around * (EXTENT / np.linalg.norm(around, axis=1).max())


def look_at_origin(azimuth: np.ndarray, elevation: np.ndarray, radius: float) -> np.ndarray:
    """Upright cameras (V, 4, 4) on a sphere around the origin of a z-up world, looking at the origin.

    Angles (V,) in radians; azimuth 0 is on the x axis, a quarter turn on the y axis.
    """
    outward = np.stack(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], axis=-1
    )
    right = np.stack([-np.sin(azimuth), np.cos(azimuth), np.zeros_like(azimuth)], axis=-1)
    down = np.cross(-outward, right)
    cameras = np.tile(np.eye(4), (len(azimuth), 1, 1))
    cameras[:, :3, :3] = np.stack([right, down, -outward], axis=1)
    cameras[:, 2, 3] = radius
    return cameras
