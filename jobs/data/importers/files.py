"""Reads files from other sources, which may be missing, truncated, malicious or of another format than their name.

All functions raise `UnreadableObjectError` with the file's name and the problem.  They check sizes before
they allocate, unpickle nothing, and follow no path stated in a file that leads out of the root folder.
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import io
import json
import os
import posixpath
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from PIL import Image, ImageOps

from jobs.data.importers.base import UnreadableObjectError
from results.records.damage import system_words
from results.records.hashing import file_sha256

#: Maximum number of pixels: images of datasets have a few million, decompression bombs billions.
MAX_PIXELS = 2**26
MAX_TEXT_BYTES = 64 * 2**20
#: Maximum compression ratio: JSON has ten to twenty, a decompression bomb a thousand.
MAX_EXPANSION = 100
#: Maximum length of what a decoder says, which may repeat the file's content.
_MAX_DETAILS = 200
_CHUNK = 2**20
_COMPANION = "._"

_COLOUR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")
#: Pillow's modes, in various releases, for one channel of 16-bit integers.
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
#: A mask whose channels differ by more is coloured: its colours are labels of objects, not coverage.
_GREY_TOLERANCE = 16


#: The files that the functions here have read within `recorded_reads`.
_reads: ContextVar[set[Path] | None] = ContextVar("_reads", default=None)


@contextmanager
def recorded_reads() -> Iterator[set[Path]]:
    """The files that the functions of this module read inside the `with` block, for `sha256_of`."""
    read: set[Path] = set()
    before = _reads.set(read)
    try:
        yield read
    finally:
        _reads.reset(before)


def sha256_of(files: Collection[Path], root: Path) -> str:
    """The sha256 of all files' content, with their paths in `root`.  Raises OSError."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(json.dumps([path.relative_to(root).as_posix(), file_sha256(path)]).encode())
    return digest.hexdigest()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Converts errors of reading `path` to `UnreadableObjectError`, which names the file; notes that it is read."""
    if (read := _reads.get()) is not None:
        read.add(path)
    try:
        yield
    except UnreadableObjectError:
        raise
    # Decoders raise many kinds of errors on damaged files: OSError, SyntaxError, struct.error, MemoryError, ...
    except Exception as error:
        raise UnreadableObjectError(f"{path}: {_reason(path, error)}") from error


def _reason(path: Path, error: Exception) -> str:
    """The reason why a file cannot be read, in one line: the system's words, or that a decoder failed."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError) and (words := system_words(error)):
        return words
    details = " ".join(str(error).split())
    shown = details if len(details) <= _MAX_DETAILS else f"{details[:_MAX_DETAILS]}..."
    return f"damaged, or no {path.suffix.lower() or 'such'} file ({type(error).__name__}: {shown})"


def files_under(root: Path, *patterns: str) -> Iterator[Path]:
    """The files whose names match one of `patterns`, in a folder and its sub-folders.

    Unlike `Path.rglob`, it follows links to folders.  It lists each folder once, since links may lead in a circle.
    Companions as of `files_in` are left out.
    """
    seen: set[Path] = set()
    waiting = [root]
    while waiting:  # links are followed last, so that a folder in `root` keeps its own name
        for place, folders, names in os.walk(waiting.pop(0)):
            folder = Path(place)
            if (real := folder.resolve()) in seen:
                folders.clear()
                continue
            seen.add(real)
            waiting += [path for name in sorted(folders) if (path := folder / name).is_symlink()]
            for pattern in patterns:
                yield from (folder / name for name in fnmatch.filter(names, pattern) if not name.startswith(_COMPANION))


def files_in(folder: Path, pattern: str) -> list[Path]:
    """The files of one folder whose names match a pattern, sorted.

    Left out are the companions `._NAME`, which macOS adds to files in archives and on disks of other systems.
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith(_COMPANION))


def inside(root: Path, relative: object, stated_in: Path) -> Path:
    """The path `relative` under `root`, which `stated_in` names; it must not lead out of `root`."""
    if not isinstance(relative, str) or not relative or "\0" in relative:
        raise UnreadableObjectError(f"{stated_in}: {relative!r} is not a path")
    normal = posixpath.normpath(relative.replace("\\", "/"))
    if normal.startswith(("/", "../")) or normal == ".." or re.match("[A-Za-z]:/", normal):
        raise UnreadableObjectError(f"{stated_in}: the path {relative!r} leads out of {root}")
    return root / normal


def read_bytes(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The whole file, of at most `limit` bytes."""
    with reading(path):
        size = path.stat().st_size
        if size > limit:
            raise UnreadableObjectError(f"{path}: {size} bytes, more than {limit}")
        return path.read_bytes()


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """A UTF-8 file, of at most `limit` bytes."""
    content = read_bytes(path, limit)
    with reading(path):
        return content.decode("utf-8-sig")


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a text file, stripped."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_floats(path: Path, count: int) -> np.ndarray:
    """Numbers (count,) float64, separated by white space."""
    return parse_floats(read_text(path), count, path)


