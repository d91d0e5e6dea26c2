"""Everything that is special about a device, beside the training loop."""

from __future__ import annotations

import torch

from model.native.accelerate import accelerate
from model.scenes import Reconstructor

#: The first version whose group norm takes channels last on a GPU; before, every layer turns its input round.
_CHANNELS_LAST_ON_CUDA = (2, 15)


def prepare(network: Reconstructor, device: torch.device) -> Reconstructor:
    """Move `network` to a device, in the layout and with the layers that are fastest there; returns it."""
    network.to(device).to(memory_format=memory_format(device))
    if network.main_network is not None and device.type == "cpu":
        accelerate(network.main_network)
    return network


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout of feature maps and convolution weights in which eager torch is fastest."""
    if device.type == "cuda" and torch_version() < _CHANNELS_LAST_ON_CUDA:
        return torch.contiguous_format
    return torch.channels_last


def torch_version() -> tuple[int, int]:
    """Major and minor version of torch."""
    major, minor, *_ = torch.__version__.split(".")
    return int(major), int(minor)
