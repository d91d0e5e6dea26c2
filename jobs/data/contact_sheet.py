"""Contact sheet of a store: a row for each object, with a drawing of its cameras beside its views."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from jobs.data.inspect import frame_with_z, nearest_point, object_frames
from jobs.data.sampling import evaluation_frames
from jobs.data.store import SPLITS, Store
from results.figures.grid import label_font

#: Pictures are enlarged by a whole number until they have at least this side, pixels.
MIN_CELL = 128
LABEL_HEIGHT = 18
#: Colour of the first source view of the evaluation.
SOURCE_COLOUR = (214, 39, 40)
#: Colours of the first and the last of the other cameras; those between are interpolated.
FIRST_COLOUR, LAST_COLOUR = np.array([31, 119, 180]), np.array([255, 165, 40])
AXIS_COLOURS = ((200, 60, 60), (60, 150, 60), (60, 60, 200))
_SUPERSAMPLING = 4
#: Viewing direction of the drawing: from the side and from above.
_AZIMUTH, _ELEVATION = np.radians(35.0), np.radians(25.0)
_CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])


def contact_sheet(store: Store, path: Path, objects_per_split: int = 6, views: int = 12) -> None:
    """Write a PNG with a row for each of the first objects of each split: its cameras, then views from all around.

    In splits for evaluation the source view, if there is one, comes first, framed in the colour of its camera.
    """
    rows = [
        row
        for split in SPLITS
        for row in store.objects[store.objects["split"] == split].head(objects_per_split).itertuples()
    ]
    cell = store.resolution * -(-MIN_CELL // store.resolution)
    height = LABEL_HEIGHT + cell
    columns = 1 + min(views, int(store.objects["num_frames"].max()))
    sheet = Image.new("RGB", (columns * cell, len(rows) * height), "white")
    draw, font = ImageDraw.Draw(sheet), label_font()
    for line, row in enumerate(rows):
        top = line * height + LABEL_HEIGHT
        label = f"{row.object}   {row.split}, {row.category}, {row.num_frames} frames"
        draw.text((4, top - LABEL_HEIGHT + 2), label, fill="black", font=font)
        frames, has_source = _shown(store, row, views)
        sheet.paste(_cameras_of(store, row, frames[0] if has_source else None, cell), (0, top))
        for column, frame in enumerate(frames, start=1):
            sheet.paste(_picture(store, frame, cell), (column * cell, top))
        if has_source:
            draw.rectangle((cell, top, 2 * cell - 1, top + cell - 1), outline=SOURCE_COLOUR, width=2)
    sheet.save(path, format="PNG")


def draw_frusta(
    world_to_camera: np.ndarray,
    slopes: np.ndarray,
    colours: np.ndarray,
    middle: np.ndarray,
    side: int,
) -> Image.Image:
    """A picture, side x side, of n cameras as pyramids, seen from above and the side without perspective.

    world_to_camera: (n, 4, 4); slopes: (n, 4, 2) of the rays x/z and y/z through the images' corners, clockwise from
    the upper left; colours: (n, 3) bytes; middle: (3,) the object, a black dot.
    The origin is drawn as its three axes.  Upwards is where the cameras' heads are, on average.
    """
    rotations, translations = world_to_camera[:, :3, :3], world_to_camera[:, :3, 3]
    centres = -np.einsum("nji,nj->ni", rotations, translations)
    length = 0.2 * np.median(np.linalg.norm(centres - middle, axis=1))
    rays = np.concatenate([slopes, np.ones((*slopes.shape[:2], 1))], axis=2) * length
    corners = centres[:, None] + np.einsum("nji,nkj->nki", rotations, rays)  # (n, 4, 3)
    axes = np.concatenate([np.zeros((1, 3)), np.eye(3) * length])

    basis = _page(rotations)
    points = np.concatenate([centres, corners.reshape(-1, 3), middle[None], axes]) @ basis.T
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    big = side * _SUPERSAMPLING
    scale = 0.9 * big / max((high - low).max(), 1e-9)

    def place(where: np.ndarray) -> list[tuple[float, float]]:
        flat = ((where @ basis.T)[..., :2] - (low + high) / 2) * scale + big / 2
        return [(float(x), float(y)) for x, y in np.atleast_2d(flat)]

    page = Image.new("RGB", (big, big), "white")
    draw = ImageDraw.Draw(page)
    for axis, colour in zip(axes[1:], AXIS_COLOURS, strict=True):
        draw.line(place(np.stack([axes[0], axis])), fill=colour, width=_SUPERSAMPLING)
    (x, y), dot = place(middle)[0], 2 * _SUPERSAMPLING
    draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill="black")
    for camera in np.argsort(-(centres @ basis[2])):  # the farthest first
        red, green, blue = (int(value) for value in colours[camera])
        colour = (red, green, blue)
        rim = place(corners[camera])
        draw.line([*rim, rim[0]], fill=colour, width=_SUPERSAMPLING)
        for corner in rim:
            draw.line([place(centres[camera])[0], corner], fill=colour, width=_SUPERSAMPLING)
        draw.line(rim[:2], fill=colour, width=3 * _SUPERSAMPLING)  # the upper edge of the image
    return page.resize((side, side), Image.Resampling.LANCZOS)


def _shown(store: Store, row: Any, views: int) -> tuple[np.ndarray, bool]:
    """Up to `views` frames spread over an object's, and whether the first is the source of evaluations."""
    frames = object_frames(row)
    order, has_source = np.arange(frames.start, frames.stop), False
    if row.split != "train":
        with suppress(ValueError):  # the object lacks that frame, which `data check` reports
            order, has_source = evaluation_frames(row, store.manifest.evaluation), True
    chosen = np.linspace(0, len(order) - 1, min(views, len(order))).round().astype(int)
    return order[chosen], has_source


def _cameras_of(store: Store, row: Any, source: int | None, side: int) -> Image.Image:
    frames = object_frames(row)
    cameras = store.world_to_camera[frames].astype(np.float64)
    principal, focal = store.principal[frames].astype(np.float64), store.focal[frames].astype(np.float64)
    slopes = (_CORNERS * store.resolution - principal[:, None]) / focal[:, None]
    middle = nearest_point(cameras, np.zeros((len(cameras), 2)))
    share = np.linspace(0, 1, len(cameras))[:, None]
    colours = FIRST_COLOUR * (1 - share) + LAST_COLOUR * share
    if source is not None:
        colours[source - frames.start] = SOURCE_COLOUR
    return draw_frusta(cameras, slopes, colours, middle, side)


def _page(rotations: np.ndarray) -> np.ndarray:
    """The drawing's axes (3, 3), as rows: to the right, downwards, into the page."""
    up = -rotations[:, 1].mean(axis=0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 0.1 else np.array([0.0, 0.0, 1.0])
    aside, across, _ = frame_with_z(up)
    outward = np.cos(_AZIMUTH) * aside + np.sin(_AZIMUTH) * across
    into = -(np.cos(_ELEVATION) * outward + np.sin(_ELEVATION) * up)
    right = np.cross(into, up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(into, right), into])


def _picture(store: Store, frame: int, cell: int) -> Image.Image:
    pixels = np.ascontiguousarray(store.images[frame].transpose(1, 2, 0))
    return Image.fromarray(pixels).resize((cell, cell), Image.Resampling.NEAREST)
