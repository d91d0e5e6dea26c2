"""Images of objects with known cameras: the shared part of the importers `transforms` and `colmap`.

Every object is a folder.  Its cameras are moved so that the point they look at is the origin, rotated so that their
mean upward axis is z, and scaled to a mean distance of 2 from the origin.  Images are cropped to the largest square
around the principal point, over white where they are transparent or masked out.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from jobs.data.importers.base import Importer, Item, Progress, UnreadableObjectError
from jobs.data.importers.crops import Box, square_around
from jobs.data.importers.files import (
    finite,
    has_alpha,
    over,
    read_array,
    read_image,
    read_json,
    read_mask,
    read_steps,
    rgba_of,
)
from jobs.data.importers.poses import rigid
from jobs.data.inspect import frame_with_z, nearest_point
from jobs.data.store import SPLITS, Frames
from model.options import options
from model.rasterizers import NEAR_PLANE

#: Mean distance between the cameras and the point that they look at, scene units.
DISTANCE = 2.0
#: Half the depth range where no points determine an object's size: half of the distance, as
#: in NeRF's synthetic scenes.
REACH = DISTANCE / 2
#: Share of the points nearer than the nearest camera that determines the size of the object with its surroundings.
POINTS_WITHIN, MARGIN = 0.95, 1.1
#: Lower limit of the near bound at this distance.
NEAREST = 0.1
#: Minimum of the smallest eigenvalue that determines a common centre; below it the viewing axes are parallel.
LEAST_CONDITION = 1e-6
#: Minimum number of points to determine an object's size.
LEAST_POINTS = 10
#: Minimum share of the cameras that have the point that they look at in front of them.
LEAST_AHEAD = 0.9
OTHER_MATRICES = "or their matrices are not those of the format (other axes, or inverted)"
#: Tolerance between the aspect ratios of an image and its camera, as sizes are rounded to whole pixels.
ASPECT_TOLERANCE = 0.01
SPLITS_FILE = "splits"


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion; pixels are those of a picture of `size`."""

    size: tuple[int, int] | None = None  # width, height; None: that of the picture
    focal: tuple[float, float] | None = None  # x, y
    principal: tuple[float, float] | None = None  # x, y; None: the middle
    #: radians, x and y, in place of `focal`; without y pixels are square
    field_of_view: tuple[float, float | None] | None = None

    def of_picture(self, width: int, height: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Focal length and principal point (2,) in pixels of a picture of that size, which may be a smaller copy."""
        scale = np.array([width, height]) / (self.size or (width, height))
        if abs(scale[0] / scale[1] - 1) > ASPECT_TOLERANCE:
            raise UnreadableObjectError(f"{path}: {width} x {height} pixels, and its camera is of {self.size}")
        if self.focal is not None:
            focal = np.array(self.focal) * scale
        else:
            assert self.field_of_view is not None
            x, y = self.field_of_view
            for angle in (x, y):
                if angle is not None and not 0 < angle < np.pi:
                    raise UnreadableObjectError(
                        f"{path}: a field of view of {np.degrees(angle):.4g} degrees is not between 0 and 180"
                    )
            across = width / 2 / np.tan(x / 2)
            focal = np.array([across, across if y is None else height / 2 / np.tan(y / 2)])
        principal = np.array([width, height]) / 2 if self.principal is None else np.array(self.principal) * scale
        if not np.isfinite([*focal, *principal]).all() or focal.min() <= 0:
            raise UnreadableObjectError(f"{path}: focal length {focal}, principal point {principal}")
        return focal, principal


@dataclass(frozen=True)
class Shot:
    """A picture and its camera."""

    picture: Path
    camera: Camera
    world_to_camera: np.ndarray  # (4, 4) OpenCV axes
    mask: Path | None = None
    depth: Path | None = None
    #: scene units per step of a 16-bit depth image, where the files state it; else that of the options
    depth_unit: float | None = None


@dataclass(frozen=True)
class Capture:
    """An object's shots, and points in its world frame (P, 3) where known."""

    shots: tuple[Shot, ...]
    points: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@options
class PosedOptions:
    """Splits of the objects, and format of the stored images."""

    test_objects: Annotated[
        int,
        Field(
            ge=0,
            description=(
                "number of test objects, drawn by the seed; ignored with folders train, val, test, or a file of splits"
            ),
        ),
    ] = 1
    val_objects: Annotated[int, Field(ge=0, description="number of validation objects, likewise")] = 0
    image_size: Annotated[int, Field(ge=8, le=1024, description="side of the stored images, in pixels")] = 128
    normalised: Annotated[
        bool,
        Field(
            description=(
                "whether cameras are moved to look at the origin, turned upright and scaled to one distance; otherwise "
                "scenes keep the unit of the files, in which Gaussians at a camera z up to 0.2 are not drawn"
            )
        ),
    ] = True
    depth: Annotated[bool, Field(description="whether to keep depth maps, where files name them")] = False
    depth_unit: Annotated[
        float, Field(gt=0, description="scene units per step of a 16-bit depth image, where the files do not state it")
    ] = 0.001
    seed: Annotated[int, Field(ge=0, description="seed of the splits")] = 0


@dataclass(frozen=True)
class Posed(Importer[PosedOptions]):
    """Objects are folders, named by their path in the source; the source itself may be one."""

    source = "a folder of the user's"
    licence = "that of the pictures"
    Options = PosedOptions
    file_roles: ClassVar[Mapping[str, str]] = {
        SPLITS_FILE: 'JSON: {"train": [object, ...], "val": [...], "test": [...]}; objects in no list are left out'
    }
    single_files = frozenset({SPLITS_FILE})

    @abstractmethod
    def folders(self) -> list[Path]:
        """The objects' folders."""

    @abstractmethod
    def capture(self, folder: Path, split: str) -> Capture:
        """The shots of an object.  Raises `UnreadableObjectError` for what is missing, damaged or not pinhole."""

    def items(self, progress: Progress) -> Sequence[Item]:
        folders = self._named_folders()
        items = []
        for name, split in self._splits(folders).items():
            capture = self._captures[name] = self._read(folders[name], split)
            read = capture if isinstance(capture, Capture) else Capture(())  # `load` reports the reason
            items.append(
                Item(
                    name=name,
                    split=split,
                    category=name.split("/")[0] if "/" in name else "object",
                    geometry=name,
                    num_frames=len(read.shots),
                    payload=(folders[name], capture),
                    remark="; ".join([*read.notes, *self._undrawn(read)]) or None,
                )
            )
        return items

    def _undrawn(self, capture: Capture) -> Iterator[str]:
        """A note where surfaces may lie before the rasterisers' near plane, which normalised ones hardly reach."""
        if capture.shots and not self.options.normalised:
            near, far = _bounds(capture, normalised=False)
            if near <= NEAR_PLANE:
                yield (
                    f"its depth bounds are {near:.3g} and {far:.3g} scene units, and rasterisers draw no Gaussians at "
                    f"a camera z up to {NEAR_PLANE}: leave out option normalised=false, or scale its cameras"
                )

    def sources(self, item: Item) -> Sequence[Path]:
        return [item.payload[0]]

    def load(self, item: Item) -> Frames:
        folder, capture = item.payload
        if not isinstance(capture, Capture):
            raise UnreadableObjectError(capture)
        if not capture.shots:
            raise UnreadableObjectError(f"{folder}: no pictures")
        pictures = [_picture(shot, self.options, self.background) for shot in capture.shots]
        poses, scale = np.stack([shot.world_to_camera for shot in capture.shots]), 1.0
        if self.options.normalised:
            poses, scale = normalise(poses, capture.points, folder)
        depths = [picture.depth for picture in pictures if picture.depth is not None]
        return Frames(
            images=np.stack([picture.colours for picture in pictures]),
            world_to_camera=poses,
            focal=np.stack([picture.focal for picture in pictures]),
            principal=np.full((len(pictures), 2), self.options.image_size / 2),
            mask=_masks(capture, pictures),
            depth=np.stack(depths) * np.float32(scale) if depths else None,
        )

    def scaled_to(self) -> float | None:
        return DISTANCE if self.options.normalised else None

    def depth_bounds(self) -> tuple[float, float]:
        captures = [capture for capture in self._captures.values() if isinstance(capture, Capture) and capture.shots]
        bounds = np.array([_bounds(capture, self.options.normalised) for capture in captures])
        return float(bounds[:, 0].min()), float(bounds[:, 1].max())

    @cached_property
    def _captures(self) -> dict[str, Capture | str]:
        """Objects, or why they cannot be read, by name; filled by `items`."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Without what `items` read, since `load` runs in other processes and has its item's part in the payload."""
        return {name: value for name, value in self.__dict__.items() if name != "_captures"}

    def _read(self, folder: Path, split: str) -> Capture | str:
        try:
            return self.capture(folder, split)
        except UnreadableObjectError as error:
            return str(error)

    def _named_folders(self) -> dict[str, Path]:
        """The objects' folders by name.  Raises ValueError where two have the same name."""
        named: dict[str, Path] = {}
        for folder in self.folders():
            name = self._name(folder)
            if name in named:
                raise ValueError(
                    f"{named[name]} and {folder} are two objects of the name {name!r}, since the folder of a split is "
                    "no part of it; rename one of them, or, if they are one object's pictures of several splits, "
                    "move them into one folder"
                )
            named[name] = folder
        return named

    def _name(self, folder: Path) -> str:
        parts = folder.relative_to(self.root).parts
        if not parts:
            return self.root.resolve().name
        return "/".join(parts[1:] if parts[0] in SPLITS and len(parts) > 1 else parts)

    def _splits(self, folders: Mapping[str, Path]) -> dict[str, str]:
        """The split of each object: by the user's file, by folders train, val and test, or else at random."""
        if SPLITS_FILE in self.files:
            (listing,) = self.files[SPLITS_FILE]
            return _listed_splits(listing, folders)
        first = {name: folder.relative_to(self.root).parts[:-1][:1] for name, folder in folders.items()}
        if all(parts and parts[0] in SPLITS for parts in first.values()):
            return {name: split for split in SPLITS for name, parts in first.items() if parts[0] == split}
        options, names = self.options, list(folders)
        wanted = options.val_objects + options.test_objects
        if wanted > len(names):
            raise ValueError(
                f"options val_objects {options.val_objects} and test_objects {options.test_objects}: {self.root} has "
                f"{len(names)} objects"
            )
        order = np.random.Generator(np.random.PCG64(options.seed)).permutation(len(names))
        splits = ["test"] * options.test_objects + ["val"] * options.val_objects
        splits += ["train"] * (len(names) - wanted)
        drawn = {names[index]: split for index, split in zip(order, splits, strict=True)}
        return {name: split for split in SPLITS for name in names if drawn[name] == split}


def surroundings(shots: Collection[Shot]) -> list[str]:
    """A note where neither transparency nor masks cut the object out."""
    if any(shot.mask or has_alpha(shot.picture) for shot in shots):
        return []
    return ["it has neither transparency nor masks: its surroundings are part of the pictures"]


def normalise(poses: np.ndarray, points: np.ndarray | None, folder: Path) -> tuple[np.ndarray, float]:
    """Cameras (n, 4, 4) around the origin, upright (z), at mean distance DISTANCE; and the factor of lengths."""
    centre = _centre(poses, points, folder)
    up = -poses[:, 1, :3].mean(axis=0)
    turn = np.eye(3)
    if np.linalg.norm(up) > 0.1:  # else the cameras have no common upward direction
        turn = frame_with_z(up / np.linalg.norm(up))
    scale = DISTANCE / _distances(poses, centre).mean()
    moved = poses.copy()
    moved[:, :3, :3] = poses[:, :3, :3] @ turn.T
    moved[:, :3, 3] = scale * (poses[:, :3, 3] + poses[:, :3, :3] @ centre)
    return moved, float(scale)


def _centre(poses: np.ndarray, points: np.ndarray | None, folder: Path) -> np.ndarray:
    """The point that the cameras look at, nearest to all their viewing axes."""
    axes = poses[:, 2, :3]
    condition = np.linalg.eigvalsh((np.eye(3) - axes[:, :, None] * axes[:, None]).mean(axis=0))[0]
    if condition < LEAST_CONDITION:
        if points is None or not len(points):
            if len(poses) == 1:
                raise UnreadableObjectError(
                    f"{folder}: it has a single camera, which determines no point to put into the middle; "
                    "see option normalised"
                )
            raise UnreadableObjectError(
                f"{folder}: its {len(poses)} cameras look in parallel, so they share no point to put into the middle "
                f"(see option normalised), {OTHER_MATRICES}"
            )
        return np.asarray(np.median(points, axis=0))
    centre = np.asarray(nearest_point(poses, np.zeros((len(poses), 2))))
    ahead = (poses[:, :3, :3] @ centre + poses[:, :3, 3])[:, 2] > 0
    if ahead.mean() < LEAST_AHEAD:
        raise UnreadableObjectError(
            f"{folder}: {int((~ahead).sum())} of {len(poses)} cameras look away from the point that their axes come "
            f"nearest to: these are no views of one object from around it (see option normalised), {OTHER_MATRICES}"
        )
    return centre


def _distances(poses: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Distances of the cameras' centres from a point, (n,)."""
    return np.linalg.norm(poses[:, :3, :3] @ centre + poses[:, :3, 3], axis=1)


def _bounds(capture: Capture, normalised: bool) -> tuple[float, float]:
    """Near and far of an object: its centre's distance -/+ the reach of its points, or half of that distance."""
    poses = np.stack([shot.world_to_camera for shot in capture.shots])
    try:
        centre = _centre(poses, capture.points, Path())
    except UnreadableObjectError:  # kept as it is, or left out
        centre = np.zeros(3)
    distances = _distances(poses, centre)
    reach = REACH / DISTANCE
    if capture.points is not None:
        from_centre = np.linalg.norm(capture.points - centre, axis=1)
        near = from_centre[from_centre < distances.min()]
        if len(near) >= LEAST_POINTS:
            reach = float(np.quantile(near, POINTS_WITHIN) * MARGIN / distances.mean())
    reach = min(reach, 1 - NEAREST / DISTANCE)
    if normalised:
        return DISTANCE * (1 - reach), DISTANCE * (1 + reach)
    return float(distances.min() * (1 - reach)), float(distances.max() * (1 + reach))


def _listed_splits(path: Path, folders: Mapping[str, Path]) -> dict[str, str]:
    lists = read_json(path)
    if (
        not isinstance(lists, dict)
        or not set(lists) <= set(SPLITS)
        or not all(isinstance(names or [], list) for names in lists.values())
        or not any(lists.values())
    ):
        raise ValueError(f"{path}: not lists of objects by split; allowed: {', '.join(SPLITS)}")
    found: dict[str, str] = {}
    for split in SPLITS:
        for name in lists.get(split) or []:
            if not isinstance(name, str) or name not in folders:
                raise ValueError(f"{path}: no object {name!r}; there are {', '.join(sorted(folders)[:5])}, ...")
            if name in found:
                raise ValueError(f"{path}: object {name!r} is in the splits {found[name]} and {split}")
            found[name] = split
    return found


@dataclass(frozen=True)
class _Picture:
    colours: np.ndarray  # (3, S, S) uint8
    mask: np.ndarray | None  # (S, S) uint8
    depth: np.ndarray | None  # (S, S) float32, the files' scene units
    focal: np.ndarray  # (2,) pixels of the square


def _picture(shot: Shot, options: PosedOptions, background: tuple[float, float, float]) -> _Picture:
    size, image = options.image_size, read_image(shot.picture)
    rgba = rgba_of(image, shot.picture)
    height, width, _ = rgba.shape
    focal, principal = shot.camera.of_picture(width, height, shot.picture)
    square = square_around(principal, (width, height))
    if square is None:
        raise UnreadableObjectError(f"{shot.picture}: its principal point {principal} is near or beyond its border")
    side = square[2] - square[0]
    if side < size - 1:
        raise UnreadableObjectError(
            f"{shot.picture}: the largest centred square has {side:.0f} px, fewer than option image_size {size}"
        )
    has_mask = image.has_transparency_data
    if shot.mask is not None:
        has_mask, mask = True, read_mask(shot.mask)
        if mask.shape != rgba.shape[:2]:
            raise UnreadableObjectError(
                f"{shot.mask}: {mask.shape[1]} x {mask.shape[0]} pixels, not {width} x {height}"
            )
        rgba = np.dstack([rgba[..., :3], np.rint(rgba[..., 3] * (mask / 255.0)).astype(np.uint8)])
    # Pillow weights colours by alpha here.
    small = np.asarray(Image.fromarray(rgba).resize((size, size), Image.Resampling.BOX, box=square))
    return _Picture(
        colours=over(small, background).transpose(2, 0, 1),
        mask=small[..., 3] if has_mask else None,
        depth=_depth(shot, options, (width, height), square) if options.depth else None,
        focal=focal * size / side,
    )


def _depth(shot: Shot, options: PosedOptions, picture: tuple[int, int], square: Box) -> np.ndarray:
    """Camera z (S, S), 0 where unknown; nearest neighbours, because a mean across an edge lies on no surface."""
    if shot.depth is None:
        raise UnreadableObjectError(
            f"{shot.picture}: no depth map is named for it, as by depth_file_path in transforms.json"
        )
    if shot.depth.suffix == ".npy":
        values = np.asarray(read_array(shot.depth, (None, None)), np.float32)
    else:
        values = read_steps(shot.depth).astype(np.float32) * np.float32(_depth_unit(shot, options))
    values = np.where(values > 0, values, 0).astype(np.float32)
    size = (options.image_size, options.image_size)
    map_ = Image.fromarray(values).resize(picture, Image.Resampling.NEAREST)
    return np.asarray(map_.resize(size, Image.Resampling.NEAREST, box=square))


def _depth_unit(shot: Shot, options: PosedOptions) -> float:
    """The unit that the files state, or that of the options, which must not be another."""
    stated = shot.depth_unit
    if stated is None:
        return options.depth_unit
    if options.depth_unit not in (PosedOptions().depth_unit, stated):
        raise UnreadableObjectError(
            f"{shot.depth}: its file of cameras states a depth unit of {stated}, and option depth_unit is "
            f"{options.depth_unit}; leave out the option"
        )
    return stated


def _masks(capture: Capture, pictures: Sequence[_Picture]) -> np.ndarray | None:
    """Masks (n, S, S); None where no image has one, or all masks cover their whole image."""
    masks = [picture.mask for picture in pictures if picture.mask is not None]
    if all((mask == 255).all() for mask in masks):
        return None
    if len(masks) < len(pictures):
        without = next(shot for shot, picture in zip(capture.shots, pictures, strict=True) if picture.mask is None)
        raise UnreadableObjectError(f"{without.picture}: neither transparent nor masked, as others of its object are")
    return np.stack(masks)


def uniform(matrix: np.ndarray, path: Path) -> np.ndarray:
    """A pose (3, 4) or (4, 4) without the uniform scale of its rotation that modelling programs export."""
    finite(matrix, path, "a transform_matrix")
    pose = np.eye(4)
    pose[:3] = matrix[:3]
    scale = np.cbrt(np.linalg.det(pose[:3, :3]))
    if scale > 0:
        pose[:3, :3] /= scale
    return rigid(pose, path)
