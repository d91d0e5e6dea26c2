"""Freed memory stays with the process; a GPU's memory is measured, and its lack recognised."""

from __future__ import annotations

import platform
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from jobs import memory
from jobs.memory import (
    free_gpu_memory,
    has_gpu_caches,
    is_out_of_memory,
    may_cache,
    peak_gpu_memory,
    reset_gpu_peak,
    watch_gpu_memory,
    without_gpu_caches,
)

# In a separate process, because the setting cannot be undone.
FAULTS = """
import ctypes
import resource
from jobs.memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def use_and_free():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        block = libc.malloc(64 << 20)
        ctypes.memset(block, 1, 64 << 20)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = use_and_free()
assert keep_freed_memory()
use_and_free()
print(first, use_and_free())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is one of glibc's")
def test_memory_is_fetched_once():
    output = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True).stdout
    before, after = map(int, output.split())
    assert after < before / 10


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
@pytest.mark.parametrize(("free", "fraction", "found"), [(60, 1.0, 60), (60, 0.5, 30), (60, 0.05, 0)])
def test_a_share_of_a_gpu_has_no_more_than_its_limit(free, fraction, found, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10)
    # The fraction's own function reaches the library, with the number of a device.
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch._C, "_cuda_getMemoryFraction", lambda _number: fraction, raising=False)
    assert free_gpu_memory(torch.device(device)) == found


def test_copies_stay_where_they_take_at_most_a_share_of_what_is_free(monkeypatch):
    device = torch.device("cuda")
    monkeypatch.setattr(memory, "free_gpu_memory", lambda _: 100)
    monkeypatch.setattr(memory, "_has_cached", False)
    assert not may_cache(51, 0.5, device)
    assert not has_gpu_caches()
    assert may_cache(50, 0.5, device)
    assert not may_cache(51, 0.5, device)
    assert has_gpu_caches()
    with suppress(KeyError), without_gpu_caches():
        assert not may_cache(1, 0.5, device)
        assert not has_gpu_caches()
        raise KeyError
    assert may_cache(1, 0.5, device)


def raised(error: BaseException, after: BaseException | None = None, cause: BaseException | None = None, **more: bool):
    """An error that was raised while another was handled, and from a cause."""
    error.__context__, error.__cause__ = after, cause
    error.__suppress_context__ = more.get("suppress", False)
    return error


NO_MEMORY, OTHER = torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("capture failed")


@pytest.mark.parametrize(
    ("error", "is_lack"),
    [
        (NO_MEMORY, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (ValueError("CUDA error: out of memory"), False),
        (OTHER, False),
        (raised(RuntimeError("at its end"), after=NO_MEMORY), True),
        (raised(RuntimeError("at its end"), cause=raised(RuntimeError("before"), after=NO_MEMORY)), True),
        (raised(RuntimeError("from another"), after=NO_MEMORY, cause=OTHER), False),
        (raised(RuntimeError("from None"), after=NO_MEMORY, suppress=True), False),
    ],
)
def test_a_lack_of_memory_is_recognised_by_what_led_to_an_error(error, is_lack):
    assert is_out_of_memory(error) == is_lack


def test_the_peak_survives_a_measurement_of_a_part(monkeypatch):
    peak = SimpleNamespace(bytes=70)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: peak.bytes)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _=None: setattr(peak, "bytes", 5))
    reset_gpu_peak(torch.device("cuda"))
    assert peak_gpu_memory() == 70
    watch_gpu_memory()
    assert peak_gpu_memory() == 5
