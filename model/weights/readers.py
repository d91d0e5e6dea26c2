"""From the bytes of a published file to named tensors.  Nothing here executes what a file says.

Each reader takes the file's bytes and returns tensors under the names that our modules load.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Indices of the convolutions in torchvision's `features`.
_ALEXNET_CONVOLUTIONS = (0, 3, 6, 8, 10)
_VGG16_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickled numpy arrays and refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        # numpy 2 moved the module; old files still name the old place.
        if (module, name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        }:
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which weights have no need of")


def _flax_convolutions(data: bytes, network: str, positions: tuple[int, ...]) -> dict[str, Tensor]:
    """`{network}/Conv_i/{kernel, bias}` with kernels HWIO -> `features` of torchvision, kernels OIHW."""
    layers: Mapping[str, Mapping[str, Any]] = _ArrayUnpickler(io.BytesIO(data)).load()[network]
    tensors = {}
    for index, position in enumerate(positions):
        kernel = np.asarray(layers[f"Conv_{index}"]["kernel"], dtype=np.float32).transpose(3, 2, 0, 1)
        bias = np.asarray(layers[f"Conv_{index}"]["bias"], dtype=np.float32)
        tensors[f"{position}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
        tensors[f"{position}.bias"] = torch.from_numpy(np.ascontiguousarray(bias))
    return tensors


def flax_vgg16(data: bytes) -> dict[str, Tensor]:
    """VGG16 as pickled flax parameters."""
    return _flax_convolutions(data, "VGG16_0", _VGG16_CONVOLUTIONS)


def flax_alexnet(data: bytes) -> dict[str, Tensor]:
    """AlexNet as pickled flax parameters."""
    return _flax_convolutions(data, "AlexNet_0", _ALEXNET_CONVOLUTIONS)


def plain_state_dict(data: bytes) -> dict[str, Tensor]:
    """A state dict saved by torch, under its own names."""
    state: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {name: tensor.contiguous() for name, tensor in state.items()}


def torchvision_features(data: bytes) -> dict[str, Tensor]:
    """The convolutions of a torchvision classifier, without the `features.` prefix."""
    prefix = "features."
    state = plain_state_dict(data)
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
