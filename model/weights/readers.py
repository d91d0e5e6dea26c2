"""Reads published files as named tensors, without executing any of their content.

Each reader takes a path and returns `Published`, with tensors under the names that our modules load.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from model.weights import releases
from model.weights.torchscript import is_torchscript, read_torchscript

#: Format of our networks' files, as their metadata name it: name and version.
OWN_FORMAT = "splatsweep-1"

#: Further types in checkpoints of training scripts: scores as numpy scalars.
_NUMPY_SCALARS: list[Any] = [
    np.dtype,
    *((np._core.multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # type: ignore[attr-defined]
    *(type(np.dtype(name)) for name in ("float32", "float64", "int64")),
]

#: Files of a hub folder with the tensors, in one file or in a number of parts; the first kind that is whole is used.
HUB_TENSORS = (
    re.compile(r"model()\.safetensors"),
    re.compile(r"model-\d{5}-of-(\d{5})\.safetensors"),
    re.compile(r"pytorch_model()\.bin"),
    re.compile(r"pytorch_model-\d{5}-of-(\d{5})\.bin"),
)

#: Indices of the convolutions in torchvision's `features`.
_ALEXNET_CONVOLUTIONS = (0, 3, 6, 8, 10)
_VGG16_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


@dataclass(frozen=True)
class Published:
    """Published files of one name."""

    tensors: dict[str, Tensor]
    #: `config.json` of a hub folder: the architecture
    config: dict[str, Any] = field(default_factory=dict)
    #: `preprocessor_config.json` of a hub folder: how the input is scaled
    preprocessor: dict[str, Any] = field(default_factory=dict)
    #: author of the release, if its tensors had other names
    release: str | None = None


Reader = Callable[[Path], Published]


def reason_of(error: Exception) -> str:
    """Why a file could not be read, in one line; without torch's advice to read it unsafely."""
    refused = re.search(r"WeightsUnpickler error:\s*(.*)", str(error))
    if refused is None:
        lines = str(error).splitlines() or ["the file is empty or cut short" if isinstance(error, EOFError) else ""]
        return f"{type(error).__name__}: {lines[0]}"
    if required := re.search(r"GLOBAL (\S+)", refused[1]):
        return f"the file requires {required[1]}, which weights do not need"
    return f"no file that torch.save wrote, or damaged ({refused[1]})"


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickled numpy arrays and rejects every other global."""

    def find_class(self, module: str, name: str) -> Any:
        # numpy 2 moved the module; old files use its former path.
        if (module, name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        }:
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        raise pickle.UnpicklingError(f"the file requires {module}.{name}, which weights do not need")


def _flax_convolutions(path: Path, network: str, positions: tuple[int, ...]) -> Published:
    """`{network}/Conv_i/{kernel, bias}` with kernels HWIO -> `features` of torchvision, kernels OIHW."""
    with path.open("rb") as stream:
        layers: Mapping[str, Mapping[str, Any]] = _ArrayUnpickler(stream).load()[network]
    tensors = {}
    for index, position in enumerate(positions):
        kernel = np.asarray(layers[f"Conv_{index}"]["kernel"], dtype=np.float32).transpose(3, 2, 0, 1)
        bias = np.asarray(layers[f"Conv_{index}"]["bias"], dtype=np.float32)
        tensors[f"{position}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
        tensors[f"{position}.bias"] = torch.from_numpy(np.ascontiguousarray(bias))
    return Published(tensors)


def flax_vgg16(path: Path) -> Published:
    """VGG16 as pickled flax parameters."""
    return _flax_convolutions(path, "VGG16_0", _VGG16_CONVOLUTIONS)


def flax_alexnet(path: Path) -> Published:
    """AlexNet as pickled flax parameters."""
    return _flax_convolutions(path, "AlexNet_0", _ALEXNET_CONVOLUTIONS)


def state_dict(path: Path) -> Published:
    """A state dict under its own names, from safetensors or `torch.save`."""
    return Published(_tensors(path))


def torchvision_features(path: Path) -> Published:
    """The convolutions of a torchvision classifier in float32, without the `features.` prefix."""
    prefix, tensors = "features.", _tensors(path)
    return Published({name.removeprefix(prefix): t.float() for name, t in tensors.items() if name.startswith(prefix)})


def network(path: Path) -> Published:
    """A trained reconstruction network in float32: a published file, or one that `splatsweep export` wrote.

    The latter has its trial's configuration.  Raises ValueError for any other file.
    """
    config: dict[str, Any] = {}
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
        if facts.get("format") != OWN_FORMAT:
            raise ValueError(f"it is no network of the format {OWN_FORMAT}; `splatsweep export` writes such files")
        tensors, config = load_file(path), json.loads(facts["config"])
    else:
        from model.official import read_weights, recognise  # they import networks

        tensors = read_weights(training_checkpoint(path))
        recognise(tensors)
    return Published({name: tensor.float().contiguous() for name, tensor in tensors.items()}, config)


def training_checkpoint(path: Path) -> Mapping[str, Any]:
    """The content of a training script's file: its tensors, and scores as numpy scalars; nothing in it is executed.

    Raises ValueError where it is no dictionary, and whatever torch raises for other files.
    """
    with torch.serialization.safe_globals(_NUMPY_SCALARS):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not a dictionary with model_state_dict")
    return content


def hub(path: Path) -> Published:
    """A folder in the format of the Hugging Face hub; or a file, which does not describe the architecture.

    A file may be the authors' own release of CLIP or of DPT, whose tensors are renamed to the hub's names.
    Raises ValueError where a folder has no configuration or no tensors, or a release is incomplete.
    """
    if path.is_file():
        tensors = _tensors(path)
        if releases.is_openai_clip(tensors):
            return Published(releases.openai_clip(tensors), release="OpenAI's own archive of CLIP")
        if releases.is_midas_dpt(tensors):
            return Published(releases.midas_dpt(tensors), release="MiDaS' own release of DPT")
        return Published(tensors)
    parts = hub_tensor_files([entry.name for entry in path.iterdir()])
    if not parts or not (path / "config.json").is_file():
        raise ValueError(
            "a folder of weights has config.json and model.safetensors or pytorch_model.bin, or all parts of one"
        )
    tensors = {name: tensor for part in parts for name, tensor in _tensors(path / part).items()}
    return Published(tensors, _json(path / "config.json"), _json(path / "preprocessor_config.json"))


def hub_tensor_files(names: list[str]) -> list[str]:
    """The files of a hub folder that hold its tensors; none where parts are missing."""
    for pattern in HUB_TENSORS:
        found = [match for name in sorted(names) if (match := pattern.fullmatch(name))]
        if found and len(found) == int(found[0][1] or 1):
            return [match[0] for match in found]
    return []


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not an object with settings")
    return content


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    if is_torchscript(path):
        return read_torchscript(path)
    # Only the newer format, a zip, can be memory-mapped.
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    if isinstance(state, dict):  # some files have more than the tensors
        state = next((inner for key in ("model", "state_dict") if isinstance(inner := state.get(key), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("it holds something other than a state dict of tensors")
    return {name: tensor.detach().contiguous() for name, tensor in state.items()}
