"""The packed store: every dataset as the same few memory-mapped arrays.

A store is a directory, written once and never changed:

    images.npy           uint8   (F, 3, S, S)  RGB
    world_to_camera.npy  float32 (F, 4, 4)     OpenCV axes (x right, y down, z forward), column vectors
    focal.npy            float32 (F, 2)        pixels, x then y
    principal.npy        float32 (F, 2)        pixels; the image centre is (S/2, S/2)
    mask.npy             uint8   (F, S, S)     optional; share of the pixel that the object covers, times 255
    depth.npy            float32 (F, S, S)     optional (or float16); camera z of the surface, 0 = none
    objects.parquet      one row per object: object, split, first_frame, num_frames, category, geometry
    manifest.json        where it came from, how to evaluate on it, and its fingerprint

F counts the frames of all objects; an object's frames are consecutive.  Objects that share a `geometry` have
equal shapes (colour variants, say) and must stay in one split.

Processes that open the same store share its pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:  # torch takes seconds to import, and only `views` needs it
    from torch import Tensor

    from model.types import Views

#: Raised when the layout changes; a store of another version is refused and has to be prepared again.
FORMAT_VERSION = 1

SPLITS = ("train", "val", "test")
REQUIRED_ARRAYS = ("images", "world_to_camera", "focal", "principal")
OPTIONAL_ARRAYS = ("mask", "depth")
OBJECT_COLUMNS = ("object", "split", "first_frame", "num_frames", "category", "geometry")


class StoreError(ValueError):
    """A directory that is not a readable store; the message names it and says what is wrong."""


class Skipped(BaseModel):
    """An object that could not be read when the store was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    object: str
    reason: str


class Manifest(BaseModel):
    """What a store says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    importer: str
    options: dict[str, Any]
    source: str
    licence: str
    #: objects of each split
    counts: dict[str, int]
    #: bounds of the surface's camera z, scene units
    near: float
    far: float
    #: RGB in [0, 1] behind the object
    background: tuple[float, float, float]
    #: how to evaluate, e.g. {"source_frame": 0}; see `jobs.data.sampling.evaluation_frames`
    evaluation: dict[str, Any]
    skipped: list[Skipped] = []
    #: sha256 of everything that decides what a trial sees
    fingerprint: str


@dataclass(frozen=True)
class Frames:
    """The n pictures of one object, as an importer hands them to the writer."""

    images: np.ndarray  # (n, 3, S, S) uint8
    world_to_camera: np.ndarray  # (n, 4, 4)
    focal: np.ndarray  # (n, 2) pixels
    principal: np.ndarray  # (n, 2) pixels
    mask: np.ndarray | None = None  # (n, S, S) uint8
    depth: np.ndarray | None = None  # (n, S, S) camera z, 0 = none

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are there, by name."""
        named = {name: getattr(self, name) for name in (*REQUIRED_ARRAYS, *OPTIONAL_ARRAYS)}
        return {name: array for name, array in named.items() if array is not None}


