"""Finds our compiled kernels and gives their C interface types.

The library is built by the installation of the project (`csrc/`, `[[tool.setuptools.ext-modules]]`).  It is no Python
extension but plain C functions, so it depends on neither Python's nor torch's ABI.  It is handed the three functions of
the interpreter that it needs to let other Python threads run meanwhile, and to end early when a signal's handler
raises (Ctrl-C).
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import itertools
from pathlib import Path

#: Of `splat_interface_version()` in csrc/splat.cpp; raised together.
INTERFACE_VERSION = 3

_INTEGERS = (
    *("scenes", "views", "gaussians", "coefficients", "height", "width"),
    *("antialiasing", "any_opacity", "threads", "kernels"),
)
_POINTERS = (
    *("means", "scales", "rotations", "opacities", "sh", "background"),
    *("world_to_camera", "focal", "principal", "state", "parallel", "interpreter", "seconds"),
)
_INTERPRETER = ("PyEval_SaveThread", "PyEval_RestoreThread", "PyErr_CheckSignals")

#: `splat::Stage` of csrc/draw.hpp: what `Batch.seconds` is about.
STAGES = ("project", "sort", "rasterise", "rasterise backward", "collect", "project backward")


class KernelsMissingError(ImportError):
    """The compiled kernels are absent, or of another version than the Python code."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the CPU rasteriser's kernels {reason}. Install a C++17 compiler (g++ or clang++; "
            "on Debian and Ubuntu: apt install g++), then rebuild from the repository with: "
            "pip install --no-deps -e . "
            "(with -v the compiler's messages show). The backend 'reference' works without them, slowly."
        )


class Batch(ctypes.Structure):
    """`splat::Batch` of csrc/batch.hpp, field by field; each takes eight bytes."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in _INTEGERS]
        + [("near_plane", ctypes.c_double)]
        + [(name, ctypes.c_void_p) for name in _POINTERS]
    )


class _Interpreter(ctypes.Structure):
    """`splat::Interpreter` of csrc/team.hpp."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in _INTERPRETER)


@functools.cache
def interpreter() -> _Interpreter:
    """What `Batch.interpreter` points to; it lives as long as the process."""
    functions = (getattr(ctypes.pythonapi, name) for name in _INTERPRETER)
    return _Interpreter(*(ctypes.cast(function, ctypes.c_void_p) for function in functions))


@functools.cache
def load_library() -> ctypes.PyDLL:
    """The library, loaded at first use.  Raises `KernelsMissingError`, which says how to build it."""
    folder = Path(__file__).parent
    candidates = [folder / f"_splat{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise KernelsMissingError(f"are not built (no {candidates[0].name} in {folder})")
    try:
        library = ctypes.PyDLL(str(path))  # the functions release the lock themselves
        version = library.splat_interface_version
    except (OSError, AttributeError) as error:
        raise KernelsMissingError(f"cannot be loaded ({error})") from error
    version.restype = ctypes.c_int64
    if version() != INTERFACE_VERSION:
        raise KernelsMissingError(f"have interface {version()}, this code needs {INTERFACE_VERSION}")
    _declare(library)
    return library


@functools.cache
def available_kernels() -> tuple[str, ...]:
    """Names of the kernels that this processor can run, fastest first: of avx512, avx2, generic."""
    library = load_library()
    names = map(library.splat_kernels, itertools.count())
    return tuple(name.decode() for name in itertools.takewhile(bool, names))


def _declare(library: ctypes.PyDLL) -> None:
    pointer = ctypes.c_void_p
    library.splat_kernels.restype = ctypes.c_char_p
    library.splat_kernels.argtypes = [ctypes.c_int64]
    library.splat_state_size.restype = ctypes.c_int64
    library.splat_state_size.argtypes = [ctypes.POINTER(Batch)]
    library.splat_forward.argtypes = [ctypes.POINTER(Batch)] + [pointer] * 2
    library.splat_backward.argtypes = [ctypes.POINTER(Batch)] + [pointer] * 8
