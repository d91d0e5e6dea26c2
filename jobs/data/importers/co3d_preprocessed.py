"""CO3D sequences preprocessed by Splatter Image's script: arrays, already cropped and resized."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.data.importers.base import Item, UnreadableObjectError
from jobs.data.importers.files import member_names, read_array, read_lines, read_members
from jobs.data.importers.poses import from_pytorch3d
from jobs.data.store import SPLITS, Frames

ROTATIONS, TRANSLATIONS = "camera_Rs.npz", "camera_Ts.npz"


@dataclass(frozen=True)
class Sequence:
    """Location of a sequence."""

    folder: Path
    num_frames: int


_FOLDER = r"co3d_[a-z]+_for_gs"


def sequences(root: Path, category: str) -> list[Item]:
    """Folders with a frame_order.txt and entries in both camera archives, of every split that is present."""
    here = root / f"co3d_{category}_for_gs"
    others = [path.name for path in (root, *sorted(root.glob("co3d_*_for_gs"))) if re.fullmatch(_FOLDER, path.name)]
    if not here.is_dir() and others and root.name != here.name:
        raise ValueError(f"{root}: it has {', '.join(others)}, and option category is {category!r}")
    return [item for split in SPLITS for item in _of_split((here if here.is_dir() else root) / split, split, category)]


def load(sequence: Sequence, image_size: int) -> Frames:
    """Images over black; the mask follows from their ratio to the images with background."""
    folder, count = sequence.folder, sequence.num_frames
    cut_out, full = (_pictures(folder / name, count, image_size) for name in ("images_fg.npy", "images_full.npy"))
    focal = read_array(folder / "focal_lengths.npy", (count, 1, 2))
    if focal.min() <= 0:
        raise UnreadableObjectError(f"{folder / 'focal_lengths.npy'}: a focal length of {focal.min()}")
    brightest = full.max(axis=1)
    share = np.divide(cut_out.max(axis=1), brightest, out=np.zeros_like(brightest), where=brightest > 1 / 255)
    return Frames(
        images=_bytes(cut_out),
        world_to_camera=_cameras(folder, count),
        focal=np.asarray(focal[:, 0]) * image_size / 2,
        principal=np.full((count, 2), image_size / 2),
        mask=_bytes(share),
    )


def sources(item: Item) -> list[Path]:
    """The folder of a sequence, and the cameras of its split."""
    folder = item.payload.folder
    return [folder, folder.parent / ROTATIONS, folder.parent / TRANSLATIONS]


def _of_split(folder: Path, split: str, category: str) -> Iterator[Item]:
    if not folder.is_dir():
        return
    known = member_names(folder / ROTATIONS) & member_names(folder / TRANSLATIONS)
    for order in sorted(folder.glob("*/frame_order.txt")):
        name = order.parent.name
        if name in known:
            count = len(read_lines(order))
            yield Item(name, split, category, geometry=name, num_frames=count, payload=Sequence(order.parent, count))


def _pictures(path: Path, count: int, side: int) -> np.ndarray:
    pictures = read_array(path, (count, 3, side, side))
    if pictures.dtype.kind != "f" or pictures.min() < 0 or pictures.max() > 1:
        raise UnreadableObjectError(f"{path}: {pictures.dtype} from {pictures.min()} to {pictures.max()}, not 0 to 1")
    return np.asarray(pictures)


def _cameras(folder: Path, count: int) -> np.ndarray:
    """World-to-camera matrices (count, 4, 4)."""
    rotations = _member(folder.parent / ROTATIONS, folder.name, (count, 3, 3))
    translations = _member(folder.parent / TRANSLATIONS, folder.name, (count, 3))
    pairs = zip(rotations, translations, strict=True)
    return np.stack([from_pytorch3d(*pair, folder.parent / ROTATIONS) for pair in pairs])


def _member(path: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    return read_members(path, {name: shape})[name]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
