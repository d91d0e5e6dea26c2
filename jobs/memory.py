"""What becomes of memory between the steps of training."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_AS_MUCH_AS_THERE_IS = 2**30


def keep_freed_memory() -> bool:
    """Have the C library keep what this process frees, rather than hand it back to the system.

    A step frees all it has allocated, and the next one wants just as much: fetching it anew, page by page, costs
    some 5% of a small network's step.  The most memory that the process holds at a time stays the same.  Returns
    whether that could be arranged: the C library must be glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    parameters = (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)
    return all(mallopt(parameter, _AS_MUCH_AS_THERE_IS) == 1 for parameter in parameters)