@dataclass(frozen=True)
class Store:
    """A finished store, memory-mapped."""

    path: Path
    manifest: Manifest
    objects: pd.DataFrame  # the columns OBJECT_COLUMNS, in frame order
    images: np.ndarray
    world_to_camera: np.ndarray
    focal: np.ndarray
    principal: np.ndarray
    mask: np.ndarray | None = None
    depth: np.ndarray | None = None

    @classmethod
    def open(cls, path: Path) -> Store:
        """Map the store at `path`.  Raises `StoreError` where it is missing, damaged or of another format."""
        manifest = _read_manifest(path)
        arrays = _map_arrays(path)
        objects = _read_objects(path)
        frames = int(objects["num_frames"].sum())
        side = arrays["images"].shape[-1]
        for name, array in arrays.items():
            if array.shape[1:] != _frame_shape(name, side):
                raise StoreError(f"{path}: {name}.npy has frames of {array.shape[1:]}, not {_frame_shape(name, side)}")
            if len(array) != frames:
                raise StoreError(f"{path}: {name}.npy holds {len(array)} frames, objects.parquet {frames}")
        return cls(path=path, manifest=manifest, objects=objects, **arrays)

    @property
    def fingerprint(self) -> str:
        """The sha256 that a trial's key contains."""
        return self.manifest.fingerprint

    @property
    def resolution(self) -> int:
        """Side of the stored images, pixels."""
        return int(self.images.shape[-1])

    def split(self, name: str) -> pd.DataFrame:
        """The objects of one split.  Raises ValueError for an unknown or empty split."""
        rows = self.objects[self.objects["split"] == name]
        if rows.empty:
            present = ", ".join(sorted(set(self.objects["split"])))
            raise ValueError(f"{self.path.name} has no objects in split {name!r}; it has: {present}")
        return rows.reset_index(drop=True)

    def views(self, frames: np.ndarray, resolution: int) -> Views:
        """Pictures and cameras of `frames` (B, V), cameras relative to the first of each row.

        `resolution` is the stored one or a divisor of it: smaller pictures are means over square blocks of
        pixels, and the intrinsics shrink with them.  Depth is the mean over the pixels that have one.
        Raises ValueError for any other size, and for frames that the store does not hold.
        """
        import torch

        from model.types import Cameras, Views

        factor = self._factor(resolution)
        if frames.min() < 0 or frames.max() >= len(self.images):
            raise ValueError(f"frames {frames.min()}..{frames.max()} are not all within 0..{len(self.images) - 1}")
        batch = len(frames)
        cameras = Cameras(
            world_to_camera=torch.from_numpy(relative_to_first(self.world_to_camera[frames])),
            focal=torch.from_numpy(self.focal[frames] / np.float32(factor)),
            principal=torch.from_numpy(self.principal[frames] / np.float32(factor)),
            height=resolution,
            width=resolution,
        )
        return Views(
            images=_block_sum(torch.from_numpy(self.images[frames]).float(), factor) / (255 * factor**2),
            cameras=cameras,
            near=torch.full((batch,), self.manifest.near),
            far=torch.full((batch,), self.manifest.far),
            background=torch.tensor(self.manifest.background).repeat(batch, 1),
            frames=torch.from_numpy(np.ascontiguousarray(frames, dtype=np.int64)),
            depth=None if self.depth is None else _depth(self.depth[frames], factor),
        )

    def compute_fingerprint(self) -> str:
        """The fingerprint of what is on disk now; differs from `fingerprint` when the store was altered."""
        arrays = {name: getattr(self, name) for name in (*REQUIRED_ARRAYS, *OPTIONAL_ARRAYS)}
        present = {name: array for name, array in arrays.items() if array is not None}
        return fingerprint(present, self.objects, self.manifest.model_dump(mode="json"))

    def _factor(self, resolution: int) -> int:
        if resolution < 1 or self.resolution % resolution:
            allowed = [str(size) for size in range(8, self.resolution + 1) if self.resolution % size == 0]
            raise ValueError(
                f"resolution {resolution} cannot be had from {self.path.name}, whose images have "
                f"{self.resolution} px; allowed: {', '.join(allowed)} (or prepare it with another image size)"
            )
        return self.resolution // resolution


