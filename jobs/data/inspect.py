"""Finds problems of a finished store, by object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from jobs.data.importers.poses import is_not_rigid
from jobs.data.sampling import evaluation_frames
from jobs.data.store import Frames, Store

#: Minimum share of one frame's surface that must lie within a pixel of the object in every other frame; a depth
#: averaged over two surfaces lies on neither.
MIN_ON_OBJECT = 0.9
#: An image whose range of values is smaller than this, in 8-bit levels, is empty.
EMPTY_SPREAD = 2
#: Without a mask, pixels that differ from the background by this much, in 8-bit levels, are the object.
BACKGROUND_SPREAD = 8
#: A smaller coverage of the image by the object, as a share, is reported.
LEAST_COVERAGE = 0.005
#: Tolerance, as a share of the image, by which a point of the object may lie outside the box of its visible part: part
#: of the object may be cropped, or as white as the background.
BOX_MARGIN = 0.05


def check(store: Store) -> list[str]:
    """Problems of `store`, one sentence each, naming the object; empty where there are none."""
    problems = []
    found = store.compute_checksum()
    if found != store.checksum:
        problems.append(f"the checksum is {found}, but the manifest has {store.checksum}: the data were altered")
    problems += _leaked_geometries(store)
    for row in store.objects.itertuples():
        found_here = (*_protocol_problems(store, row), *_object_problems(store, row))
        problems += [f"object {row.object!r}: {problem}" for problem in found_here]
    return problems


def object_frames(row: Any) -> slice:
    """An object's frames in the store's arrays."""
    return slice(int(row.first_frame), int(row.first_frame) + int(row.num_frames))


def _leaked_geometries(store: Store) -> list[str]:
    return [
        f"geometry {geometry!r} is in the splits {', '.join(sorted(set(rows['split'])))}: " + ", ".join(rows["object"])
        for geometry, rows in store.objects.groupby("geometry")
        if rows["split"].nunique() > 1
    ]


def _protocol_problems(store: Store, row: Any) -> Iterator[str]:
    if row.split == "train":
        return
    try:
        evaluation_frames(row, store.manifest.evaluation)
    except ValueError as error:
        yield str(error)


def _object_problems(store: Store, row: Any) -> Iterator[str]:
    frames = object_frames(row)
    cameras = store.world_to_camera[frames].astype(np.float64)
    if (frame := _first(is_not_rigid(cameras))) is not None:
        yield f"the camera of frame {frame} is not a rotation and a translation"
        return
    if (frame := _first(_has_odd_intrinsics(store, frames))) is not None:
        yield f"frame {frame} has a focal length or principal point that cannot be"
        return
    checked = np.flatnonzero(~_left_out(store, frames, row))
    empty = is_empty(store.images[frames])
    if len(wrong := checked[empty[checked]]):
        yield f"the image of frame {wrong[0]} is empty"
    elif len(checked) > 1:
        yield from _mask_problems(store, frames.start + checked, checked, cameras[checked])
        if store.mask is not None and store.depth is not None:
            yield from _surface_problems(store, frames.start + checked, checked, cameras[checked])


def emptiness(frames: Frames, background: tuple[float, float, float]) -> str | None:
    """Warning where pictures of an object show nothing or almost nothing; None where all show the object."""
    nothing = is_empty(frames.images)
    shapes = silhouettes_of(frames.images, frames.mask, background)
    hardly = ~nothing & (shapes.mean(axis=(1, 2)) < LEAST_COVERAGE)
    found = []
    for wrong, what in (
        (nothing, "nothing"),
        (hardly, f"the object on less than {LEAST_COVERAGE:.1%} of them"),
    ):
        if wrong.any():
            found.append(f"{wrong.sum()} of {len(wrong)} pictures show {what} (first frame {wrong.argmax()})")
    return "; ".join(found) or None


def is_empty(images: np.ndarray) -> np.ndarray:
    """Whether each of the images (n, 3, S, S) has one colour only, (n,) bool."""
    pictures = images.reshape(len(images), -1, images.shape[-2] * images.shape[-1])
    spread = pictures.max(axis=2).astype(int) - pictures.min(axis=2)
    return np.asarray((spread < EMPTY_SPREAD).all(axis=1))


def _left_out(store: Store, frames: slice, row: Any) -> np.ndarray:
    """Frames (n,) that evaluations skip, because they are black and have no foreground, such as some of CO3D.

    None of them where all frames of the object are black.
    """
    black = np.asarray(~store.images[frames].any(axis=(1, 2, 3)))
    if store.mask is not None:
        black = black & ~np.asarray(store.mask[frames] > 127).any(axis=(1, 2))
    if row.split != "train" and black.any():
        with suppress(ValueError):  # no such frame, which is reported separately
            black[evaluation_frames(row, store.manifest.evaluation)[0] - frames.start] = False
    return np.zeros_like(black) if black.all() else black


def _has_odd_intrinsics(store: Store, frames: slice) -> np.ndarray:
    """Whether each frame's focal length is not positive, or its principal point lies outside its image."""
    focal, principal = store.focal[frames], store.principal[frames]
    numbers = np.isfinite(focal).all(axis=1) & np.isfinite(principal).all(axis=1)
    return ~(
        numbers & (focal > 0).all(axis=1) & (principal > 0).all(axis=1) & (principal < store.resolution).all(axis=1)
    )


def silhouettes_of(images: np.ndarray, mask: np.ndarray | None, background: tuple[float, float, float]) -> np.ndarray:
    """The object's pixels, (n, S, S) bool: the mask, or else those that differ from the background."""
    if mask is not None:
        return np.asarray(mask > 127)
    colour = np.rint(np.array(background) * 255)[:, None, None]
    return np.stack([(np.abs(image - colour) > BACKGROUND_SPREAD).any(axis=0) for image in images])


