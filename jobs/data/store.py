"""The packed store: each dataset as the same set of memory-mapped arrays.

A store is a directory, written once and then immutable:

    images.npy           uint8   (F, 3, S, S)  RGB
    world_to_camera.npy  float32 (F, 4, 4)     OpenCV axes (x right, y down, z forward), column vectors
    focal.npy            float32 (F, 2)        pixels, x then y
    principal.npy        float32 (F, 2)        pixels; the image centre is (S/2, S/2)
    mask.npy             uint8   (F, S, S)     optional; share of the pixel that the object covers, times 255
    depth.npy            float32 (F, S, S)     optional (or float16); camera z of the surface, 0 = none
    objects.parquet      one row per object: object, split, first_frame, num_frames, category, geometry
    manifest.json        where it came from, how to evaluate on it, its fingerprint and checksum

F counts the frames of all objects; an object's frames are consecutive.  Objects that share a `geometry` have
equal shapes (colour variants, say) and must stay in one split.

Processes that open the same store share its pages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from model.options import in_one_line
from results.records.damage import DamagedFileError, member, read_object

if TYPE_CHECKING:  # takes seconds, and only `views` needs it
    import torch

    from model.types import Views

#: Increased when the layout changes; a store of another version is rejected and has to be prepared again.
FORMAT_VERSION = 1

SPLITS = ("train", "val", "test")
REQUIRED_ARRAYS = ("images", "world_to_camera", "focal", "principal")
OPTIONAL_ARRAYS = ("mask", "depth")
OBJECT_COLUMNS = ("object", "split", "first_frame", "num_frames", "category", "geometry")
_INTEGER_COLUMNS = ("first_frame", "num_frames")
#: types of arrays, float32 where none is named
_TYPES = {"images": ("uint8",), "mask": ("uint8",), "depth": ("float32", "float16")}


class StoreError(ValueError):
    """A directory is not a readable store; the message names it and the problem."""


class Skipped(BaseModel):
    """An object that could not be read when the store was created."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    object: str
    reason: str


class Remark(BaseModel):
    """A remark on an object that was read successfully."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    object: str
    text: str


class RecordedFile(BaseModel):
    """An additional file, named by the user, that affected the import."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    content: str


class Manifest(BaseModel):
    """Metadata of a store."""

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
    #: whether these bounds are relative to the camera z of the dataset's origin, which `Views` then include
    bounds_from_origin: bool = False
    #: scene units; if given, each batch scales an object so that its first camera has this distance from the origin
    source_distance: float | None = None
    #: RGB in [0, 1] behind the object
    background: tuple[float, float, float]
    #: how to evaluate, e.g. {"source_frame": 0}; see `jobs.data.sampling.evaluation_frames`
    evaluation: dict[str, Any]
    #: the user's folder that it was imported from, as an absolute path; it affects neither trials nor the store's path
    folder: str | None = None
    #: by role, e.g. "exclude"
    files: dict[str, list[RecordedFile]] = {}
    skipped: list[Skipped] = []
    remarks: list[Remark] = []
    #: identity of the data in the keys of trials: the checksum, or for rendered pictures what they are made from
    fingerprint: str
    #: sha256 of all data that affect a trial; None in stores of earlier versions, where it is the fingerprint
    checksum: str | None = None


