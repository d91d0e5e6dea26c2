"""ShapeNet as rendered for Scene Representation Networks: cars and chairs, a folder for each object.

Layout and numbers: vsitzmann/scene-representation-networks (`util.py`), Splatter Image's loader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from jobs.data.importers.base import Importer, Item, Progress, UnreadableObjectError
from jobs.data.importers.files import files_in, parse_floats, read_floats, read_square_pictures, read_text
from jobs.data.importers.poses import rigid
from jobs.data.store import SPLITS, Frames
from model.options import NoOptions


@dataclass(frozen=True)
class Srn(Importer[NoOptions]):
    """`<category>s_{train,val,test}/<object>/{intrinsics.txt,rgb/*.png,pose/*.txt}`, pictures of any one size."""

    source = "https://github.com/vsitzmann/scene-representation-networks"
    licence = "ShapeNet terms of use: non-commercial research"
    Options = NoOptions
    category: ClassVar[str]

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any((folder / f"{cls.category}s_{split}").is_dir() for split in SPLITS)

    def items(self, progress: Progress) -> Sequence[Item]:
        return [
            Item(
                name=folder.name,
                split=split,
                category=self.category,
                geometry=folder.name,  # ShapeNet's id of the model
                num_frames=len(_listed(folder, "rgb", "png")),
                payload=folder,
            )
            for split in SPLITS
            for folder in _objects(self._split_folder(split))
        ]

    def load(self, item: Item) -> Frames:
        folder: Path = item.payload
        pictures, poses = _listed(folder, "rgb", "png"), _listed(folder, "pose", "txt")
        if not pictures:
            raise UnreadableObjectError(f"{folder / 'rgb'}: no pictures")
        if alone := {file.stem for file in pictures} ^ {file.stem for file in poses}:
            view = min(alone)
            raise UnreadableObjectError(f"{folder}: only one of rgb/{view}.png and pose/{view}.txt is there")
        images = read_square_pictures(pictures, self.background)
        intrinsics = Intrinsics.read(folder / "intrinsics.txt")
        focal, principal = intrinsics.for_size(images.shape[-1])
        matrices = np.stack([rigid(read_floats(file, 16).reshape(4, 4), file) for file in poses])
        return Frames(
            images=images,
            world_to_camera=matrices if intrinsics.world_to_camera else np.linalg.inv(matrices),
            focal=np.tile(focal, (len(images), 1)),
            principal=np.tile(principal, (len(images), 1)),
        )

    def _split_folder(self, split: str) -> Path:
        """Folder of a split's objects; some copies of the chairs' archives have an additional level."""
        folder = self.root / f"{self.category}s_{split}"
        nested = folder / f"{self.category}s_2.0_{split}"
        return nested if nested.is_dir() else folder


@dataclass(frozen=True)
class SrnCars(Srn):
    """Cars."""

    description = "ShapeNet cars as rendered for SRN, 128 px; 50 views to train, 251 to evaluate"
    needs_source = "cars_train, cars_val and cars_test of ShapeNet-SRN (srn_cars.zip)"
    category = "car"
    near, far = 0.8, 1.8
    evaluation: ClassVar = {"source_frames": [64, 128]}


@dataclass(frozen=True)
class SrnChairs(Srn):
    """Chairs."""

    description = "ShapeNet chairs as rendered for SRN, 128 px; 50 views to train, 251 to evaluate"
    needs_source = "chairs_train, chairs_val and chairs_test of ShapeNet-SRN (srn_chairs.zip)"
    category = "chair"
    near, far = 1.25, 2.75
    evaluation: ClassVar = {"source_frames": [64, 128]}


@dataclass(frozen=True)
class Intrinsics:
    """Contents of `intrinsics.txt`: `f cx cy 0`, two unused lines, `height width`, and optionally a flag."""

    focal: float  # pixels of an image of `height` x `width`, as all that follows
    centre: tuple[float, float]  # x, y
    height: float
    width: float
    world_to_camera: bool = False  # whether the poses are world-to-camera; else camera-to-world

    @classmethod
    def read(cls, path: Path) -> Intrinsics:
        """Reads the file; raises `UnreadableObjectError` where it is missing or of another format."""
        lines = [line for line in read_text(path).splitlines() if line.strip()]
        if len(lines) not in (4, 5):
            raise UnreadableObjectError(f"{path}: {len(lines)} lines, not 4 or 5")
        focal, x, y, _ = parse_floats(lines[0], 4, path)
        height, width = parse_floats(lines[3], 2, path)
        if min(focal, height, width) <= 0:
            raise UnreadableObjectError(f"{path}: focal length {focal}, height {height}, width {width}")
        return cls(focal, (x, y), height, width, len(lines) == 5 and bool(parse_floats(lines[4], 1, path)[0]))

    def for_size(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Focal length and principal point, (2,) each, in images of side x side pixels."""
        scale = side / np.array([self.width, self.height])
        return self.focal * scale, np.array(self.centre) * scale


def _objects(folder: Path) -> list[Path]:
    """Folders with intrinsics or images; those without intrinsics are later reported as unreadable."""
    if not folder.is_dir():
        return []
    parts = ("intrinsics.txt", "rgb")
    return sorted(entry for entry in folder.iterdir() if any((entry / part).exists() for part in parts))


def _listed(folder: Path, part: str, suffix: str) -> list[Path]:
    return files_in(folder / part, f"*.{suffix}")
