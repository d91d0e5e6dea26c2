"""CO3Dv2 as published: annotations in gzipped JSON beside video frames, masks, depth maps and point clouds.

Layout: facebookresearch/co3d (README, `data_types.py`).  Steps: Splatter Image's preprocessing, without PyTorch3D.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.data.importers import co3d_published
from jobs.data.importers.base import Item, UnreadableObjectError
from jobs.data.importers.crops import Box, square_around
from jobs.data.importers.files import inside, read_colours, read_depth_bits, read_json, read_mask
from jobs.data.importers.poses import from_pytorch3d
from jobs.data.store import SPLITS, Frames

FRAMES, SEQUENCES = "frame_annotations.jgz", "sequence_annotations.jgz"
#: Half the side of the cube, centred in the origin, that the point cloud of a normalised sequence just fits into.
HALF_EXTENT = 1.2 * 0.95 / 2
BLACK = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Recording:
    """A sequence's annotations as read from the files; `load` validates them."""

    annotations: Path
    frames: tuple[Mapping[str, Any], ...]
    point_cloud: str | None


def sequences(root: Path, category: str, subset: str) -> list[Item]:
    """The sequences of a set list.  A sequence in several splits is used for evaluation, not for training."""
    folder = root / category if (root / category / FRAMES).exists() else root
    listed = _listed(folder / "set_lists" / f"set_lists_{subset}.json")
    annotated = dict(_annotations(folder / SEQUENCES))
    _check_category(category, annotated, folder / SEQUENCES)
    clouds = {name: _cloud(entry) for name, entry in annotated.items()}
    frames = defaultdict(list)
    for name, entry in _annotations(folder / FRAMES):
        number = entry.get("frame_number")
        if isinstance(number, int) and number in listed.get(name, _NOWHERE).numbers:
            frames[name].append(entry)
    return [
        _item(folder / FRAMES, category, name, listed[name].split, frames[name], clouds.get(name)) for name in listed
    ]


def is_raw(folder: Path) -> bool:
    """Whether a folder is that of a category, or contains such folders."""
    return (folder / FRAMES).exists() or any(folder.glob(f"*/{FRAMES}"))


def _check_category(category: str, annotated: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Raises ValueError where the sequences are annotated with another category."""
    found = sorted({str(entry["category"]) for entry in annotated.values() if entry.get("category")})
    if found and category not in found:
        raise ValueError(
            f"{path}: its sequences are of category {', '.join(found)}, and option category is {category!r}"
        )


def load(recording: Recording, image_size: int, *, normalised: bool, depth: bool, resampling: str) -> Frames:
    """All frames: the largest square around the principal point, over black.

    resampling: "direct" shrinks each picture and mask once; "published" repeats the steps of the published
    preprocessing (`jobs.data.importers.co3d_published`).
    """
    base = recording.annotations.parent.parent  # what the annotations' paths are relative to
    shots = [_shot(base, entry, recording.annotations, image_size, depth, resampling) for entry in recording.frames]
    if not shots:
        raise UnreadableObjectError(f"{recording.annotations}: the sequence has no frame with a camera and a mask")
    maps = [shot.depth for shot in shots if shot.depth is not None]
    poses, scale = np.stack([shot.world_to_camera for shot in shots]), 1.0
    if normalised:
        poses, scale = normalise(poses, _points(base, recording))
    return Frames(
        images=np.stack([shot.image for shot in shots]),
        world_to_camera=poses,
        focal=np.stack([shot.focal for shot in shots]),
        principal=np.full((len(shots), 2), image_size / 2),
        mask=np.stack([shot.mask for shot in shots]),
        depth=np.stack(maps) * scale if maps else None,
    )


def sources(item: Item) -> list[Path]:
    """The folder of a sequence; its annotations are the payload."""
    annotations = item.payload.annotations
    return [inside(annotations.parent, item.name, annotations)]


def normalise(poses: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float]:
    """Cameras (n, 4, 4) of the normalised scene, and the factor of lengths.

    The published steps: the mean of `points` (P, 3) becomes the origin; up, which becomes z, is the direction in
    which the cameras' x axes vary least about their mean, with the sign of the first camera's upward axis; the scene
    moves along up until the middle of the cloud's extent is at the origin; the largest absolute coordinate becomes
    HALF_EXTENT.
    """
    sideways = poses[:, 0, :3]
    basis = np.linalg.svd(sideways - sideways.mean(axis=0))[2]
    aside, up = basis[0], basis[2]
    if -poses[0, 1, :3] @ up < 0:  # cameras' y axes point down
        up = -up
    turn = np.stack([aside, np.cross(up, aside), up])
    centre = points.mean(axis=0)
    around = (points - centre) @ turn.T
    middle = (around[:, 2].min() + around[:, 2].max()) / 2
    around[:, 2] -= middle
    origin = centre + middle * up
    scale = float(HALF_EXTENT / np.abs(around).max())
    moved = poses.copy()
    moved[:, :3, :3] = poses[:, :3, :3] @ turn.T
    moved[:, :3, 3] = scale * (poses[:, :3, 3] + poses[:, :3, :3] @ origin)
    return moved, scale


@dataclass(frozen=True)
class _Listing:
    split: str
    numbers: set[int]


_NOWHERE = _Listing("", set())


def _listed(path: Path) -> dict[str, _Listing]:
    """Split and frame numbers of every sequence of a set list, by name."""
    lists = read_json(path)
    found: dict[str, _Listing] = {}
    try:
        for split in SPLITS:
            numbers = defaultdict(set)
            for name, number, _ in lists.get(split) or []:
                numbers[str(name)].add(int(number))
            found |= {name: _Listing(split, these) for name, these in numbers.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UnreadableObjectError(f"{path}: not lists of (sequence, frame, path) by split: {error}") from error
    return dict(sorted(found.items(), key=lambda entry: (SPLITS.index(entry[1].split), entry[0])))


def _annotations(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of an annotation file, each with its sequence."""
    entries = read_json(path)
    if not isinstance(entries, list):
        raise UnreadableObjectError(f"{path}: not a JSON list")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("sequence_name"), str):
            raise UnreadableObjectError(f"{path}: an entry without sequence_name")
        yield entry["sequence_name"], entry


