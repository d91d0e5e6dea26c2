"""Reads the tensors of a TorchScript archive without running any of its code.

Such a file is a zip with a pickle of the module's attributes, its storages as raw bytes, and source code.  The code is
never read; modules in the pickle become plain containers of their attributes, and only tensors are created.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Maximum size of the pickle of attributes; larger ones are rejected.
_MAX_PICKLE_BYTES = 64 * 2**20

_DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is such an archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The tensors of the module in the archive by their dotted names.

    Raises `pickle.UnpicklingError` where it creates anything but tensors, ValueError where it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).rpartition("/")[0]
        index = archive.getinfo(f"{root}/data.pkl")
        if index.file_size > _MAX_PICKLE_BYTES:
            raise ValueError(f"data.pkl has {index.file_size} bytes, more than {_MAX_PICKLE_BYTES}")
        module = _AttributeUnpickler(archive, root).load()
        return dict(_tensors(module, ""))


class _Module:
    """Holds the attributes of a module of any class."""


@dataclass(frozen=True)
class _Storage:
    content: bytes
    dtype: torch.dtype


class _AttributeUnpickler(pickle.Unpickler):
    """Reads modules' attributes and rejects every global that creates anything else."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive, self._root = archive, root
        self._storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuilt
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in ("build_intlist", "build_doublelist", "build_boollist"):
            return list
        raise pickle.UnpicklingError(f"the file requires {module}.{name}, which weights do not need")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"the file refers to {pid!r}, which is no storage")
        if key not in self._storages:
            content = self._archive.read(f"{self._root}/data/{key}")
            if len(content) != int(count) * dtype.itemsize:
                raise ValueError(f"storage {key} has {len(content)} bytes, not {count} of {dtype}")
            self._storages[key] = _Storage(content, dtype)
        return self._storages[key]


def _rebuilt(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor on a storage."""
    if math.prod(size) == 0:
        return torch.empty(size, dtype=storage.dtype)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if min(offset, *size, *stride, 0) < 0 or (last + 1) * storage.dtype.itemsize > len(storage.content):
        raise ValueError(f"a tensor of {tuple(size)} lies outside of its storage")
    flat = torch.frombuffer(bytearray(storage.content), dtype=storage.dtype)
    return flat.as_strided(tuple(size), tuple(stride), offset).contiguous()


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
