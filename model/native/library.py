"""Finds the compiled library and declares its C interface.

The installation of the project builds it (`csrc/`, `[[tool.setuptools.ext-modules]]`).  It consists of plain C
functions, so it depends on neither Python's nor torch's ABI.  It receives functions of the interpreter, which let
other Python threads run meanwhile, and end a call early when a signal handler raises (Ctrl-C).
"""

from __future__ import annotations

import ctypes
import enum
import functools
import importlib.machinery
import itertools
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

#: `native_interface_version()` in csrc/rasteriser/rasteriser.cpp; both are increased together.
INTERFACE_VERSION = 4
#: Maximum number of channels of a layer, `kMaxChannels` of csrc/layers/layer.hpp.
MAX_CHANNELS = 4096
#: `native::Status` of csrc/threads.hpp; ctypes itself reports a signal handler that raised.
STATUS_OUT_OF_MEMORY, STATUS_REFUSED = 1, 3

#: `splat::Stage` of csrc/rasteriser/draw.hpp, in the order of `Batch.seconds`.
STAGES = ("project", "sort", "rasterise", "rasterise backward", "collect", "project backward")

_INTERPRETER = ("PyEval_SaveThread", "PyEval_RestoreThread", "PyErr_CheckSignals")
_HOW_TO_BUILD = (
    "Install a C++17 compiler (g++ or clang++; on Debian and Ubuntu: apt install g++), then rebuild from the "
    "repository with: pip install --no-deps -e . (with -v the compiler's messages show)."
)


def _fields(integers: str = "", doubles: str = "", pointers: str = "") -> list[tuple[str, type]]:
    kinds = ((integers, ctypes.c_int64), (doubles, ctypes.c_double), (pointers, ctypes.c_void_p))
    return [(name, kind) for names, kind in kinds for name in names.split()]


class Batch(ctypes.Structure):
    """`splat::Batch` of csrc/rasteriser/batch.hpp, field by field; each takes eight bytes."""

    _fields_ = _fields(
        "scenes views gaussians coefficients height width antialiasing any_opacity threads kernels",
        "near_plane",
        "means scales rotations opacities sh background world_to_camera focal principal state "
        "parallel interpreter seconds",
    )


class Layer(ctypes.Structure):
    """`layers::Layer` of csrc/layers/layer.hpp, field by field; each takes eight bytes."""

    _fields_ = [
        *_fields("images height width inputs outputs kernels side groups silu drop_below"),
        ("key", ctypes.c_uint64),
        *_fields("", "keep_scale eps scale", "x gain offset weight bias residual moments conv_input"),
    ]


class StepKind(enum.IntEnum):
    """`layers::StepKind` of csrc/layers/graph_executor.hpp."""

    LAYER = 0
    AVG_POOL2 = 1
    UPSAMPLE2 = 2
    CONCAT = 3
    SELF_ATTENTION = 4
    DEPTH_CROSS_ATTENTION = 5


class Step(ctypes.Structure):
    """`layers::Step` of csrc/layers/graph_executor.hpp, field by field."""

    _fields_ = [
        *_fields("kind x other y gain offset weight bias moments conv_input key count"),
        ("layer", Layer),
    ]


class Run(ctypes.Structure):
    """`layers::Run` of csrc/layers/graph_executor.hpp, field by field."""

    _fields_ = _fields(
        "count threads buffer_count largest_map output_count",
        "",
        "steps buffers keys outputs parallel interpreter",
    )


