"""Code that depends on the device, as far as a CPU can test it."""

from __future__ import annotations

import gc
import platform
from pathlib import Path

import pytest
import torch

from jobs.device import (
    GpuLostError,
    choose_device,
    memory_format,
    prepare_loss,
    processor,
    require_gpu,
    seed_dropout,
    steady_memory,
)
from model.losses.l2 import L2
from model.weights import WeightStore

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


@pytest.mark.parametrize("is_there", [False, True])
def test_auto_is_the_gpu_where_there_is_one(is_there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    assert choose_device() == (CUDA if is_there else CPU)
    assert choose_device("cpu") == CPU


def test_a_gpu_that_is_named_by_its_number_is_the_current_one(monkeypatch):
    """Streams, graphs and Triton's kernels are those of the current one, wherever the tensors are."""
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("cpu", "cuda", "cuda:1"):
        assert choose_device(name) == torch.device(name)
    assert current == [torch.device("cuda:1")]


def test_the_processor_has_the_name_that_the_system_gives_it(monkeypatch):
    listed = "processor\t: 0\nmodel name\t: Xeon: 2 GHz\n\nprocessor\t: 1\nmodel name\t: another\n"
    monkeypatch.setattr(Path, "read_text", lambda *_: listed)
    assert processor() == "Xeon: 2 GHz"
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(Path, "read_text", lambda *_: "processor\t: 0\n")
    assert processor() == "arm64"
    monkeypatch.undo()
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    monkeypatch.setattr("jobs.device.Path", lambda _: Path("/nowhere"))
    assert processor() == "arm"


def test_dropout_depends_on_the_seed_alone():
    def drawn(seed: int) -> torch.Tensor:
        seed_dropout(seed, CPU)
        return torch.rand(4)

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    torch.manual_seed(4)
    assert torch.equal(torch.rand(4), drawn(4))


def test_a_loss_computes_in_the_precision_of_its_training(tmp_path):
    assert prepare_loss(L2(WeightStore(tmp_path)), CPU, "bf16").precision == "bf16"


def test_layout_is_chosen_by_device_and_version(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.11.0")
    monkeypatch.setattr("jobs.device.is_fusible", lambda: False)
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
