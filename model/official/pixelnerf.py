"""Published PixelNeRF files, plain state dicts named `pixel_nerf_latest`: their names <-> ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.methods.pixelnerf.field import POINT_FEATURES, frequencies_and_phases
from model.methods.pixelnerf.reconstructor import PixelNerfReconstructor
from model.official.names import check_names

_ENCODER = ("encoder.", "encoder.model.")
_NETWORKS = {"coarse.": "mlp_coarse.", "fine.": "mlp_fine."}
_LAYERS = {"input": "lin_in", "output": "lin_out", "injections": "lin_z", "first": "fc_0", "second": "fc_1"}
#: Constants of the position encoding, which files store and our networks compute.
_FREQUENCIES, _PHASES = "code._freqs", "code._phases"


@dataclass(frozen=True)
class PixelNerfShape:
    """Sizes of a published network; its tensors do not determine its conventions."""

    encoder_width: int
    hidden: int
    blocks: int
    view_blocks: int

    @classmethod
    def recognises(cls, weights: Mapping[str, Tensor]) -> bool:
        """Whether these tensors have the names of a PixelNeRF."""
        return any(name.startswith("mlp_coarse.") for name in weights)

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> PixelNerfShape:
        """The sizes of the network in `weights`.  Raises ValueError where a tensor that determines them is missing."""
        stem, first = "encoder.model.conv1.weight", "mlp_coarse.lin_in.weight"
        absent = [name for name in (stem, first) if name not in weights]
        if absent:
            raise ValueError(f"no PixelNeRF: {' and '.join(absent)} missing")
        features = weights[first].shape[-1]
        if features != POINT_FEATURES:
            raise ValueError(
                f"points of this PixelNeRF have {features} features; known are those with {POINT_FEATURES}"
            )
        return cls(
            encoder_width=weights[stem].shape[0],
            hidden=weights[first].shape[0],
            blocks=_count(weights, r"mlp_coarse\.blocks\.(\d+)\.fc_0\.weight"),
            view_blocks=_count(weights, r"mlp_coarse\.lin_z\.(\d+)\.weight"),
        )


def pixelnerf_names(network: PixelNerfReconstructor) -> dict[str, str]:
    """Our name -> published name, for every parameter and every statistic of the encoder."""
    return {name: _published(name) for name in network.state_dict()}


def pixelnerf_state_dict(network: PixelNerfReconstructor) -> dict[str, Tensor]:
    """The tensors of a network under their published names, constants included; they share memory with it."""
    state = network.state_dict()
    return {theirs: state[ours] for ours, theirs in pixelnerf_names(network).items()} | _constants()


def load_pixelnerf(network: PixelNerfReconstructor, weights: Mapping[str, Tensor]) -> PixelNerfReconstructor:
    """Give `network` copies of published weights; returns it.

    Raises ValueError where tensors are missing, superfluous or of another shape, and for another position encoding.
    """
    names, constants = pixelnerf_names(network), _constants()
    state = network.state_dict()
    check_names({theirs: state[ours].shape for ours, theirs in names.items()}, set(constants), weights)
    for name, expected in constants.items():
        if name in weights and not torch.allclose(weights[name].flatten().float(), expected.flatten()):
            raise ValueError(f"{name} is {weights[name].flatten().tolist()}, known is {expected.flatten().tolist()}")
    network.load_state_dict({ours: weights[theirs] for ours, theirs in names.items()})
    return network


def _published(name: str) -> str:
    if name.startswith(_ENCODER[0]):
        return _ENCODER[1] + name.removeprefix(_ENCODER[0])
    network, _, layer = name.partition(".")
    return _NETWORKS[f"{network}."] + ".".join(_LAYERS.get(part, part) for part in layer.split("."))


def _constants() -> dict[str, Tensor]:
    frequencies, phases = frequencies_and_phases(torch.zeros(()))
    return {_FREQUENCIES: frequencies.view(1, -1, 1), _PHASES: phases.view(1, -1, 1)}


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in weights)