@dataclass(frozen=True)
class Frames:
    """The n images of one object, as passed from an importer to the writer."""

    images: np.ndarray  # (n, 3, S, S) uint8
    world_to_camera: np.ndarray  # (n, 4, 4)
    focal: np.ndarray  # (n, 2) pixels
    principal: np.ndarray  # (n, 2) pixels
    mask: np.ndarray | None = None  # (n, S, S) uint8
    depth: np.ndarray | None = None  # (n, S, S) camera z, 0 = none

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are not None, by name."""
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
        objects = _read_objects(path)
        return cls(path=path, manifest=manifest, objects=objects, **_map_arrays(path, int(objects["num_frames"].sum())))

    @property
    def fingerprint(self) -> str:
        """The sha256 that a trial's key contains."""
        return self.manifest.fingerprint

    @property
    def checksum(self) -> str:
        """The sha256 of all data that affect a trial, as they were written."""
        return self.manifest.checksum or self.manifest.fingerprint

    @property
    def provenance(self) -> dict[str, str]:
        """The hashes that are recorded with each result."""
        return {"data_fingerprint": self.fingerprint, "data_checksum": self.checksum}

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

    def views(
        self, frames: np.ndarray, resolution: int, device: torch.device | str = "cpu", *, depth: bool = True
    ) -> Views:
        """Images and cameras of `frames` (B, V) on `device`, cameras relative to the first of each row.

        `resolution` is at most the stored one: pixels of smaller images are means over the area they cover, and the
        intrinsics scale with them.  Depth, if it is wanted, is the mean over pixels with depth.
        Raises ValueError for a larger size, and for frames that the store does not have.
        """
        import torch

        from jobs.data.gpu_cache import take
        from jobs.data.resample import area_mean, area_mean_of_valid
        from model.types import Cameras, Views

        self._check(frames, resolution)
        batch, shrink = len(frames), np.float32(self.resolution / resolution)
        poses = self.world_to_camera[frames]
        views = Views(
            images=area_mean(take(self.path, "images", self.images, frames, device), resolution),
            cameras=Cameras(
                world_to_camera=torch.from_numpy(relative_to_first(poses)),
                focal=torch.from_numpy(self.focal[frames] / shrink),
                principal=torch.from_numpy(self.principal[frames] / shrink),
                height=resolution,
                width=resolution,
            ),
            near=torch.full((batch,), self.manifest.near),
            far=torch.full((batch,), self.manifest.far),
            background=torch.tensor(self.manifest.background).repeat(batch, 1),
            frames=torch.from_numpy(np.ascontiguousarray(frames, dtype=np.int64)),
            depth=None
            if self.depth is None or not depth
            else area_mean_of_valid(take(self.path, "depth", self.depth, frames, device).unsqueeze(2), resolution),
            origin=torch.from_numpy(poses[:, 0, :3, 3].copy()),  # in the world frame, that of the first cameras
        )
        if self.manifest.bounds_from_origin:  # the origin's camera z: minus the camera's centre, along its z axis
            views = replace(views, origin_distance=torch.from_numpy(poses[..., 2, 3].copy()))
        if self.manifest.source_distance is not None:
            origins = poses[:, 0, :3, 3].astype(np.float64)  # in the frame of the first cameras
            views = _scaled(views, self.manifest.source_distance / np.linalg.norm(origins, axis=1))
        return views.to(device)

    def masks(self, frames: np.ndarray, resolution: int, device: torch.device | str = "cpu") -> torch.Tensor | None:
        """The object's coverage of each pixel of `frames` (B, V), (B, V, 1, H, W) in [0, 1]; None without masks.

        Raises ValueError as `views` does.
        """
        from jobs.data.gpu_cache import take
        from jobs.data.resample import area_mean

        self._check(frames, resolution)
        if self.mask is None:
            return None
        return area_mean(take(self.path, "mask", self.mask, frames, device), resolution).unsqueeze(2)

    def compute_checksum(self) -> str:
        """The checksum of the current files; differs from `checksum` if the store was altered."""
        arrays = {name: getattr(self, name) for name in (*REQUIRED_ARRAYS, *OPTIONAL_ARRAYS)}
        present = {name: array for name, array in arrays.items() if array is not None}
        return compute_checksum(present, self.objects, self.manifest)

    def _check(self, frames: np.ndarray, resolution: int) -> None:
        if not 1 <= resolution <= self.resolution:
            raise ValueError(
                f"resolution {resolution} of {self.path.name}; allowed: 1 to {self.resolution}, the side of its images "
                "(or prepare it with larger images)"
            )
        if frames.min() < 0 or frames.max() >= len(self.images):
            raise ValueError(f"frames {frames.min()}..{frames.max()} are not all within 0..{len(self.images) - 1}")


def compute_checksum(arrays: Mapping[str, np.ndarray], objects: pd.DataFrame, manifest: Manifest) -> str:
    """The sha256 over the arrays, the object table, and the facts that affect a trial."""
    digest = hashlib.sha256(canonical_json(_facts(arrays, objects, manifest)))
    for name in sorted(arrays):
        for start in range(0, len(arrays[name]), 1024):
            digest.update(np.ascontiguousarray(arrays[name][start : start + 1024]).data)
    return digest.hexdigest()


def fingerprint_of_recipe(
    recipe: Mapping[str, Any], arrays: Mapping[str, np.ndarray], objects: pd.DataFrame, manifest: Manifest
) -> str:
    """The sha256 over `recipe`, from which the arrays' content follows, and all that `compute_checksum` has besides.

    Processors differ in the last bits of rendered pictures.  With this fingerprint, trials have the same key wherever
    their data were rendered.
    """
    return hashlib.sha256(canonical_json(_facts(arrays, objects, manifest) | {"recipe": recipe})).hexdigest()


