"""Building a store beside its place, object by object, so that a killed import goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from numpy.lib.format import open_memmap

from jobs.data.store import OBJECT_COLUMNS, SPLITS, Frames, Manifest, Skipped, fingerprint, frame_shape

JOURNAL = "journal.jsonl"


class StoreWriter:
    """Builds a store in a sibling directory and renames it: a half-written one is never seen.

    Use as a context manager; `append` or `skip` the objects in order, then `finish`.  Leaving without `finish`,
    in whatever way, keeps what was written: the next writer with the same `identity` finds its objects `done`.

    The arrays have room for all frames from the start.  A journal names the objects that are in them, each with a
    checksum, so that nothing is taken for written that a crash of the machine lost.
    """

    def __init__(self, path: Path, capacity: int, identity: str) -> None:
        """`capacity`: the most frames that can come; `identity`: equal where the same objects would come."""
        self.path = path
        self.skipped: list[Skipped] = []
        self._header = {"identity": identity, "capacity": capacity}
        self._capacity = capacity
        self._rows: list[dict[str, Any]] = []
        self._arrays: dict[str, np.memmap] = {}
        self._used = 0

    @property
    def done(self) -> int:
        """How many objects were appended or skipped, by earlier writers as well."""
        return len(self._rows) + len(self.skipped)

    def __enter__(self) -> StoreWriter:
        self._building = partial_path(self.path)
        if self._building.exists() and not self._resume():
            self.discard()
        if not self._building.exists():
            self._building.mkdir(parents=True)
            self._record(self._header)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arrays.clear()

    def append(self, frames: Frames, *, name: str, split: str, category: str, geometry: str) -> None:
        """Add one object.  Raises ValueError where its arrays do not fit each other or earlier objects."""
        if split not in SPLITS:
            raise ValueError(f"object {name!r} has split {split!r}; allowed: {', '.join(SPLITS)}")
        arrays = frames.arrays()
        self._check(name, arrays)
        if not self._arrays:
            self._arrays = {key: self._allocate(key, array) for key, array in arrays.items()}
        row = (name, split, self._used, len(frames.images), category, geometry)
        values = dict(zip(OBJECT_COLUMNS, row, strict=True))
        for key, array in arrays.items():
            self._arrays[key][_span(values)] = array
        self._record({"row": values, "checksum": self._checksum(values)})
        self._rows.append(values)
        self._used += len(frames.images)

    def skip(self, name: str, reason: str) -> None:
        """Note an object that cannot be read."""
        entry = Skipped(object=name, reason=reason)
        self._record({"skipped": entry.model_dump()})
        self.skipped.append(entry)

    def finish(self, **facts: Any) -> None:
        """Seal the store.  `facts` are the fields of `Manifest` that the writer does not know itself."""
        if not self._rows:
            raise ValueError(f"no object for {self.path}: a store needs at least one")
        objects = pd.DataFrame(self._rows)
        arrays = {name: array[: self._used] for name, array in self._arrays.items()}
        counts = {split: int((objects["split"] == split).sum()) for split in SPLITS}
        manifest = Manifest(**facts, counts=counts, skipped=self.skipped, fingerprint="")
        manifest = manifest.model_copy(update={"fingerprint": fingerprint(arrays, objects, manifest)})
        objects.to_parquet(self._building / "objects.parquet", index=False)
        (self._building / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
        for name, array in self._arrays.items():
            array.flush()
            _shorten(self._building / f"{name}.npy", self._used)
        for file in self._building.iterdir():
            _sync(file)
        self._building.rename(self.path)
        (self.path / JOURNAL).unlink()
        _sync(self.path.parent)

    def discard(self) -> None:
        """Remove what was written: the next import starts afresh."""
        self._arrays, self._rows, self.skipped, self._used = {}, [], [], 0
        shutil.rmtree(self._building)

    def _resume(self) -> bool:
        """Take over what an earlier writer left; False where that is of another import, or damaged from the start."""
        lines = _complete_lines(self._building / JOURNAL)
        if not lines or lines[0] != self._header:
            return False
        good = 1
        for entry in lines[1:]:
            if "skipped" in entry:
                self.skipped.append(Skipped(**entry["skipped"]))
            elif self._reopen() and self._checksum(entry["row"]) == entry["checksum"]:
                self._rows.append(entry["row"])
                self._used += entry["row"]["num_frames"]
            else:
                break
            good += 1
        text = "".join(json.dumps(line) + "\n" for line in lines[:good])
        (self._building / JOURNAL).write_text(text, "utf-8")
        return True

    def _reopen(self) -> bool:
        """Map the arrays that are there; False where one is damaged or was cut already."""
        if not self._arrays:
            try:
                found = {file.stem: open_memmap(file, mode="r+") for file in sorted(self._building.glob("*.npy"))}
            except (OSError, ValueError):
                return False
            if any(len(array) != self._capacity for array in found.values()):
                return False
            self._arrays = found
        return bool(self._arrays)

    def _record(self, entry: Mapping[str, Any]) -> None:
        with (self._building / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _checksum(self, row: Mapping[str, Any]) -> int:
        """CRC-32 of one object's part of all arrays."""
        value = 0
        for name in sorted(self._arrays):
            value = zlib.crc32(np.ascontiguousarray(self._arrays[name][_span(row)]).data, value)
        return value

    def _check(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        count, side = len(arrays["images"]), arrays["images"].shape[-1]
        if self._used + count > self._capacity:
            raise ValueError(f"object {name!r}: more frames than the announced {self._capacity}")
        for key, array in arrays.items():
            if array.shape != (count, *frame_shape(key, side)):
                expected = (count, *frame_shape(key, side))
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


def partial_path(path: Path) -> Path:
    """Where the store `path` is built."""
    return path.with_name(f".{path.name}.partial")


def _span(row: Mapping[str, Any]) -> slice:
    """An object's frames in the arrays."""
    return slice(row["first_frame"], row["first_frame"] + row["num_frames"])


def _complete_lines(journal: Path) -> list[Any]:
    """The journal's entries up to the first that is torn."""
    entries: list[Any] = []
    if journal.exists():
        for line in journal.read_text("utf-8", errors="replace").splitlines(keepends=True):
            try:
                entries.append(json.loads(line if line.endswith("\n") else ""))
            except ValueError:
                break
    return entries


def _shorten(file: Path, length: int) -> None:
    """Cut a .npy file to its first `length` rows, in place: numpy leaves room in the header for the first axis."""
    with file.open("r+b") as stream:
        npy.read_magic(stream)
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
        start = stream.tell()
        stream.seek(0)
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": fortran_order, "shape": (length, *shape[1:])}
        npy.write_array_header_1_0(stream, header)
        assert stream.tell() == start
        stream.truncate(start + length * int(np.prod(shape[1:])) * dtype.itemsize)


def _sync(path: Path) -> None:
    """Have the file's bytes, or the directory's entries, reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