class KernelsMissingError(ImportError):
    """The compiled library is missing, or of another version than the Python code."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the compiled CPU kernels {reason}. {_HOW_TO_BUILD} "
            "Without them the rasteriser 'reference' and torch's own layers do the same, slowly."
        )


@functools.cache
def load_library() -> ctypes.PyDLL:
    """The library, loaded at first use.  Raises `KernelsMissingError`, which describes how to build it."""
    folder = Path(__file__).parent
    names = [f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    places = (place / name for place in (folder, *_installed_folders()) for name in names)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise KernelsMissingError(f"are not built (no {names[0]} in {folder})")
    try:
        library = ctypes.PyDLL(str(path))  # the functions release the GIL themselves
        version = library.native_interface_version
    except (OSError, AttributeError) as error:
        raise KernelsMissingError(f"cannot be loaded ({error})") from error
    version.restype = ctypes.c_int64
    if version() != INTERFACE_VERSION:
        raise KernelsMissingError(f"have interface {version()}, this code needs {INTERFACE_VERSION}")
    _declare(library)
    return library


def _installed_folders() -> Iterator[Path]:
    """The folders of this package in its installation; a job runs a copy, without the compiled library."""
    try:
        found = metadata.distribution("splatsweep")
    except metadata.PackageNotFoundError:
        return
    yield Path(str(found.locate_file("model/native")))
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        yield Path(url2pathname(urlsplit(origin["url"]).path)) / "model" / "native"


@functools.cache
def rasteriser_kernels() -> tuple[str, ...]:
    """Names of the rasteriser's kernels that this processor can run, fastest first: of avx512, avx2, generic."""
    names = map(load_library().rasteriser_kernels, itertools.count())
    return tuple(name.decode() for name in itertools.takewhile(bool, names))


@functools.cache
def layer_kernels() -> dict[str, int]:
    """The layers' kernels that this processor can run, fastest first (avx512, avx2), with their vector widths.

    Numbers of channels must be multiples of the vector width.  Empty where the library is missing.
    """
    try:
        library = load_library()
    except KernelsMissingError:
        return {}
    names = itertools.takewhile(bool, map(library.layers_kernels, itertools.count()))
    return {name.decode(): library.layers_lanes(index) for index, name in enumerate(names)}


def why_no_layers() -> str | None:
    """The reason why this machine has no compiled layers; None where it has them."""
    try:
        load_library()
    except KernelsMissingError as error:
        return str(error)
    return None if layer_kernels() else "this processor has neither AVX2 nor AVX-512, which the compiled layers need"


@functools.cache
def gomp_parallel() -> int | None:
    """The address of `GOMP_parallel`, through which the library uses torch's threads; None without libgomp.

    Torch has already loaded libgomp, and the loader returns the same copy by its name.
    """
    try:
        return ctypes.cast(ctypes.CDLL("libgomp.so.1").GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None


class _Interpreter(ctypes.Structure):
    """`native::Interpreter` of csrc/threads.hpp."""

    _fields_ = _fields(pointers=" ".join(_INTERPRETER))


@functools.cache
def _interpreter() -> _Interpreter:
    functions = (getattr(ctypes.pythonapi, name) for name in _INTERPRETER)
    return _Interpreter(*(ctypes.cast(function, ctypes.c_void_p) for function in functions))


def interpreter() -> int:
    """The address of the interpreter's functions, valid as long as the process."""
    return ctypes.addressof(_interpreter())


def check(status: int) -> None:
    """Raise MemoryError if the status of a library call is out of memory."""
    if status == STATUS_OUT_OF_MEMORY:
        raise MemoryError("the compiled CPU kernels ran out of memory")


def _declare(library: ctypes.PyDLL) -> None:
    pointer = ctypes.c_void_p
    library.rasteriser_kernels.restype = ctypes.c_char_p
    library.rasteriser_kernels.argtypes = [ctypes.c_int64]
    library.rasteriser_state_size.restype = ctypes.c_int64
    library.rasteriser_state_size.argtypes = [ctypes.POINTER(Batch)]
    library.rasteriser_forward.argtypes = [ctypes.POINTER(Batch)] + [pointer] * 2
    library.rasteriser_backward.argtypes = [ctypes.POINTER(Batch)] + [pointer] * 8
    library.layers_kernels.restype = ctypes.c_char_p
    library.layers_kernels.argtypes = [ctypes.c_int64]
    library.layers_lanes.restype = ctypes.c_int64
    library.layers_lanes.argtypes = [ctypes.c_int64]
    library.layers_forward.argtypes = [ctypes.POINTER(Run)]
    library.layers_backward.argtypes = [ctypes.POINTER(Run), pointer]