def _facts(arrays: Mapping[str, np.ndarray], objects: pd.DataFrame, manifest: Manifest) -> dict[str, Any]:
    """All that affects a trial besides the arrays' content."""
    header = {
        "objects": objects[list(OBJECT_COLUMNS)].values.tolist(),
        "near": manifest.near,
        "far": manifest.far,
        "background": list(manifest.background),
        "evaluation": manifest.evaluation,
        "arrays": {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()},
    }
    # Facts that most datasets lack are omitted where absent, so that adding such a fact changes no fingerprint.
    uncommon = {
        "bounds_from_origin": manifest.bounds_from_origin,
        "source_distance": manifest.source_distance,
        "files": {role: [file.sha256 for file in files] for role, files in manifest.files.items()},
    }
    return header | {name: fact for name, fact in uncommon.items() if fact}


def canonical_json(facts: Mapping[str, Any]) -> bytes:
    """The same bytes for equal content, to be hashed."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def relative_to_first(world_to_camera: np.ndarray) -> np.ndarray:
    """Cameras (B, V, 4, 4) in the frame of each row's first: W_i W_0^-1; the first becomes the identity."""
    cameras = world_to_camera.astype(np.float64)
    relative = cameras @ np.linalg.inv(cameras[:, :1])
    relative[:, 0] = np.eye(4)  # exact, despite rounding in the inverse
    return relative.astype(np.float32)


def _scaled(views: Views, factors: np.ndarray) -> Views:
    """`views` with all lengths of each object multiplied by its factor (B,), except for the bounds."""
    import torch

    scale = torch.from_numpy(factors.astype(np.float32))[:, None]
    cameras = views.cameras.world_to_camera.clone()
    cameras[..., :3, 3] *= scale[..., None]
    return replace(
        views,
        cameras=replace(views.cameras, world_to_camera=cameras),
        depth=None if views.depth is None else views.depth * scale[..., None, None, None],
        origin_distance=None if views.origin_distance is None else views.origin_distance * scale,
        origin=None if views.origin is None else views.origin * scale,
    )


def _read_manifest(path: Path) -> Manifest:
    file = path / "manifest.json"
    if not file.is_file():
        raise StoreError(f"{path} is not a store: it has no manifest.json")
    try:
        values = read_object(file)
        version = member(values, "format_version", int, file)
    except DamagedFileError as error:
        raise _damaged(file, error.problem) from error
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}, this code reads {FORMAT_VERSION}; delete it and prepare it again"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise _damaged(file, in_one_line(error)) from error


def _read_objects(path: Path) -> pd.DataFrame:
    file = path / "objects.parquet"
    try:
        objects = pd.read_parquet(file)
        columns = {column: objects[column].tolist() for column in OBJECT_COLUMNS if column in objects}
    except Exception as error:  # damaged content raises many kinds of errors
        raise _damaged(file, str(error)) from error
    for column in OBJECT_COLUMNS:
        kind = int if column in _INTEGER_COLUMNS else str
        if column not in columns:
            raise _damaged(file, f"it lacks the column {column}")
        if wrong := [value for value in columns[column] if not isinstance(value, kind)]:
            raise _damaged(file, f"{wrong[0]!r} in its column {column}, not {kind.__name__}")
    if unknown := set(columns["split"]) - set(SPLITS):
        raise _damaged(file, f"its splits include {', '.join(sorted(unknown))}; allowed: {', '.join(SPLITS)}")
    counts = objects["num_frames"]
    if (counts < 1).any() or (objects["first_frame"] != counts.cumsum() - counts).any():
        raise _damaged(file, "its objects do not have frames that follow one another")
    return objects


def _map_arrays(path: Path, frames: int) -> dict[str, np.ndarray]:
    """The arrays, each of this number of frames."""
    arrays: dict[str, np.ndarray] = {}
    for name in (*REQUIRED_ARRAYS, *OPTIONAL_ARRAYS):
        file = path / f"{name}.npy"
        if name in OPTIONAL_ARRAYS and not file.exists():
            continue
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a damaged header raises many kinds of errors
            raise _damaged(file, str(error)) from error
        side = (arrays.get("images", array).shape or (0,))[-1]
        shape, types = (frames, *frame_shape(name, side)), _TYPES.get(name, ("float32",))
        if array.shape != shape or array.dtype not in map(np.dtype, types):
            expected = f"{shape}, as objects.parquet and images.npy have it, of {' or '.join(types)}"
            raise _damaged(file, f"it holds {array.shape} of {array.dtype}, not {expected}")
        arrays[name] = array
    return arrays


def _damaged(file: Path, problem: str) -> StoreError:
    return StoreError(f"{file} is missing or damaged: {problem}; delete {file.parent} and prepare it again")


def frame_shape(name: str, side: int) -> tuple[int, ...]:
    """The shape of one frame of the array `name`, where images are side x side pixels."""
    small = {"world_to_camera": (4, 4), "focal": (2,), "principal": (2,)}
    return (3, side, side) if name == "images" else small.get(name, (side, side))
