"""Code that depends on the device, as far as a CPU can test it."""

from __future__ import annotations

import gc

import pytest
import torch

from jobs.device import GpuLostError, memory_format, require_gpu, steady_memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_gpu_that_no_longer_answers_is_noticed(monkeypatch):
    def synchronize():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    require_gpu()  # this process has none
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    require_gpu()
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    with pytest.raises(GpuLostError, match="illegal memory access"):
        require_gpu()


def test_layout_is_chosen_by_device_and_version(monkeypatch):
    assert memory_format(CPU, "eager") == torch.channels_last
    for version, is_fusible, expected in (
        ("2.11.0+cu130", False, torch.contiguous_format),  # torch's own norm transposes channels last
        ("2.11.0+cu130", True, torch.channels_last),
        ("2.15.1", False, torch.channels_last),
    ):
        monkeypatch.setattr(torch, "__version__", version)
        monkeypatch.setattr("jobs.device.is_fusible", lambda is_fusible=is_fusible: is_fusible)
        assert memory_format(CUDA, "eager") == memory_format(CUDA, "graph") == expected
        assert memory_format(CUDA, "compiled") == torch.channels_last


def test_garbage_is_collected_as_ever_afterwards(monkeypatch):
    calls: list[str] = []
    for name in ("collect", "freeze", "unfreeze"):
        monkeypatch.setattr(gc, name, lambda name=name: calls.append(name))
    with steady_memory(CPU):
        assert not calls
    with steady_memory(CUDA):
        assert calls == ["collect", "freeze"]
    assert calls[-1] == "unfreeze"
