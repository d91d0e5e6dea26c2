"""ShapeNet as rendered for the Neural Mesh Renderer, in the form of DVR's `NMR_Dataset`: 13 categories at 64 px.

Layout and numbers: the loaders of pixelNeRF and Splatter Image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from jobs.data.importers.base import Importer, Item, Progress, UnreadableObjectError
from jobs.data.importers.files import files_in, inside, read_lines, read_members, read_square_pictures
from jobs.data.importers.poses import rigid
from jobs.data.store import SPLITS, Frames
from model.options import NoOptions

CATEGORIES = {
    "02691156": "airplane",
    "02828884": "bench",
    "02933112": "cabinet",
    "02958343": "car",
    "03001627": "chair",
    "03211117": "display",
    "03636649": "lamp",
    "03691459": "loudspeaker",
    "04090263": "rifle",
    "04256520": "sofa",
    "04379243": "table",
    "04401088": "telephone",
    "04530566": "vessel",
}
Y_UP_TO_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
SOURCE_VIEWS = "source_views"


@dataclass(frozen=True)
class Nmr(Importer[NoOptions]):
    """`<synset>/softras_{train,val,test}.lst` and `<synset>/<object>/{image/*.png,cameras.npz}`."""

    description = "ShapeNet in 13 categories as rendered for NMR, 64 px, 24 views each"
    source = "https://github.com/autonomousvision/differentiable_volumetric_rendering"
    licence = "ShapeNet terms of use: non-commercial research"
    Options = NoOptions
    needs_source = "the synset folders of NMR_Dataset, each with softras_train.lst, softras_val.lst, softras_test.lst"
    file_roles: ClassVar = {
        SOURCE_VIEWS: "a line `synset object view` for each test object; without it all are seen from view 0"
    }
    near, far = 1.2, 4.0

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any(folder.glob("*/softras_*.lst"))

    def items(self, progress: Progress) -> Sequence[Item]:
        sources = self._source_views()
        items = [
            Item(
                name=f"{synset}_{name}",
                split=split,
                category=CATEGORIES.get(synset, synset),
                geometry=name,  # ShapeNet's id of the model
                num_frames=len(_pictures(folder)),
                payload=folder,
                source_frame=sources.get((synset, name)) if split == "test" else None,
            )
            for synset, split, name, folder in self._objects()
        ]
        unlisted = [item.name for item in items if item.split == "test" and item.source_frame is None]
        if SOURCE_VIEWS in self.files and unlisted:
            files = ", ".join(str(path) for path in self.files[SOURCE_VIEWS])
            raise ValueError(f"{files}: no view of {len(unlisted)} test objects, first {unlisted[0]!r}")
        return items

    def load(self, item: Item) -> Frames:
        folder: Path = item.payload
        files = _pictures(folder)
        if [file.stem for file in files] != [f"{view:04d}" for view in range(len(files))] or not files:
            raise UnreadableObjectError(f"{folder / 'image'}: {len(files)} pictures, not numbered from 0000 on")
        images = read_square_pictures(files, self.background)
        cameras = read_cameras(folder / "cameras.npz", len(files))
        side = images.shape[-1]
        return Frames(
            images=images,
            world_to_camera=np.stack([pose for pose, _ in cameras]),
            focal=np.stack([focal for _, focal in cameras]) * side / 2,
            principal=np.full((len(files), 2), side / 2),
        )

    def _objects(self) -> Iterator[tuple[str, str, str, Path]]:
        """Synset, split, name and folder of every object that is listed."""
        for synset in sorted(folder for folder in self.root.iterdir() if folder.is_dir()):
            for split in SPLITS:
                listing = synset / f"softras_{split}.lst"
                if listing.exists():
                    for name in read_lines(listing):
                        yield synset.name, split, name, inside(synset, name, listing)

    def _source_views(self) -> dict[tuple[str, str], int]:
        views = {}
        for path in self.files.get(SOURCE_VIEWS, []):
            for line in read_lines(path):
                words = line.split()
                if len(words) != 3 or not words[2].isdecimal():
                    raise ValueError(f"{path}: {line!r} is not `synset object view`")
                views[words[0], words[1]] = int(words[2])
        return views


def read_cameras(path: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """World-to-camera (4, 4) and focal lengths (2,), in half image sides, of the views 0..count-1."""
    wanted: dict[str, tuple[int | None, ...]] = {
        f"{kind}_{view}": (None, None) for view in range(count) for kind in ("world_mat", "world_mat_inv", "camera_mat")
    }
    members = read_members(path, wanted)
    return [(_pose(members, view, path), _focal(members, view, path)) for view in range(count)]


def _pose(members: dict[str, np.ndarray], view: int, path: Path) -> np.ndarray:
    """The inverse is preferred where there are both, as the reference does."""
    inverse, forward = members.get(f"world_mat_inv_{view}"), members.get(f"world_mat_{view}")
    matrix = forward if inverse is None else inverse
    if matrix is None or matrix.shape not in ((3, 4), (4, 4)):
        found = "missing" if matrix is None else f"{matrix.shape}"
        raise UnreadableObjectError(f"{path}: world_mat_{view} and world_mat_inv_{view}: {found}, not 3x4 or 4x4")
    pose = rigid(matrix, path)
    return (pose if inverse is None else np.linalg.inv(pose)) @ Y_UP_TO_Z_UP.T


def _focal(members: dict[str, np.ndarray], view: int, path: Path) -> np.ndarray:
    matrix = members.get(f"camera_mat_{view}")
    if matrix is None or min(matrix.shape) < 3:
        raise UnreadableObjectError(f"{path}: camera_mat_{view} is missing or smaller than 3x3")
    focal = matrix[[0, 1], [0, 1]]
    if focal.min() <= 0 or np.abs(matrix[:2, :3] - np.diag(focal) @ np.eye(2, 3)).max() > 1e-6:
        raise UnreadableObjectError(f"{path}: camera_mat_{view} is not a centred pinhole camera's")
    return focal


def _pictures(folder: Path) -> list[Path]:
    return files_in(folder / "image", "*.png")
