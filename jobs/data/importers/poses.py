"""Camera matrices of other conventions -> ours: world-to-camera, OpenCV axes, acting on column vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jobs.data.importers.base import UnreadableObjectError
from jobs.data.importers.files import finite

#: Tolerance of rotations, which text files and float32 round.
ROTATION_TOLERANCE = 1e-4
#: OpenGL's camera axes (x right, y up, z backward) -> OpenCV's.
FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def is_not_rigid(poses: np.ndarray) -> np.ndarray:
    """Whether each of the matrices (n, 4, 4) is not a rigid motion, (n,) bool."""
    rotations = poses[:, :3, :3]
    gram = rotations @ rotations.transpose(0, 2, 1)
    skewed = np.abs(gram - np.eye(3)).max(axis=(1, 2)) > ROTATION_TOLERANCE
    mirrored = np.linalg.det(rotations) < 0
    odd_row = np.abs(poses[:, 3] - [0, 0, 0, 1]).max(axis=1) > ROTATION_TOLERANCE
    return np.asarray(skewed | mirrored | odd_row | ~np.isfinite(poses).all(axis=(1, 2)))


def rigid(matrix: np.ndarray, path: Path) -> np.ndarray:
    """A pose (3, 4) or (4, 4) as (4, 4) float64.  Raises `UnreadableObjectError` where it is not a rigid motion."""
    pose = np.eye(4)
    pose[: len(matrix)] = finite(matrix, path, "the pose")
    if is_not_rigid(pose[None])[0]:
        raise UnreadableObjectError(f"{path}: the pose is not a rotation and a translation")
    return pose


def from_pytorch3d(rotation: np.ndarray, translation: np.ndarray, path: Path) -> np.ndarray:
    """R (3, 3), T (3,) of `x_camera = x_world R + T`, x left, y up, z forward -> (4, 4)."""
    flip = np.diag([-1.0, -1.0, 1.0])
    return rigid(np.column_stack([flip @ rotation.T, flip @ translation]), path)