def _first(wrong: Any) -> int | None:
    """The index of the first wrong frame; None where all are right."""
    return int(wrong.argmax()) if wrong.any() else None


def _mask_problems(store: Store, frames: np.ndarray, numbers: np.ndarray, cameras: np.ndarray) -> Iterator[str]:
    """Checks that one point in space lies within the object's box in all views, and within the depth bounds.

    Wrong axes, a wrong distance, a wrong scale, or intrinsics of another image size violate this.
    frames: rows (n,) of the store's arrays; numbers: their indices within the object; cameras: (n, 4, 4).
    """
    mask = None if store.mask is None else store.mask[frames]
    masks = silhouettes_of(store.images[frames], mask, store.manifest.background)
    if (frame := _first(~masks.any(axis=(1, 2)))) is not None:
        yield f"the mask of frame {numbers[frame]} is empty"
        return
    boxes = np.array([bounding_box(mask) for mask in masks])  # (n, 4): left, top, right, bottom
    middles = np.array([_centroid(mask) for mask in masks])
    point = nearest_point(cameras, (middles - store.principal[frames]) / store.focal[frames])
    seen = cameras[:, :3, :3] @ point + cameras[:, :3, 3]
    pixels = seen[:, :2] / seen[:, 2:] * store.focal[frames] + store.principal[frames]
    margin = BOX_MARGIN * store.resolution
    outside = (pixels < boxes[:, :2] - margin) | (pixels > boxes[:, 2:] + margin)
    if (frame := _first((seen[:, 2] <= 0) | outside.any(axis=1))) is not None:
        yield f"the camera of frame {numbers[frame]} does not look where the other views have the object"
        return
    near, far = store.manifest.near, store.manifest.far
    depth = _bounded_depth(store, cameras, seen[:, 2])
    if (frame := _first((depth < near) | (depth > far))) is not None:
        found = f"{depth[frame]:.3g}"
        yield f"frame {numbers[frame]} has it at a depth of {found}, which is not within {near} and {far}"


def _bounded_depth(store: Store, cameras: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Camera z (n,) relative to the manifest's bounds, with each frame as the source."""
    if store.manifest.bounds_from_origin:
        z = z - cameras[:, 2, 3]
    if store.manifest.source_distance is not None:
        z = z * store.manifest.source_distance / np.linalg.norm(cameras[:, :3, 3], axis=1)
    return z


def _surface_problems(store: Store, frames: np.ndarray, numbers: np.ndarray, cameras: np.ndarray) -> Iterator[str]:
    """Checks that the surface in the first frame projects onto the object in all other frames; arguments as above.

    This also detects wrong rotations about an axis through the object, which the masks' centres do not show.
    """
    from scipy.ndimage import binary_dilation

    assert store.mask is not None
    assert store.depth is not None
    first = frames[0]
    rows, columns = np.nonzero((store.depth[first] > 0) & (store.mask[first] == 255))
    if not len(rows):
        return
    z = store.depth[first][rows, columns].astype(np.float64)
    pixels = np.stack([columns, rows], axis=1) + 0.5
    slopes = (pixels - store.principal[first]) / store.focal[first]
    points = (np.column_stack([slopes * z[:, None], z]) - cameras[0, :3, 3]) @ cameras[0, :3, :3]
    for place in range(1, len(cameras)):
        frame = frames[place]
        seen = points @ cameras[place, :3, :3].T + cameras[place, :3, 3]
        places = seen[:, :2] / seen[:, 2:] * store.focal[frame] + store.principal[frame]
        if _share_on(binary_dilation(store.mask[frame] > 0), places) < MIN_ON_OBJECT:
            yield f"frames {numbers[0]} and {numbers[place]} disagree on where its surface is"
            return


def _share_on(mask: np.ndarray, places: np.ndarray) -> float:
    """The share of `places` (P, 2), pixels x then y, that fall on the mask."""
    column, row = np.floor(places).astype(np.int64).T
    inside = (row >= 0) & (column >= 0) & (row < mask.shape[0]) & (column < mask.shape[1])
    return float(mask[row[inside], column[inside]].sum() / len(places))


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a mask (H, W) that is not empty, pixels; the last two are ends."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _centroid(mask: np.ndarray) -> tuple[float, float]:
    """The mask's centre of mass, pixels, x then y."""
    rows, columns = np.nonzero(mask)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def frame_with_z(z: np.ndarray) -> np.ndarray:
    """The rows x, y, z (3, 3) of some right-handed frame with the unit vector `z` (3,)."""
    x = np.cross(z, np.eye(3)[np.abs(z).argmin()])
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def nearest_point(cameras: np.ndarray, slopes: np.ndarray) -> Any:
    """The world point (3,) nearest to the rays of n cameras through (x/z, y/z) = `slopes` (n, 2)."""
    rotations, translations = cameras[:, :3, :3], cameras[:, :3, 3]
    centres = -(rotations.transpose(0, 2, 1) @ translations[..., None])[..., 0]
    rays = np.concatenate([slopes, np.ones((len(slopes), 1))], axis=1)
    rays = (rotations.transpose(0, 2, 1) @ rays[..., None])[..., 0]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    across = np.eye(3) - rays[:, :, None] * rays[:, None]  # projects onto the plane across each ray
    right_side = (across @ centres[..., None])[..., 0].sum(axis=0)
    return np.linalg.lstsq(across.sum(axis=0), right_side, rcond=None)[0]
