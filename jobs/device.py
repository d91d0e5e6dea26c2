"""Devices: their choice and state, and the layout of networks and losses that is fastest on each."""

from __future__ import annotations

import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from model.group_norm import fuse, is_fusible
from model.losses.base import Loss
from model.native.accelerate import accelerate
from model.scenes import Reconstructor
from results.records.arithmetic import Execution, Precision

#: The first torch version whose own group norm supports channels last on a GPU; earlier ones transpose every input.
_CHANNELS_LAST_ON_CUDA = (2, 15)


def choose_device(wanted: str = "auto") -> torch.device:
    """The torch device of a name; "auto" is the GPU where there is one.

    A GPU that is named by its number becomes this process's current one, on which kernels and graphs run.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def processor() -> str:
    """The processor's name as reported by the operating system."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has done all that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class GpuLostError(RuntimeError):
    """A GPU no longer answers this process, after an error such as an access out of bounds; it may answer others."""


def require_gpu() -> None:
    """Raises `GpuLostError` where this process has used a GPU and can no longer; waits for the GPU."""
    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            raise GpuLostError(
                f"the GPU no longer answers this process, after a trial failed on it ({error}); "
                "run the same command again, for the other trials"
            ) from error


def prepare(network: Reconstructor, device: torch.device) -> Reconstructor:
    """Move `network` to a device, with the layout and the layers that are fastest there; returns it."""
    network.to(device).to(memory_format=memory_format(device, "eager"))
    if device.type == "cuda":
        fuse(network)
    elif network.main_network is not None and device.type == "cpu":
        accelerate(network.main_network)
    return network


def prepare_loss(loss: Loss, device: torch.device, precision: Precision) -> Loss:
    """Move a loss to a device, where its convolutions, if any, have the layout that is fastest; returns it."""
    loss.precision = precision
    if device.type == "cuda":
        # No group norm follows, so channels last are not converted back.
        loss.to(memory_format=torch.channels_last)
    return loss.to(device)


def memory_format(device: torch.device, execution: Execution) -> torch.memory_format:
    """The layout of feature maps and convolution weights that is fastest."""
    transposes = device.type == "cuda" and not is_fusible() and torch_version() < _CHANNELS_LAST_ON_CUDA
    channels_first = transposes and execution != "compiled"
    return torch.contiguous_format if channels_first else torch.channels_last


def torch_version() -> tuple[int, int]:
    """Major and minor version of torch."""
    major, minor, *_ = torch.__version__.split(".")
    return int(major), int(minor)


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the generators of dropout, in a hundredth of the time of `torch.manual_seed`, which seeds all devices."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


@contextmanager
def steady_memory(device: torch.device) -> Iterator[None]:
    """Excludes existing objects from garbage collection, on a GPU: a full collection stalls the kernel launches."""
    if device.type != "cuda":
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
