"""Renders in the format of Zero-1-to-3: RGBA images, each beside its camera in a .npy file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from jobs.data.importers.base import Importer, Item, UnreadableObjectError
from jobs.data.importers.files import files_in, over, read_array, read_image, rgba_of
from jobs.data.importers.poses import FROM_OPENGL, rigid
from jobs.data.store import Frames
from model.options import options

FIELD_OF_VIEW = 49.134342641202636  # degrees
#: A camera nearer to the origin than this cannot determine the scale.
MIN_DISTANCE = 1e-5


@options
class RenderOptions:
    """Format of the stored images."""

    image_size: Annotated[int, Field(ge=8, le=1024, description="side of the stored images, in pixels")] = 128
    resampling: Annotated[
        Literal["direct", "published"],
        Field(
            description="how larger pictures are shrunk: by area, or by Lanczos' filter as Splatter Image's loader does"
        ),
    ] = "direct"


@dataclass(frozen=True)
class Renders(Importer[RenderOptions]):
    """Base class of importers of such renders; an item's payload is the folder with its pictures.

    Objects of any size are scaled so that the source view's camera has a distance of 2 from the origin.
    """

    Options = RenderOptions
    later_options: ClassVar = {"resampling": "direct"}
    near, far = 0.8, 3.2
    source_distance = 2.0

    def load(self, item: Item) -> Frames:
        return _load(item.payload, self.options, self.background)


def pictures(folder: Path) -> list[Path]:
    """The renders of one object, in order."""
    return files_in(folder, "*.png")


def _load(folder: Path, options: RenderOptions, background: tuple[float, float, float]) -> Frames:
    """All views of one object.  Raises `UnreadableObjectError` where one is missing or damaged."""
    files = pictures(folder)
    if not files:
        raise UnreadableObjectError(f"{folder}: no pictures")
    cameras = {file.name for file in files_in(folder, "*.npy")}
    expected = [f"{view:03d}" for view in range(max(len(files), len(cameras)))]
    missing = sorted(
        {f"{view}.png" for view in expected} - {file.name for file in files}
        | {f"{view}.npy" for view in expected} - cameras
    )
    if missing:
        raise UnreadableObjectError(f"{folder}: {', '.join(missing)} missing beside {len(files)} pictures")
    colours, masks = zip(*(_composited(file, options, background) for file in files), strict=True)
    image_size = options.image_size
    focal = image_size / 2 / np.tan(np.radians(FIELD_OF_VIEW) / 2)
    return Frames(
        images=np.stack(colours),
        world_to_camera=np.stack([_pose(file.with_suffix(".npy")) for file in files]),
        focal=np.full((len(files), 2), focal),
        principal=np.full((len(files), 2), image_size / 2),
        mask=np.stack(masks),
    )


def _composited(
    path: Path, options: RenderOptions, background: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """A picture over the background, (3, S, S) uint8, and its alpha (S, S) uint8; shrunk before it is composited."""
    size = options.image_size
    picture = read_image(path)
    rgba = rgba_of(picture, path)
    height, width, _ = rgba.shape
    if width != height or width < size:
        raise UnreadableObjectError(f"{path}: {width} x {height} pixels, not a square with {size} px at least")
    if not picture.has_transparency_data:
        raise UnreadableObjectError(f"{path}: pixels of {picture.mode} without alpha, which has to cut the object out")
    # Pillow weights colours by alpha here, so the black of transparent pixels does not bleed.
    filter_ = Image.Resampling.LANCZOS if options.resampling == "published" else Image.Resampling.BOX
    shrunk = np.asarray(Image.fromarray(rgba).resize((size, size), filter_))
    return over(shrunk, background).transpose(2, 0, 1), shrunk[..., 3]


def _pose(path: Path) -> np.ndarray:
    pose = FROM_OPENGL @ rigid(read_array(path, (3, 4)), path)
    if np.linalg.norm(pose[:3, 3]) < MIN_DISTANCE:
        raise UnreadableObjectError(f"{path}: the camera is at the origin")
    return pose
