"""Renders in the form that Zero-1-to-3 made common: RGBA pictures, each beside its camera in a .npy file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from jobs.data.importers.base import UnreadableObjectError
from jobs.data.importers.files import read_array, read_image
from jobs.data.importers.poses import FROM_OPENGL, rigid
from jobs.data.store import Frames
from model.options import options

FIELD_OF_VIEW = 49.134342641202636  # degrees
NEAR, FAR = 0.8, 3.2
#: Objects come at any size: they are scaled so that the source view's camera has this distance from the origin.
SOURCE_DISTANCE = 2.0
#: A camera nearer to the origin than this cannot say how large the object is.
MIN_DISTANCE = 1e-5


@options
class RenderOptions:
    """How the pictures are stored."""

    #: side of the stored images, pixels; larger pictures are shrunk by area
    image_size: Annotated[int, Field(ge=8, le=1024)] = 128


def pictures(folder: Path) -> list[Path]:
    """The renders of one object, in order."""
    return sorted(folder.glob("*.png"))


def load_renders(folder: Path, image_size: int, background: tuple[float, float, float]) -> Frames:
    """All views of one object.  Raises `UnreadableObjectError` where one is missing or damaged."""
    files = pictures(folder)
    if not files:
        raise UnreadableObjectError(f"{folder}: no pictures")
    cameras = {file.name for file in folder.glob("*.npy")}
    expected = [f"{view:03d}" for view in range(max(len(files), len(cameras)))]
    missing = sorted(
        {f"{view}.png" for view in expected} - {file.name for file in files}
        | {f"{view}.npy" for view in expected} - cameras
    )
    if missing:
        raise UnreadableObjectError(f"{folder}: {', '.join(missing)} missing beside {len(files)} pictures")
    colours, masks = zip(*(_composited(file, image_size, background) for file in files), strict=True)
    focal = image_size / 2 / np.tan(np.radians(FIELD_OF_VIEW) / 2)
    return Frames(
        images=np.stack(colours),
        world_to_camera=np.stack([_pose(file.with_suffix(".npy")) for file in files]),
        focal=np.full((len(files), 2), focal),
        principal=np.full((len(files), 2), image_size / 2),
        mask=np.stack(masks),
    )


def _composited(path: Path, size: int, background: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A picture over the background, (3, S, S) uint8, and its alpha (S, S) uint8; shrunk before it is composited."""
    picture = read_image(path)
    if picture.mode != "RGBA" or picture.width != picture.height or picture.width < size:
        raise UnreadableObjectError(
            f"{path}: {picture.width} x {picture.height} pixels of {picture.mode}, not a square of RGBA "
            f"with {size} px at least"
        )
    # Pillow weighs colours with their alpha here, so the black under what is transparent does not bleed.
    shrunk = np.asarray(picture.resize((size, size), Image.Resampling.BOX))
    alpha = shrunk[..., 3:] / 255.0
    colour = shrunk[..., :3] * alpha + 255 * np.asarray(background) * (1 - alpha)
    return np.rint(colour).astype(np.uint8).transpose(2, 0, 1), shrunk[..., 3]


def _pose(path: Path) -> np.ndarray:
    pose = FROM_OPENGL @ rigid(read_array(path, (3, 4)), path)
    if np.linalg.norm(pose[:3, 3]) < MIN_DISTANCE:
        raise UnreadableObjectError(f"{path}: the camera stands in the origin")
    return pose
