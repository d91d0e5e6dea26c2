"""The compiled kernels of this machine, for tests that run with each of them.

Where the library is not built, those tests fail or are skipped, and not the collection of all tests.
"""

from __future__ import annotations

from model.native import library
from model.native.library import KernelsMissingError


def rasteriser_kernels() -> tuple[str, ...]:
    """Names of the rasteriser's kernels; one that no library has where none is built, so that its tests fail."""
    try:
        return library.rasteriser_kernels()
    except KernelsMissingError:
        return ("not built",)


def layer_kernels() -> dict[str, int]:
    """The layers' kernels with their vector widths; empty where none is built."""
    try:
        return library.layer_kernels()
    except KernelsMissingError:
        return {}
