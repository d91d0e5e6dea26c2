"""Memory: what becomes of it between the steps of training, and how much of a GPU a trial takes."""

from __future__ import annotations

import ctypes
import gc
import platform

import torch

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


# On a GPU

#: What CUDA's libraries say where torch's own allocator did not have to.
_OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU has no memory left, which says nothing of the trial beside others."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def watch_gpu_memory() -> None:
    """From here on `peak_gpu_memory` counts; memory that an earlier trial of this process left cached is given back."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_memory() -> int:
    """The most bytes that torch reserved on the GPU since `watch_gpu_memory`; 0 where it has not used one."""
    return int(torch.cuda.max_memory_reserved()) if torch.cuda.is_initialized() else 0
