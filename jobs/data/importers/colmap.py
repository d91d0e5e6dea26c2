"""Posed images from COLMAP: a sparse model, text or binary, beside the images.

Format: COLMAP's documentation, "Output Format"; camera models: its `models.h`.
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.data.importers.base import UnreadableObjectError
from jobs.data.importers.files import files_under, finite, inside, read_bytes, read_text, reading
from jobs.data.importers.posed import Camera, Capture, Posed, Shot, surroundings
from jobs.data.importers.poses import rigid

#: Possible places of sparse models in an object's folder, else they are in the folder itself.  In a place, the model 0
#: is read, or else the one in the place itself, or else the first of the others.
MODELS = ("sparse", "colmap/sparse", "distorted/sparse")
CAMERAS = ("cameras.bin", "cameras.txt")
PICTURES, MASKS = ("images", "."), ("masks", "mask")
MAX_MODEL_BYTES = 2**31
#: Maximum length of what a message repeats of a line.
_MAX_SHOWN = 100
#: Number and name of each camera model, its parameters, and which of them have to be 0.
CAMERA_MODELS = {
    0: ("SIMPLE_PINHOLE", ("f", "cx", "cy")),
    1: ("PINHOLE", ("fx", "fy", "cx", "cy")),
    2: ("SIMPLE_RADIAL", ("f", "cx", "cy", "k1")),
    3: ("RADIAL", ("f", "cx", "cy", "k1", "k2")),
    4: ("OPENCV", ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2")),
    5: ("OPENCV_FISHEYE", ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4")),
    6: ("FULL_OPENCV", ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")),
    7: ("FOV", ("fx", "fy", "cx", "cy", "omega")),
    8: ("SIMPLE_RADIAL_FISHEYE", ("f", "cx", "cy", "k1")),
    9: ("RADIAL_FISHEYE", ("f", "cx", "cy", "k1", "k2")),
    10: ("THIN_PRISM_FISHEYE", ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1")),
}
_PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
_REMEDY = (
    "undistort the pictures first: colmap image_undistorter --image_path IMAGES --input_path MODEL --output_path OUT"
)


@dataclass(frozen=True)
class Registered:
    """A picture of a model."""

    name: str
    camera: int
    world_to_camera: np.ndarray  # (4, 4)


@dataclass(frozen=True)
class Colmap(Posed):
    """Objects are folders with a sparse model, and their pictures in `images`."""

    description = "posed pictures of objects: COLMAP's sparse models, text or binary"
    needs_source = (
        "sparse/0 (cameras, images, points3D as .bin or .txt) and images: in it, or in a folder for each object"
    )

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any(files_under(folder, *CAMERAS))

    def folders(self) -> list[Path]:
        return sorted({_object_of(file.parent, self.root) for file in files_under(self.root, *CAMERAS)})

    def capture(self, folder: Path, split: str) -> Capture:
        model, *others = _models(folder)
        cameras, pictures = read_cameras(model), read_images(model)
        root = next((folder / place for place in PICTURES if (folder / place).is_dir()), folder)
        shots = []
        for picture in sorted(pictures, key=lambda picture: picture.name):
            if picture.camera not in cameras:
                raise UnreadableObjectError(
                    f"{model}: picture {picture.name!r} has camera {picture.camera}, which is not there"
                )
            path = inside(self.root, posixpath.join(root.relative_to(self.root).as_posix(), picture.name), model)
            if not path.is_file():
                raise UnreadableObjectError(f"{model}: its picture {picture.name!r} is missing: there is no {path}")
            mask = _mask(folder, picture.name)
            shots.append(Shot(path, cameras[picture.camera], picture.world_to_camera, mask))
        notes = surroundings(shots)
        if alike := [other for other in others if other.parent == model.parent]:
            notes.append(f"of its {1 + len(alike)} models, {model.name} is read")
        return Capture(tuple(shots), read_points(model), tuple(notes))


def read_cameras(model: Path) -> dict[int, Camera]:
    """The cameras of a model by number.  Raises `UnreadableObjectError`, naming its model, if one is no pinhole."""
    file = _file(model, "cameras")
    if file is None:
        raise UnreadableObjectError(f"{model}: no cameras.bin or cameras.txt")
    with reading(file):
        rows = _binary_cameras(file) if file.suffix == ".bin" else _text_cameras(file)
        return {number: _pinhole(name, width, height, values, file) for number, name, width, height, values in rows}


def read_images(model: Path) -> list[Registered]:
    """The pictures of a model with their poses."""
    file = _file(model, "images")
    if file is None:
        raise UnreadableObjectError(f"{model}: no images.bin or images.txt")
    with reading(file):
        rows = _binary_images(file) if file.suffix == ".bin" else _text_images(file)
        return [Registered(name, camera, _pose(values, file)) for values, camera, name in rows]


def read_points(model: Path) -> np.ndarray | None:
    """The points (P, 3) of a model; None where it has none."""
    file = _file(model, "points3D")
    if file is None:
        return None
    with reading(file):
        points = list(_binary_points(file) if file.suffix == ".bin" else _text_points(file))
    return finite(np.array(points, np.float64), file, "a point") if points else None


def _pinhole(name: str, width: int, height: int, values: tuple[float, ...], file: Path) -> Camera:
    parameters = dict(zip(dict(CAMERA_MODELS.values())[name], values, strict=True))
    if name not in _PINHOLES:
        raise UnreadableObjectError(f"{file}: camera model {name} is no pinhole camera; {_REMEDY}")
    bent = {key: value for key, value in parameters.items() if key[0] in "kp" and value != 0}
    if bent:
        listed = ", ".join(f"{key} {value:g}" for key, value in bent.items())
        raise UnreadableObjectError(f"{file}: camera model {name} with distortion ({listed}); {_REMEDY}")
    if min(width, height) <= 0:
        raise UnreadableObjectError(f"{file}: a camera of {width} x {height} pixels")
    across = parameters.get("fx", parameters.get("f", 0.0))
    return Camera((width, height), (across, parameters.get("fy", across)), (parameters["cx"], parameters["cy"]))


def _pose(values: tuple[float, ...], file: Path) -> np.ndarray:
    """World-to-camera (4, 4) of a quaternion, real first, and a translation."""
    w, x, y, z = np.array(values[:4]) / max(np.linalg.norm(values[:4]), 1e-12)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return rigid(np.column_stack([rotation, values[4:]]), file)


# Text


def _lines(file: Path) -> list[str]:
    """Lines without comments; empty ones count, since a picture without points has one."""
    return [line.strip() for line in read_text(file, MAX_MODEL_BYTES).splitlines() if not line.startswith("#")]


def _text_cameras(file: Path) -> Iterator[tuple[int, str, int, int, tuple[float, ...]]]:
    names = dict(CAMERA_MODELS.values())
    for line in filter(None, _lines(file)):
        words = line.split()
        if len(words) < 5 or words[1] not in names or len(words) != 4 + len(names[words[1]]):
            raise UnreadableObjectError(f"{file}: {_shown(line)} is no camera; models: {', '.join(names)}")
        number, width, height = map(int, (words[0], *words[2:4]))
        yield number, words[1], width, height, tuple(map(float, words[4:]))


def _text_images(file: Path) -> Iterator[tuple[tuple[float, ...], int, str]]:
    lines = _lines(file)
    while lines and not lines[-1]:
        lines.pop()
    for line in lines[::2]:
        words = line.split(maxsplit=9)
        if len(words) != 10:
            raise UnreadableObjectError(f"{file}: {_shown(line)} is no picture with its pose")
        yield tuple(map(float, words[1:8])), int(words[8]), words[9]


def _text_points(file: Path) -> Iterator[tuple[float, ...]]:
    for line in filter(None, _lines(file)):
        words = line.split(maxsplit=4)
        if len(words) < 4:
            raise UnreadableObjectError(f"{file}: {_shown(line)} is no point")
        yield tuple(map(float, words[1:4]))


def _shown(line: str) -> str:
    """The beginning of a line; lists of a picture's points have many thousand numbers."""
    return repr(line) if len(line) <= _MAX_SHOWN else f"{line[:_MAX_SHOWN]!r}..."


