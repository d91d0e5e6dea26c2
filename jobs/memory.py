"""Memory: reuse between training steps on a CPU, and measurement of a trial's peak on a GPU."""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_UNLIMITED = 2**30


def keep_freed_memory() -> bool:
    """Makes the C library keep memory that this process frees, instead of returning it to the system.

    A step frees all memory that it allocated, and the next step allocates as much again.  New pages from the system
    cost some 5% of a small network's step.  The peak memory of the process does not change.  Returns whether it
    succeeded; the C library must be glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    parameters = (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)
    return all(mallopt(parameter, _UNLIMITED) == 1 for parameter in parameters)


# On a GPU


def free_gpu_memory(device: torch.device) -> int:
    """Bytes that this process can still use on a GPU: free ones, within its limit if it shares the GPU."""
    free, total = torch.cuda.mem_get_info(device)
    limit = torch.cuda.get_per_process_memory_fraction(device.index) * total  # takes no device without an index
    return max(min(free, int(limit) - torch.cuda.memory_reserved(device)), 0)


_caches_allowed, _has_cached = True, False


def may_cache(size: int, share: float, device: torch.device) -> bool:
    """Whether a copy of `size` bytes may stay on a GPU, for speed: it takes at most this share of the free memory."""
    global _has_cached
    fits = _caches_allowed and size <= share * free_gpu_memory(device)
    _has_cached = _has_cached or fits
    return fits


def has_gpu_caches() -> bool:
    """Whether this process has copies on a GPU that it can do without."""
    return _has_cached


@contextmanager
def without_gpu_caches() -> Iterator[None]:
    """In the body, no copy may stay on a GPU."""
    global _caches_allowed, _has_cached
    _caches_allowed = _has_cached = False
    try:
        yield
    finally:
        _caches_allowed = True


#: Messages of CUDA's libraries and of Triton when they, not torch's allocator, run out of memory.
_OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",  # cuDNN 9
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that led to it, reports that a GPU is out of memory; other trials may be the reason."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY):
        return True
    # A capture that runs out of memory raises a second error where it ends.
    former = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return former is not None and is_out_of_memory(former)


_former_peak = 0  # bytes; before the last `reset_gpu_peak`


def watch_gpu_memory() -> None:
    """Reset `peak_gpu_memory`; releases memory that an earlier trial of this process left cached."""
    global _former_peak
    _former_peak = 0
    if torch.cuda.is_initialized():
        gc.collect()
        torch._C._cuda_clearCublasWorkspaces()  # one for each stream that was used
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_memory() -> int:
    """Peak of bytes that torch reserved on the GPU since `watch_gpu_memory`; 0 if it has not used one."""
    return max(_former_peak, int(torch.cuda.max_memory_reserved())) if torch.cuda.is_initialized() else 0


def reset_gpu_peak(device: torch.device) -> None:
    """Reset torch's own peak, to measure a part of the work; `peak_gpu_memory` stays that of the whole."""
    global _former_peak
    _former_peak = peak_gpu_memory()
    torch.cuda.reset_peak_memory_stats(device)
