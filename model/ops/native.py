"""Finds our compiled kernels and gives their C interface types.

The library is built by the installation of the project (`csrc/`, `[[tool.setuptools.ext-modules]]`); it is plain C
functions, so it depends on neither Python's nor torch's ABI, and calls release the GIL.  Without it, or on processors
it has no code for, torch's own operators do the same work.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import importlib.machinery
import itertools
from pathlib import Path

#: Of `layer_interface_version()` in csrc/layer.cpp; raised together.
INTERFACE_VERSION = 3
#: Channels that a kernel can take, `kMaxChannels` of csrc/layer.hpp.
MAX_CHANNELS = 4096

_INTEGERS = ("images", "height", "width", "inputs", "outputs", "threads", "kernels", "side", "groups", "silu")
_POINTERS = ("x", "gain", "offset", "weight", "bias", "residual", "moments", "active")
_BUFFERS = ("x", "other", "y", "gain", "offset", "weight", "bias", "moments", "active", "key")
_RUN = ("count", "threads", "buffer_count", "largest_map")
_GRADIENTS = ("by_y", "by_x", "by_gain", "by_offset", "by_weight", "by_bias", "by_residual")


class Layer(ctypes.Structure):
    """`layer::Layer` of csrc/layer.hpp, field by field; each takes eight bytes."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in (*_INTEGERS, "drop_below")]
        + [("key", ctypes.c_uint64)]
        + [(name, ctypes.c_double) for name in ("keep_scale", "eps", "scale")]
        + [(name, ctypes.c_void_p) for name in _POINTERS]
    )


class Gradients(ctypes.Structure):
    """`layer::Gradients` of csrc/layer.hpp, field by field."""

    _fields_ = [(name, ctypes.c_void_p) for name in _GRADIENTS]


class Kind(enum.IntEnum):
    """`layer::Kind` of csrc/program.hpp."""

    LAYER = 0
    HALVE = 1
    REPEAT = 2
    JOIN = 3
    ATTEND = 4
    READ = 5


class Step(ctypes.Structure):
    """`layer::Step` of csrc/program.hpp, field by field."""

    _fields_ = [*((name, ctypes.c_int64) for name in ("kind", *_BUFFERS, "count")), ("layer", Layer)]


class Run(ctypes.Structure):
    """`layer::Run` of csrc/program.hpp, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _RUN),
        *((name, ctypes.c_void_p) for name in ("steps", "buffers", "keys")),
    ]


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """The library, loaded at first use; None where it is not built, or of another version than this code."""
    folder = Path(__file__).parent
    candidates = [folder / f"_layer{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
        version = library.layer_interface_version
    except (OSError, AttributeError):
        return None
    version.restype = ctypes.c_int64
    if version() != INTERFACE_VERSION:
        return None
    pointer = ctypes.c_void_p
    library.layer_kernels.restype = ctypes.c_char_p
    library.layer_kernels.argtypes = [ctypes.c_int64]
    library.layer_lanes.restype = ctypes.c_int64
    library.layer_lanes.argtypes = [ctypes.c_int64]
    library.layer_forward.argtypes = [ctypes.POINTER(Layer), pointer, pointer]
    library.layer_backward.argtypes = [ctypes.POINTER(Layer), ctypes.POINTER(Gradients), pointer]
    library.layer_run.argtypes = [ctypes.POINTER(Run), pointer]
    library.layer_run_backward.argtypes = [ctypes.POINTER(Run), pointer, pointer]
    return library


@functools.cache
def available_kernels() -> dict[str, int]:
    """The kernels that this processor can run, fastest first (of avx512, avx2), and how many channels each takes.

    Numbers of channels must be multiples of that.  Empty where the library is missing.
    """
    library = load_library()
    if library is None:
        return {}
    names = itertools.takewhile(bool, map(library.layer_kernels, itertools.count()))
    return {name.decode(): library.layer_lanes(index) for index, name in enumerate(names)}


@functools.cache
def parallel() -> ctypes.c_void_p | None:
    """`GOMP_parallel`, through which the kernels borrow the threads of torch; None where there is no libgomp.

    Torch has loaded libgomp already, and the loader gives the same copy again by its name.
    """
    try:
        return ctypes.cast(ctypes.CDLL("libgomp.so.1").GOMP_parallel, ctypes.c_void_p)
    except (OSError, AttributeError):
        return None