# Binary: little-endian, without padding


class _Reader:
    """Reads values from a file in sequence.  Raises `UnreadableObjectError` where it ends too early."""

    def __init__(self, file: Path) -> None:
        self.file, self._content, self._at = file, read_bytes(file, MAX_MODEL_BYTES), 0

    def take(self, layout: str) -> tuple[float, ...]:
        size = struct.calcsize(f"<{layout}")
        if self._at + size > len(self._content):
            raise UnreadableObjectError(f"{self.file}: cut off: it ends after {len(self._content)} bytes")
        values = struct.unpack_from(f"<{layout}", self._content, self._at)
        self._at += size
        return values

    def skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self._content):
            raise UnreadableObjectError(f"{self.file}: cut off: it ends after {len(self._content)} bytes")

    def text(self) -> str:
        end = self._content.find(b"\0", self._at)
        if end < 0:
            raise UnreadableObjectError(f"{self.file}: cut off within a name")
        text = self._content[self._at : end].decode("utf-8", errors="replace")
        self._at = end + 1
        return text


def _binary_cameras(file: Path) -> Iterator[tuple[int, str, int, int, tuple[float, ...]]]:
    reader = _Reader(file)
    for _ in range(int(reader.take("Q")[0])):
        number, model, width, height = map(int, reader.take("iiQQ"))
        if model not in CAMERA_MODELS:
            raise UnreadableObjectError(f"{file}: camera model number {model}; known: 0 to {max(CAMERA_MODELS)}")
        name, parameters = CAMERA_MODELS[model]
        yield number, name, width, height, reader.take(f"{len(parameters)}d")


