"""Builds a store beside its final path, object by object, so that a killed import can be resumed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from numpy.lib.format import open_memmap

from jobs.data.store import (
    OBJECT_COLUMNS,
    SPLITS,
    Frames,
    Manifest,
    Remark,
    Skipped,
    compute_checksum,
    fingerprint_of_recipe,
    frame_shape,
)
from results.records.disk import full_disk_explained

JOURNAL = "journal.jsonl"


class StoreWriter:
    """Builds a store in a sibling directory and renames it, so that partial stores are never visible.

    Use as a context manager; `append` or `skip` the objects, then `finish`.  Leaving without `finish`, in any
    way, keeps the written objects: the next writer with the same `identity` counts them as `done`, and `keep` selects
    those that are still valid.

    The arrays are allocated for all frames from the start, so that a disk that is too small is noticed at once; this
    and any full disk raise `DiskFullError`.  A journal lists the objects in the arrays, each with a checksum, so that
    data lost in a crash of the machine are detected.
    """

    def __init__(self, path: Path, capacity: int, identity: str) -> None:
        """`capacity`: upper bound of the frames; `identity`: equal for imports of the same objects."""
        self.path = path
        self._header = {"identity": identity}
        self._capacity = capacity
        self._entries: list[dict[str, Any]] = []  # of the journal, after the header
        self._arrays: dict[str, np.memmap] = {}
        self._used = 0  # used rows of the arrays
        self._frames = 0  # rows of valid objects among them

    @property
    def done(self) -> int:
        """Number of objects that were appended or skipped, including those of earlier writers."""
        return len(self._entries)

    @property
    def skipped(self) -> list[Skipped]:
        """The objects that could not be read."""
        return [Skipped(**entry["skipped"]) for entry in self._entries if "skipped" in entry]

    @property
    def remarks(self) -> list[Remark]:
        """Remarks on objects that were read successfully."""
        return [
            Remark(object=entry["row"]["object"], text=entry["remark"])
            for entry in self._entries
            if entry.get("remark")
        ]

    def names(self) -> set[str]:
        """The objects that were appended or skipped."""
        return {_name(entry) for entry in self._entries}

    def __enter__(self) -> StoreWriter:
        self._building = partial_path(self.path)
        with ExitStack() as stack:
            stack.enter_context(full_disk_explained(self._building))
            if self._building.exists() and not self._resume():
                self.discard()
            if not self._building.exists():
                self._building.mkdir(parents=True)
                self._record(self._header)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arrays.clear()
        self._exit.__exit__(kind, error, trace)

    def keep(self, stamps: Mapping[str, str]) -> None:
        """Drop objects of earlier writers that are not among `stamps` or had other stamps."""
        kept = [entry for entry in self._entries if stamps.get(_name(entry)) == entry.get("stamp", "")]
        if len(kept) == len(self._entries):
            return
        if not any("row" in entry for entry in kept):  # other objects may have arrays of other shapes
            self.discard()
            self._building.mkdir(parents=True)
        self._set_entries(kept)

    def append(
        self,
        frames: Frames,
        *,
        name: str,
        split: str,
        category: str,
        geometry: str,
        stamp: str = "",
        remark: str | None = None,
    ) -> None:
        """Add one object.  Raises ValueError where its arrays do not fit each other or earlier objects.

        stamp: changes when the object's source changes.
        """
        if split not in SPLITS:
            raise ValueError(f"object {name!r} has split {split!r}; allowed: {', '.join(SPLITS)}")
        arrays = frames.arrays()
        self._check(name, arrays)
        if not self._arrays:
            self._arrays = self._allocate(arrays)
        self._ensure_capacity(len(frames.images))
        row = (name, split, self._used, len(frames.images), category, geometry)
        values = dict(zip(OBJECT_COLUMNS, row, strict=True))
        for key, array in arrays.items():
            self._arrays[key][_span(values)] = array
        self._add({"row": values, "checksum": self._checksum(values), "stamp": stamp, "remark": remark})
        self._used += len(frames.images)
        self._frames += len(frames.images)

    def skip(self, name: str, reason: str, stamp: str = "") -> None:
        """Record an object that cannot be read."""
        self._add({"skipped": {"object": name, "reason": reason}, "stamp": stamp})

    def drop_skipped(self) -> None:
        """Remove the records of skipped objects, so that the next writer retries them; readable objects stay."""
        self._set_entries([entry for entry in self._entries if "row" in entry])

    def finish(self, order: Sequence[str] | None = None, recipe: Mapping[str, Any] | None = None, **facts: Any) -> None:
        """Complete the store.  `facts` are the fields of `Manifest` that the writer cannot determine itself.

        order: the objects' names; by default the order of writing.
        recipe: what pictures are rendered from, which identifies them; by default their content does.
        """
        rows = [dict(entry["row"]) for entry in self._entries if "row" in entry]
        if not rows:
            raise ValueError(f"no object for {self.path}: a store needs at least one")
        if order is not None:
            places = {name: place for place, name in enumerate(order)}
            rows.sort(key=lambda row: places[row["object"]])
        total = self._reorder(rows)
        objects = pd.DataFrame(rows)
        arrays = {name: array[:total] for name, array in self._arrays.items()}
        counts = {split: int((objects["split"] == split).sum()) for split in SPLITS}
        facts["remarks"] = [*self.remarks, *facts.get("remarks", [])]
        manifest = Manifest(**facts, counts=counts, skipped=self.skipped, fingerprint="")
        checksum = compute_checksum(arrays, objects, manifest)
        fingerprint = checksum if recipe is None else fingerprint_of_recipe(recipe, arrays, objects, manifest)
        manifest = manifest.model_copy(update={"fingerprint": fingerprint, "checksum": checksum})
        objects.to_parquet(self._building / "objects.parquet", index=False)
        (self._building / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
        for name, array in self._arrays.items():
            array.flush()
            _set_length(self._file(name), total)
        for file in self._building.iterdir():
            _sync(file)
        self._building.rename(self.path)
        (self.path / JOURNAL).unlink()
        _sync(self.path.parent)

    def discard(self) -> None:
        """Remove everything written, so that the next import starts anew."""
        self._arrays, self._entries, self._used, self._frames = {}, [], 0, 0
        shutil.rmtree(self._building)

    def _resume(self) -> bool:
        """Take over the intact objects of an earlier writer; False where its identity differs or has no record."""
        lines = _complete_lines(self._building / JOURNAL)
        if not lines or lines[0] != self._header:
            return False
        good = []
        for entry in lines[1:]:
            if "skipped" not in entry:
                row = entry["row"]
                if not self._reopen(row) or self._checksum(row) != entry["checksum"]:
                    break
                self._used = max(self._used, _span(row).stop)
            good.append(entry)
        self._resize(self._used)  # without reserved space, which what comes may not need
        self._set_entries(good)
        return True

    def _reopen(self, row: Mapping[str, Any]) -> bool:
        """Map the existing arrays; False where one is damaged or too short for an object's row."""
        if not self._arrays:
            try:
                self._arrays = self._mapped(sorted(path.stem for path in self._building.glob("*.npy")))
            except (OSError, ValueError):
                return False
        return bool(self._arrays) and all(_span(row).stop <= len(array) for array in self._arrays.values())

    def _mapped(self, names: Iterable[str]) -> dict[str, np.memmap]:
        return {name: open_memmap(self._file(name), mode="r+") for name in names}

    def _file(self, name: str) -> Path:
        return self._building / f"{name}.npy"

    def _ensure_capacity(self, count: int) -> None:
        """Extend the arrays to hold `count` more frames; the space of dropped objects is not reused."""
        if any(len(array) < self._used + count for array in self._arrays.values()):
            self._resize(self._used + max(count, self._capacity - self._frames))

    def _resize(self, length: int) -> None:
        names = list(self._arrays)
        self._arrays.clear()  # unmapped before the files change
        for name in names:
            _set_length(self._file(name), length)
        self._arrays = self._mapped(names)

    def _reorder(self, rows: Sequence[dict[str, Any]]) -> int:
        """Reorder the arrays in the order of `rows`, without gaps, and update `rows`; returns the number of frames."""
        starts = np.cumsum([0, *(row["num_frames"] for row in rows)]).tolist()
        if [row["first_frame"] for row in rows] != starts[:-1]:
            # The largest is first: the others fit into the space that it frees, so a full disk leaves all as they were.
            for name in sorted(self._arrays, key=lambda name: self._arrays[name].nbytes, reverse=True):
                array, file = self._arrays[name], self._file(name)
                ordered = file.with_suffix(".npy.ordered")
                with _all_or_none([ordered]):
                    target = _create(ordered, array.dtype, (starts[-1], *array.shape[1:]))
                for row, start in zip(rows, starts, strict=False):
                    target[start : start + row["num_frames"]] = array[_span(row)]
                target.flush()
                ordered.replace(file)
                self._arrays[name] = target
            for row, start in zip(rows, starts, strict=False):
                row["first_frame"] = start
        return int(starts[-1])

    def _set_entries(self, entries: list[dict[str, Any]]) -> None:
        """Replace the journal's entries."""
        self._entries = entries
        self._frames = sum(entry["row"]["num_frames"] for entry in entries if "row" in entry)
        self._rewrite_journal()

    def _add(self, entry: dict[str, Any]) -> None:
        self._record(entry)
        self._entries.append(entry)

    def _rewrite_journal(self) -> None:
        text = "".join(json.dumps(line) + "\n" for line in (self._header, *self._entries))
        temporary = self._building / f"{JOURNAL}.new"
        temporary.write_text(text, "utf-8")
        temporary.replace(self._building / JOURNAL)

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
        if self._frames + count > self._capacity:
            raise ValueError(f"object {name!r}: more frames than the announced {self._capacity}")
        for key, array in arrays.items():
            if array.shape != (count, *frame_shape(key, side)):
                expected = (count, *frame_shape(key, side))
                raise ValueError(f"object {name!r}: {key} has shape {array.shape}, not {expected}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"object {name!r}: {key} holds values that are not finite")
        if self._arrays and arrays.keys() != self._arrays.keys():
            raise ValueError(f"object {name!r} has {sorted(arrays)}, earlier objects {sorted(self._arrays)}")
        for key, kept in self._arrays.items():
            if arrays[key].shape[1:] != kept.shape[1:]:
                raise ValueError(f"object {name!r}: {key} is {arrays[key].shape[1:]}, before {kept.shape[1:]}")

    def _allocate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.memmap]:
        """Create the arrays, in shape like those of one object, for all frames."""
        with _all_or_none([self._file(name) for name in arrays]):
            return {
                name: _create(self._file(name), _stored_type(name, like), (self._capacity, *like.shape[1:]))
                for name, like in arrays.items()
            }


