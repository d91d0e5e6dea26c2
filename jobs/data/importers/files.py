"""Reading what others wrote: every file may be missing, cut off, hostile or not what its name says.

All functions raise `UnreadableObjectError` with the file's name and what is wrong with it.  They check sizes before
they allocate, unpickle nothing, and follow no path out of the folder that it is stated in.
"""

from __future__ import annotations

import gzip
import io
import json
import posixpath
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from jobs.data.importers.base import UnreadableObjectError

#: More are not read: pictures of datasets have a few million pixels, bombs have billions.
MAX_PIXELS = 2**26
MAX_TEXT_BYTES = 64 * 2**20
#: JSON shrinks by ten to twenty when compressed, a bomb by a thousand.
MAX_EXPANSION = 100
_CHUNK = 2**20

_COLOUR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns what reading `path` raises into one kind of error that names it."""
    try:
        yield
    except UnreadableObjectError:
        raise
    # Decoders of damaged files raise most of what there is: OSError, SyntaxError, struct.error, MemoryError, ...
    except Exception as error:
        raise UnreadableObjectError(f"{path}: {type(error).__name__}: {error}") from error


def inside(root: Path, relative: object, stated_in: Path) -> Path:
    """The path under `root` that a file states, which must not lead out of it."""
    if not isinstance(relative, str) or not relative or "\0" in relative:
        raise UnreadableObjectError(f"{stated_in}: {relative!r} is not a path")
    normal = posixpath.normpath(relative.replace("\\", "/"))
    if normal.startswith(("/", "../")) or normal == ".." or Path(normal).is_absolute() or ":" in normal.split("/")[0]:
        raise UnreadableObjectError(f"{stated_in}: the path {relative!r} leads out of {root}")
    return root / normal


def read_bytes(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The whole file, of at most `limit` bytes."""
    with _naming(path):
        size = path.stat().st_size
        if size > limit:
            raise UnreadableObjectError(f"{path}: {size} bytes, more than {limit}")
        return path.read_bytes()


def read_text(path: Path) -> str:
    """A UTF-8 file."""
    content = read_bytes(path)
    with _naming(path):
        return content.decode("utf-8-sig")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that say something, stripped."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_floats(path: Path, count: int) -> np.ndarray:
    """Numbers (count,) float64, divided by any white space."""
    return parse_floats(read_text(path), count, path)


def parse_floats(text: str, count: int, path: Path) -> np.ndarray:
    """`count` finite numbers of `text`, which is from `path`."""
    words = text.split()
    with _naming(path):
        values = np.array([float(word) for word in words])
    if len(values) != count:
        raise UnreadableObjectError(f"{path}: {len(values)} numbers, not {count}")
    return finite(values, path)


def finite(values: np.ndarray, path: Path, what: str = "a number") -> np.ndarray:
    """`values`, of which none is NaN or infinite."""
    if not np.isfinite(values).all():
        raise UnreadableObjectError(f"{path}: {what} is not finite")
    return values


def read_image(path: Path) -> Image.Image:
    """A decoded picture with 8 bits a channel."""
    with _naming(path), Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableObjectError(f"{path}: {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        if image.mode not in _COLOUR_MODES:
            raise UnreadableObjectError(f"{path}: pixels of mode {image.mode}; allowed: {', '.join(_COLOUR_MODES)}")
        image.load()
        return image.copy()


def read_depth_bits(path: Path) -> np.ndarray:
    """A picture (H, W) whose 16 bits are those of a float16, as float32."""
    with _naming(path), Image.open(path) as image:
        if image.mode not in ("I;16", "I") or image.width * image.height > MAX_PIXELS:
            raise UnreadableObjectError(f"{path}: a {image.size} picture of mode {image.mode}, not one of 16 bits")
        return np.array(image).astype(np.uint16).view(np.float16).astype(np.float32)


def read_square_pictures(paths: Sequence[Path]) -> np.ndarray:
    """Square pictures of one size as (n, 3, S, S) uint8; alpha is dropped."""
    pictures: list[np.ndarray] = []
    for path in paths:
        picture = read_image(path).convert("RGB")
        if picture.width != picture.height:
            raise UnreadableObjectError(f"{path}: {picture.width} x {picture.height} pixels, not a square")
        if pictures and picture.width != len(pictures[0]):
            raise UnreadableObjectError(f"{path}: {picture.width} px, those before it {len(pictures[0])}")
        pictures.append(np.asarray(picture))
    return np.stack(pictures).transpose(0, 3, 1, 2)


def read_array(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """A .npy file of finite numbers, mapped; None in `shape` stands for any length."""
    with _naming(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _checked(array, shape, path, "the array")


def read_members(path: Path, shapes: dict[str, tuple[int | None, ...]]) -> dict[str, np.ndarray]:
    """Arrays of a .npz archive by name; names that it lacks are left out."""
    with _naming(path), zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        return {
            name: _checked(_member(archive, members[f"{name}.npy"], path), shape, path, name)
            for name, shape in shapes.items()
            if f"{name}.npy" in members
        }


def member_names(path: Path) -> set[str]:
    """The arrays in a .npz archive."""
    with _naming(path), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def read_json(path: Path) -> Any:
    """A JSON file, or a gzip of one where it is called .jgz."""
    content = _expanded(path) if path.suffix == ".jgz" else read_bytes(path)
    with _naming(path):
        return json.loads(content)


def _expanded(path: Path) -> bytes:
    """What a gzip file holds, as long as it is not suspiciously much."""
    pieces, total = [], 0
    with _naming(path):
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
    """One array of an archive; its header, which decides what is allocated, must fit the member's size."""
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