def _cloud(entry: Mapping[str, Any]) -> Any:
    """The path of a sequence's point cloud, where it has one."""
    cloud = entry.get("point_cloud")
    return cloud.get("path") if isinstance(cloud, dict) else None


def _item(
    annotations: Path,
    category: str,
    name: str,
    split: str,
    entries: Sequence[Mapping[str, Any]],
    cloud: str | None,
) -> Item:
    usable = [entry for entry in entries if all(entry.get(part) for part in ("viewpoint", "mask", "image"))]
    usable.sort(key=lambda entry: entry["frame_number"])
    lacking = len(entries) - len(usable)
    return Item(
        name=name,
        split=split,
        category=category,
        geometry=name,
        num_frames=len(usable),
        payload=Recording(annotations, tuple(usable), cloud),
        remark=f"{lacking} of {len(entries)} frames have no camera, mask or image, and are left out"
        if lacking
        else None,
    )


@dataclass(frozen=True)
class _Shot:
    image: np.ndarray  # (3, S, S) uint8
    mask: np.ndarray  # (S, S) uint8
    depth: np.ndarray | None  # (S, S) float32
    world_to_camera: np.ndarray  # (4, 4)
    focal: np.ndarray  # (2,) pixels of the square image


def _shot(
    base: Path, entry: Mapping[str, Any], annotations: Path, size: int, with_depth: bool, resampling: str
) -> _Shot:
    try:
        picture = Image.fromarray(read_colours(inside(base, entry["image"]["path"], annotations), BLACK))
        mask = Image.fromarray(_mask(base, entry["mask"], annotations))
        rotation, translation, focal, principal = _viewpoint(entry["viewpoint"], picture.size, annotations)
        box = square_around(principal, picture.size)
        if box is None:
            raise UnreadableObjectError(
                f"{annotations}: frame {entry['frame_number']} has its principal point {principal} near or beyond the "
                f"border of its {picture.size} picture"
            )
        if mask.size != picture.size:  # saved at another size than the picture
            mask = mask.resize(picture.size, Image.Resampling.BILINEAR)
        if resampling == "published":
            colour, share = co3d_published.shrink(np.asarray(picture), np.asarray(mask) / 255, box, size)
        else:
            colour = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=box))
            share = np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR, box=box)) / 255
        return _Shot(
            image=np.rint(colour * share[..., None]).astype(np.uint8).transpose(2, 0, 1),
            mask=np.rint(share * 255).astype(np.uint8),
            depth=_depth(base, entry, annotations, picture.size, size, box) if with_depth else None,
            world_to_camera=from_pytorch3d(rotation, translation, annotations),
            focal=focal * size / (box[2] - box[0]),
        )
    except UnreadableObjectError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UnreadableObjectError(
            f"{annotations}: frame {entry.get('frame_number')} is malformed: {type(error).__name__}: {error}"
        ) from error