def partial_path(path: Path) -> Path:
    """The directory in which the store `path` is built."""
    return path.with_name(f".{path.name}.partial")


def _name(entry: Mapping[str, Any]) -> str:
    """The name of the object in an entry of the journal."""
    return str(entry["skipped" if "skipped" in entry else "row"]["object"])


def _span(row: Mapping[str, Any]) -> slice:
    """An object's frames in the arrays."""
    return slice(row["first_frame"], row["first_frame"] + row["num_frames"])


def _stored_type(name: str, array: np.ndarray) -> np.dtype:
    if name in ("images", "mask"):
        return np.dtype(np.uint8)
    return array.dtype if name == "depth" and array.dtype == np.float16 else np.dtype(np.float32)


def _create(file: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """A new array, mapped, whose space on the disk is reserved."""
    array = open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    with file.open("r+b") as stream:
        _reserve(stream, 0, file.stat().st_size)
    return array


@contextmanager
def _all_or_none(files: Sequence[Path]) -> Iterator[None]:
    """Remove `files` where not all of them can be created: on a full disk every byte counts."""
    try:
        yield
    except OSError:
        for file in files:
            file.unlink(missing_ok=True)
        raise


def _reserve(stream: BinaryIO, start: int, stop: int) -> None:
    """Allocate the disk space of a file's bytes, and extend it to them; on an error its length is as before.

    Where a write to a mapped page finds no space, the system kills the process.  A file system that cannot allocate in
    advance leaves the file as it is.
    """
    length = os.fstat(stream.fileno()).st_size
    try:
        os.posix_fallocate(stream.fileno(), start, stop - start)
    except OSError as error:
        stream.truncate(length)
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _complete_lines(journal: Path) -> list[Any]:
    """The journal's entries up to the first damaged one."""
    entries: list[Any] = []
    if journal.exists():
        for line in journal.read_text("utf-8", errors="replace").splitlines(keepends=True):
            try:
                entries.append(json.loads(line if line.endswith("\n") else ""))
            except ValueError:
                break
    return entries


def _set_length(file: Path, length: int) -> None:
    """Truncate or extend a .npy file to `length` rows, in place: numpy's header has room for the first axis."""
    with file.open("r+b") as stream:
        npy.read_magic(stream)
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
        start, end = stream.tell(), os.fstat(stream.fileno()).st_size
        size = start + length * int(np.prod(shape[1:])) * dtype.itemsize
        if size > end:
            _reserve(stream, end, size)
        stream.seek(0)
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": fortran_order, "shape": (length, *shape[1:])}
        npy.write_array_header_1_0(stream, header)
        assert stream.tell() == start
        stream.truncate(size)


def _sync(path: Path) -> None:
    """Sync the file's bytes, or the directory's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
