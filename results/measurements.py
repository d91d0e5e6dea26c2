"""Per-object scores of a trial as columns, and the home's cache of them.

A trial records its scores as Parquet.  Reading that needs pyarrow, whose import takes longer than a command that only
looks should.  So the first reader keeps a copy, named after the Parquet file's SHA-256.  It holds the columns as
safetensors, behind their own SHA-256.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from results.records.atomic import PARTIAL
from results.records.hashing import file_sha256

if TYPE_CHECKING:
    import pyarrow as pa

#: columns of text, each as indices of its distinct values; `category` is that of the object, "" where not recorded
TEXT_COLUMNS = ("object", "category", "split", "view_kind", "metric")
#: columns that trials of earlier versions lack
_LATER = frozenset({"category"})
COLUMNS = (*TEXT_COLUMNS, "value")

Codes = NDArray[np.int32]

_DIGEST = 32  # bytes of a SHA-256


@dataclass(frozen=True)
class Texts:
    """A column of text: `names[codes]`."""

    codes: Codes  # (N,)
    names: tuple[str, ...]  # distinct

    def used(self) -> set[str]:
        """The distinct texts that occur."""
        return {self.names[code] for code in np.unique(self.codes)}

    def among(self, wanted: Iterable[str]) -> NDArray[np.bool_]:
        """(N,): whether an entry is one of `wanted`."""
        chosen = set(wanted)
        return np.array([name in chosen for name in self.names], bool)[self.codes]

    def where(self, chosen: NDArray[np.bool_]) -> Texts:
        """The entries that are `chosen` (N,)."""
        return Texts(self.codes[chosen], self.names)

    @classmethod
    def joined(cls, columns: Sequence[Texts]) -> Texts:
        """The columns below each other."""
        places: dict[str, int] = {}
        parts = [
            np.array([places.setdefault(name, len(places)) for name in column.names], np.int32)[column.codes]
            for column in columns
        ]
        return cls(np.concatenate(parts) if parts else np.empty(0, np.int32), tuple(places))

    @classmethod
    def repeated(cls, names: Sequence[str], counts: Sequence[int]) -> Texts:
        """Each name, repeated by its count."""
        places = {name: place for place, name in enumerate(dict.fromkeys(names))}
        codes = np.array([places[name] for name in names], np.int32)
        return cls(np.repeat(codes, counts), tuple(places))


@dataclass(frozen=True)
class Measurements:
    """Scores of one trial: one entry per object, view kind and metric."""

    object: Texts
    category: Texts
    split: Texts
    view_kind: Texts
    metric: Texts
    value: NDArray[np.float64]  # (N,)

    def __len__(self) -> int:
        return len(self.value)

    @classmethod
    def joined(cls, parts: Sequence[Measurements]) -> Measurements:
        """The scores of several trials below each other."""
        texts = {name: Texts.joined([getattr(part, name) for part in parts]) for name in TEXT_COLUMNS}
        return cls(**texts, value=np.concatenate([np.empty(0), *(part.value for part in parts)]))


def read_measurements(path: Path, cache: Path) -> Measurements:
    """The scores in a Parquet file, from the copy in the folder `cache` where there is one.

    Raises `ValueError` naming the file and the problem.
    """
    copy = cache / f"{file_sha256(path)}.columns"
    found = _read_copy(copy)
    if found is None:
        found = _read_parquet(path)
        with suppress(OSError):  # a home that may not be written is read all the same
            _write_copy(copy, found)
    return found


def _read_copy(path: Path) -> Measurements | None:
    """The copy at `path`; None where there is none, or it is damaged."""
    try:
        content = path.read_bytes()
        if sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        arrays = load(content[_DIGEST:])
        names = json.loads(arrays["names"].tobytes())
        return Measurements(
            **{name: Texts(arrays[name], tuple(names[name])) for name in TEXT_COLUMNS}, value=arrays["value"]
        )
    except (OSError, KeyError):
        return None


def _write_copy(path: Path, scores: Measurements) -> None:
    """Writes a copy under a temporary name and renames it; it is not synced, since it can be made again."""
    columns: dict[str, Texts] = {name: getattr(scores, name) for name in TEXT_COLUMNS}
    names = json.dumps({name: column.names for name, column in columns.items()}).encode()
    arrays: dict[str, NDArray[Any]] = {name: column.codes for name, column in columns.items()}
    arrays |= {"names": np.frombuffer(names, np.uint8), "value": scores.value}
    tensors = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}{PARTIAL}")
    try:
        partial.write_bytes(sha256(tensors).digest() + tensors)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _read_parquet(path: Path) -> Measurements:
    import pyarrow as pa

    try:
        return _of_table(_table(path))
    except (pa.ArrowException, NotImplementedError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be used: {why}") from error


def _table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    there = [column for column in COLUMNS if column in metadata.schema.names]
    missing = [column for column in COLUMNS if column not in there and column not in _LATER]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    texts = [column for column in there if column in TEXT_COLUMNS]
    # Pre-buffering suits remote stores: it makes reading files of some kilobytes three times slower.
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts, pre_buffer=False) as file:
        table = file.read(there, use_threads=False)
    kinds = [(name, pa.dictionary(pa.int32(), pa.string())) for name in texts]
    return table.cast(pa.schema([*kinds, ("value", pa.float64())])).combine_chunks()


def _of_table(table: pa.Table) -> Measurements:
    """The columns of a table; raises `TypeError` for a text that is absent."""
    texts = {}
    for name in TEXT_COLUMNS:
        if name not in table.column_names:
            texts[name] = Texts.repeated([""], [len(table)])
            continue
        if table[name].null_count:
            raise TypeError(f"column {name} has empty entries")
        parts = [Texts(chunk.indices.to_numpy(), tuple(chunk.dictionary.to_pylist())) for chunk in table[name].chunks]
        texts[name] = Texts.joined(parts)
    return Measurements(**texts, value=table["value"].to_numpy())