def _mask(base: Path, entry: Mapping[str, Any], annotations: Path) -> np.ndarray:
    """Probabilities (H, W) uint8; 0 where the annotated mass is at most one pixel, which CO3D's code calls empty."""
    mask = read_mask(inside(base, entry["path"], annotations))
    mass = entry.get("mass")
    return np.zeros_like(mask) if isinstance(mass, (int, float)) and mass <= 1 else mask


def _viewpoint(
    viewpoint: Mapping[str, Any], size: tuple[int, int], annotations: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """R (3, 3), T (3,), focal length (2,) and principal point (2,) in pixels of a picture of `size` (W, H)."""
    shapes = {"R": (3, 3), "T": (3,), "focal_length": (2,), "principal_point": (2,)}
    values = []
    for name, shape in shapes.items():
        try:
            value = np.array(viewpoint[name], dtype=np.float64)
        except ValueError:
            value = np.array(np.nan)
        if value.shape != shape or not np.isfinite(value).all():
            raise UnreadableObjectError(f"{annotations}: viewpoint {name} is {viewpoint[name]!r}, not {shape} numbers")
        values.append(value)
    rotation, translation, focal, principal = values
    half = pixels_of_ndc(viewpoint.get("intrinsics_format"), size, annotations)
    if focal.min() <= 0:
        raise UnreadableObjectError(f"{annotations}: a focal length of {focal.min()}")
    return rotation, translation, focal * half, np.array(size) / 2 - principal * half


def pixels_of_ndc(intrinsics_format: str | None, size: tuple[int, int], annotations: Path) -> np.ndarray:
    """Pixels (2,) along x and y that PyTorch3D's unit length covers in a picture of `size` (W, H)."""
    if intrinsics_format == "ndc_isotropic":
        return np.full(2, min(size) / 2)
    if intrinsics_format in (None, "ndc_norm_image_bounds"):
        return np.array(size) / 2
    raise UnreadableObjectError(
        f"{annotations}: intrinsics_format {intrinsics_format!r}; allowed: ndc_isotropic, ndc_norm_image_bounds"
    )


def _depth(
    base: Path, entry: Mapping[str, Any], annotations: Path, picture: tuple[int, int], size: int, box: Box
) -> np.ndarray:
    """Camera z (S, S), 0 where unknown; nearest neighbours, because a mean across an edge lies on no surface."""
    depth = entry.get("depth")
    if not depth or not depth.get("path"):
        return np.zeros((size, size), np.float32)
    values = read_depth_bits(inside(base, depth["path"], annotations)) * float(depth.get("scale_adjustment") or 1)
    if depth.get("mask_path"):
        valid = read_mask(inside(base, depth["mask_path"], annotations)) > 0
        if valid.shape != values.shape:
            raise UnreadableObjectError(f"{annotations}: {depth['mask_path']} is {valid.shape}, not {values.shape}")
        values = np.where(valid, values, 0)
    values = np.where(np.isfinite(values) & (values > 0), values, 0).astype(np.float32)
    map_ = Image.fromarray(values).resize(picture, Image.Resampling.NEAREST)
    return np.asarray(map_.resize((size, size), Image.Resampling.NEAREST, box=box))


def _points(base: Path, recording: Recording) -> np.ndarray:
    """The sequence's point cloud (P, 3)."""
    from jobs.data.meshes.files import read_points

    if recording.point_cloud is None:
        raise UnreadableObjectError(f"{recording.annotations}: no point cloud, which normalisation needs")
    return read_points(inside(base, recording.point_cloud, recording.annotations))