class StoreWriter:
    """Builds a store in a temporary sibling directory and renames it: a half-written one is never seen.

    Use as a context manager; `append` the objects in order, then `finish`.  Leaving without `finish` removes
    what was written.
    """

    def __init__(self, path: Path, capacity: int) -> None:
        """`capacity` is the most frames that can come; objects that fail to load leave room at the end."""
        self.path = path
        self._capacity = capacity
        self._rows: list[dict[str, Any]] = []
        self._arrays: dict[str, np.memmap] = {}
        self._used = 0

    def __enter__(self) -> StoreWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._building = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._building, ignore_errors=True)

    def append(self, frames: Frames, *, name: str, split: str, category: str, geometry: str) -> None:
        """Add one object.  Raises ValueError where its arrays do not fit each other or earlier objects."""
        if split not in SPLITS:
            raise ValueError(f"object {name!r} has split {split!r}; allowed: {', '.join(SPLITS)}")
        arrays = frames.arrays()
        self._check(name, arrays)
        if not self._arrays:
            self._arrays = {key: self._allocate(key, array) for key, array in arrays.items()}
        count = len(frames.images)
        for key, array in arrays.items():
            self._arrays[key][self._used : self._used + count] = array
        row = (name, split, self._used, count, category, geometry)
        self._rows.append(dict(zip(OBJECT_COLUMNS, row, strict=True)))
        self._used += count

    def finish(self, **facts: Any) -> None:
        """Seal the store.  `facts` are the fields of `Manifest` that the writer does not know itself."""
        if not self._rows:
            raise ValueError(f"no object for {self.path}: a store needs at least one")
        objects = pd.DataFrame(self._rows)
        arrays = {name: self._sealed(name) for name in self._arrays}
        counts = {split: int((objects["split"] == split).sum()) for split in SPLITS}
        manifest = Manifest(**facts, counts=counts, fingerprint=fingerprint(arrays, objects, facts))
        objects.to_parquet(self._building / "objects.parquet", index=False)
        (self._building / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
        for file in self._building.iterdir():
            _sync(file)
        self._building.chmod(0o755)  # mkdtemp's 0700 would keep it from the other users of a shared home
        self._building.rename(self.path)
        _sync(self.path.parent)

    def _check(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        count, side = len(arrays["images"]), arrays["images"].shape[-1]
        if self._used + count > self._capacity:
            raise ValueError(f"object {name!r}: more frames than the announced {self._capacity}")
        for key, array in arrays.items():
            if array.shape != (count, *_frame_shape(key, side)):
                expected = (count, *_frame_shape(key, side))
                raise ValueError(f"object {name!r}: {key} has shape {array.shape}, not {expected}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"object {name!r}: {key} holds values that are not finite")
        if self._arrays and arrays.keys() != self._arrays.keys():
            raise ValueError(f"object {name!r} has {sorted(arrays)}, objects before it {sorted(self._arrays)}")
        for key, kept in self._arrays.items():
            if arrays[key].shape[1:] != kept.shape[1:]:
                raise ValueError(f"object {name!r}: {key} is {arrays[key].shape[1:]}, before {kept.shape[1:]}")

    def _allocate(self, name: str, like: np.ndarray) -> np.memmap:
        dtype = np.dtype(np.uint8) if name in ("images", "mask") else np.dtype(np.float32)
        if name == "depth" and like.dtype == np.float16:
            dtype = like.dtype
        shape = (self._capacity, *like.shape[1:])
        return open_memmap(self._building / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)

    def _sealed(self, name: str) -> np.ndarray:
        """The array on disk, without the room that skipped objects left."""
        array = self._arrays[name]
        array.flush()
        if self._used < self._capacity:
            shorter = self._building / f"{name}.short.npy"
            np.save(shorter, array[: self._used])
            shorter.replace(self._building / f"{name}.npy")
        return array[: self._used]


def fingerprint(arrays: Mapping[str, np.ndarray], objects: pd.DataFrame, facts: Mapping[str, Any]) -> str:
    """The sha256 over the arrays, the object table, and the facts that decide what a trial sees."""
    digest = hashlib.sha256()
    header = {
        "objects": objects[list(OBJECT_COLUMNS)].values.tolist(),
        "near": facts["near"],
        "far": facts["far"],
        "background": list(facts["background"]),
        "evaluation": facts["evaluation"],
        "arrays": {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()},
    }
    digest.update(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(arrays):
        for start in range(0, len(arrays[name]), 1024):
            digest.update(np.ascontiguousarray(arrays[name][start : start + 1024]).data)
    return digest.hexdigest()


def relative_to_first(world_to_camera: np.ndarray) -> np.ndarray:
    """Cameras (B, V, 4, 4) in the frame of each row's first: W_i W_0^-1; the first becomes the identity."""
    cameras = world_to_camera.astype(np.float64)
    relative = cameras @ np.linalg.inv(cameras[:, :1])
    relative[:, 0] = np.eye(4)  # exactly, whatever the inverse rounds to
    return relative.astype(np.float32)


def _block_sum(pictures: Tensor, factor: int) -> Tensor:
    """Sums over blocks of factor x factor pixels: (..., H, W) -> (..., H/factor, W/factor).

    Sums of bytes are exact in float32, so neither threads nor the order of adding change them; and they take
    half the time of `avg_pool2d`.
    """
    rows = sum((pictures[..., i::factor, :] for i in range(1, factor)), start=pictures[..., ::factor, :])
    return sum((rows[..., i::factor] for i in range(1, factor)), start=rows[..., ::factor])


def _depth(depth: np.ndarray, factor: int) -> Tensor:
    """Depth (B, V, S, S) -> (B, V, 1, H, W); means over the pixels of a block that have a surface."""
    import torch

    maps = torch.from_numpy(depth.astype(np.float32, copy=False)).unsqueeze(2)
    if factor == 1:
        return maps
    return _block_sum(maps, factor) / _block_sum((maps > 0).float(), factor).clamp(min=1)


def _read_manifest(path: Path) -> Manifest:
    file = path / "manifest.json"
    if not file.is_file():
        raise StoreError(f"{path} is not a store: it has no manifest.json")
    try:
        values = json.loads(file.read_text("utf-8"))
        version = values["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} is damaged: {type(error).__name__}: {error}") from error
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version!r}, this code reads {FORMAT_VERSION}; delete it and prepare it again"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise StoreError(f"{file} is damaged: {error}") from error


def _read_objects(path: Path) -> pd.DataFrame:
    file = path / "objects.parquet"
    try:
        objects = pd.read_parquet(file)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise StoreError(f"{file} is missing or damaged: {error}") from error
    missing = [column for column in OBJECT_COLUMNS if column not in objects]
    if missing:
        raise StoreError(f"{file} lacks the columns {', '.join(missing)}")
    return objects


def _map_arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    for name in (*REQUIRED_ARRAYS, *OPTIONAL_ARRAYS):
        file = path / f"{name}.npy"
        if name in OPTIONAL_ARRAYS and not file.exists():
            continue
        try:
            arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{file} is missing or damaged: {error}") from error
    return arrays


def _frame_shape(name: str, side: int) -> tuple[int, ...]:
    """The shape of one frame of the array `name`, where images are side x side pixels."""
    small = {"world_to_camera": (4, 4), "focal": (2,), "principal": (2,)}
    return (3, side, side) if name == "images" else small.get(name, (side, side))


def _sync(path: Path) -> None:
    """Have the file's bytes, or the directory's entries, reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