def _binary_images(file: Path) -> Iterator[tuple[tuple[float, ...], int, str]]:
    reader = _Reader(file)
    for _ in range(int(reader.take("Q")[0])):
        _, *pose, camera = reader.take("i7di")
        name = reader.text()
        reader.skip(24 * int(reader.take("Q")[0]))  # x, y and the point's number
        yield tuple(pose), int(camera), name


def _binary_points(file: Path) -> Iterator[tuple[float, ...]]:
    reader = _Reader(file)
    for _ in range(int(reader.take("Q")[0])):
        _, x, y, z, *_rest = reader.take("Q3d3Bd")
        reader.skip(8 * int(reader.take("Q")[0]))  # its track: the images in which it is seen
        yield x, y, z


# Paths


def _file(model: Path, name: str) -> Path | None:
    """The binary file of a model, or else the text."""
    files = (model / f"{name}.bin", model / f"{name}.txt")
    return next((file for file in files if file.is_file()), None)


def _models(folder: Path) -> list[Path]:
    """The sparse models of an object, the one to read first."""
    places = []
    for place in (folder / name for name in MODELS):
        others = [other for other in place.glob("*") if other.name != "0"]
        places += [place / "0", place, *sorted(others, key=lambda other: (len(other.name), other.name))]
    return [model for model in places if _file(model, "cameras") is not None] or [folder]


def _object_of(model: Path, root: Path) -> Path:
    """The folder of the object whose model lies in `model`."""
    place = model.parent if model != root and model.parent.name == "sparse" else model
    relative = place.relative_to(root).as_posix()
    for name in sorted(MODELS, key=len, reverse=True):
        if relative == name or relative.endswith(f"/{name}"):
            return root / relative.removesuffix(name).rstrip("/")
    return model


def _mask(folder: Path, name: str) -> Path | None:
    """The mask of a picture: under its own name, with .png behind it as COLMAP has it, or in place of its ending."""
    for place in MASKS:
        candidates = (f"{name}.png", name, f"{posixpath.splitext(name)[0]}.png")
        found = next((folder / place / other for other in candidates if (folder / place / other).is_file()), None)
        if found:
            return found
    return None