def parse_floats(text: str, count: int, path: Path) -> np.ndarray:
    """`count` finite numbers of `text`, which is from `path`."""
    words = text.split()
    with reading(path):
        values = np.array([float(word) for word in words])
    if len(values) != count:
        raise UnreadableObjectError(f"{path}: {len(values)} numbers, not {count}")
    return finite(values, path)


def finite(values: np.ndarray, path: Path, what: str = "a number") -> np.ndarray:
    """Returns `values`; raises where one of them is NaN or infinite."""
    if not np.isfinite(values).all():
        raise UnreadableObjectError(f"{path}: {what} is not finite")
    return values


def read_image(path: Path) -> Image.Image:
    """A decoded picture as the file has it: bits, grey, a palette or RGB, with or without transparency, or 16 bits."""
    with reading(path), Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableObjectError(f"{path}: {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        if image.mode not in (*_COLOUR_MODES, *_DEEP_MODES):
            allowed = ", ".join((*_COLOUR_MODES, "I;16"))
            raise UnreadableObjectError(f"{path}: pixels of mode {image.mode}; allowed: {allowed}")
        image.load()
        return image.copy()


def has_alpha(path: Path) -> bool:
    """Whether a picture has transparency, by its header."""
    with reading(path), Image.open(path) as image:
        return image.has_transparency_data


def read_rgba(path: Path) -> np.ndarray:
    """Colours and alpha (H, W, 4) uint8 of a picture; alpha is 255 everywhere where it has none."""
    return rgba_of(read_image(path), path)


def rgba_of(image: Image.Image, path: Path) -> np.ndarray:
    """Colours and alpha of a decoded picture, which is from `path`; see `read_rgba`."""
    with reading(path):
        if image.mode in _DEEP_MODES:
            grey = _deep_values(image, path) / 257
            opaque = np.full(grey.shape, 255.0)
            return np.rint(np.stack([grey, grey, grey, opaque], axis=-1)).astype(np.uint8)
        return np.asarray(image.convert("RGBA"))


def read_colours(path: Path, background: Sequence[float]) -> np.ndarray:
    """Colours (H, W, 3) uint8 of a picture, laid over `background` (RGB in [0, 1]) where it is transparent."""
    return over(read_rgba(path), background)


def over(rgba: np.ndarray, background: Sequence[float]) -> np.ndarray:
    """Colours (..., 3) uint8 of `rgba` (..., 4) uint8 over `background`, RGB in [0, 1]."""
    if (rgba[..., 3] == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    alpha = rgba[..., 3:] / 255.0
    return np.rint(rgba[..., :3] * alpha + 255 * np.asarray(background) * (1 - alpha)).astype(np.uint8)


def read_mask(path: Path, *, upright: bool = False) -> np.ndarray:
    """A mask (H, W) uint8, the object's coverage times 255, from any kind of image; `upright`: turned as EXIF says.

    Grey values are relative to the type's maximum, for 8 or 16 bits.  Images that hold only 0 and 1 are boolean.
    Coloured images, palettes included, are boolean too: every pixel that is not black is the object.  In transparent
    images alpha multiplies the coverage; if all their pixels have one colour, alpha alone is the coverage.
    """
    image = read_image(path)
    with reading(path):
        if upright:
            image = ImageOps.exif_transpose(image)
        if image.mode in _DEEP_MODES:
            return _shares(_deep_values(image, path))
        rgba = rgba_of(image, path)
        colours, alpha = rgba[..., :3], rgba[..., 3]
        if (alpha < 255).any():
            if (colours == colours[:1, :1]).all():
                return alpha
            return np.rint(_shares_of_colours(colours) * (alpha / 255.0)).astype(np.uint8)
        return _shares_of_colours(colours)


def _shares_of_colours(colours: np.ndarray) -> np.ndarray:
    """Coverage in 0 to 255 from colours (H, W, 3) uint8."""
    brightest = colours.max(axis=-1)
    if (brightest.astype(int) - colours.min(axis=-1)).max() > _GREY_TOLERANCE:
        return np.where(brightest > 0, 255, 0).astype(np.uint8)
    return _shares(brightest)


def _shares(values: np.ndarray) -> np.ndarray:
    """Non-negative integers -> uint8; their maximum determines whether they are booleans, 8 or 16 bits."""
    largest = values.max(initial=0)
    scale = 255 if largest <= 1 else 1 if largest <= 255 else 1 / 257
    return np.rint(values * scale).astype(np.uint8)


def read_steps(path: Path) -> np.ndarray:
    """The integers (H, W) of a one-channel image with 8 or 16 bits."""
    image = read_image(path)
    with reading(path):
        if image.mode not in (*_DEEP_MODES, "L"):
            raise UnreadableObjectError(f"{path}: pixels of mode {image.mode}, not of one channel")
        return np.asarray(image).astype(np.int64) if image.mode == "L" else _deep_values(image, path)


def _deep_values(image: Image.Image, path: Path) -> np.ndarray:
    """The integers (H, W) of a one-channel image with 16 bits."""
    values = np.asarray(image).astype(np.int64)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise UnreadableObjectError(f"{path}: values from {values.min()} to {values.max()}, not 16 bits")
    return values


def read_depth_bits(path: Path) -> np.ndarray:
    """A picture (H, W) whose 16 bits are those of a float16, as float32."""
    with reading(path), Image.open(path) as image:
        if image.mode not in ("I;16", "I") or image.width * image.height > MAX_PIXELS:
            raise UnreadableObjectError(f"{path}: a {image.size} picture of mode {image.mode}, not one of 16 bits")
        return np.array(image).astype(np.uint16).view(np.float16).astype(np.float32)


def read_square_pictures(paths: Sequence[Path], background: Sequence[float]) -> np.ndarray:
    """Square pictures of one size as (n, 3, S, S) uint8, over `background` (RGB in [0, 1]) where transparent."""
    pictures: list[np.ndarray] = []
    for path in paths:
        picture = read_colours(path, background)
        height, width, _ = picture.shape
        if width != height:
            raise UnreadableObjectError(f"{path}: {width} x {height} pixels, not a square")
        if pictures and width != len(pictures[0]):
            raise UnreadableObjectError(f"{path}: {width} px, those before it {len(pictures[0])}")
        pictures.append(picture)
    return np.stack(pictures).transpose(0, 3, 1, 2)


def read_array(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """A .npy file of finite numbers, mapped; None in `shape` stands for any length."""
    with reading(path):
        return _checked(np.load(path, mmap_mode="r", allow_pickle=False), shape, path, "the array")


def read_members(path: Path, shapes: dict[str, tuple[int | None, ...]]) -> dict[str, np.ndarray]:
    """Arrays of a .npz archive by name; names that it lacks are left out."""
    with reading(path), zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        return {
            name: _checked(_member(archive, members[f"{name}.npy"], path), shape, path, name)
            for name, shape in shapes.items()
            if f"{name}.npy" in members
        }


def member_names(path: Path) -> set[str]:
    """The arrays in a .npz archive."""
    with reading(path), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}


def read_json(path: Path) -> Any:
    """A JSON file, or a gzip of one where it is called .jgz."""
    content = _expanded(path) if path.suffix == ".jgz" else read_bytes(path)
    with reading(path):
        return json.loads(content)


def _expanded(path: Path) -> bytes:
    """Contents of a gzip file; raises `UnreadableObjectError` where they exceed the allowed size."""
    pieces, total = [], 0
    with reading(path):
        limit = max(MAX_TEXT_BYTES, MAX_EXPANSION * path.stat().st_size)
        try:
            with gzip.open(path) as stream:
                while piece := stream.read(_CHUNK):
                    total += len(piece)
                    if total > limit:
                        raise UnreadableObjectError(f"{path}: expands to more than {limit} bytes")
                    pieces.append(piece)
        except (EOFError, zlib.error) as error:
            raise UnreadableObjectError(f"{path}: damaged or cut off: {error}") from error
    return b"".join(pieces)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray:
    """One array of an archive; its header, which determines the allocation, must match the member's size."""
    if info.file_size > max(MAX_TEXT_BYTES, MAX_EXPANSION * path.stat().st_size):
        raise UnreadableObjectError(f"{path}: {info.filename} expands to {info.file_size} bytes")
    content = archive.read(info)
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject or stream.tell() + dtype.itemsize * int(np.prod(shape, dtype=object)) != len(content):
        raise UnreadableObjectError(f"{path}: {info.filename} is not {shape} of {dtype}")
    return npy.read_array(io.BytesIO(content), allow_pickle=False)


def _checked(array: np.ndarray, shape: tuple[int | None, ...], path: Path, what: str) -> np.ndarray:
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiu":
        wanted = " x ".join("any" if length is None else str(length) for length in shape)
        raise UnreadableObjectError(f"{path}: {what} is {array.dtype} {array.shape}, not numbers {wanted}")
    return finite(array, path, f"a value of {what}")
