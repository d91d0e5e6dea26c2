"""Published checkpoints: tensors by name, whose names and shapes determine the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from model.fusion import Source
from model.official.names import GLOBAL_BLOCK, PROJECTORS, SPATIAL_BLOCK, UNET_PREFIX

#: Frozen models inside the paper's files; ours come from their own files.
_FROZEN = re.compile(r"(depth_predictor|network_with_offset\.(spatial|global)_context_provider)\.")
_IMAGE_CHANNELS = 3
#: Total channels of the head's groups -> degree of the spherical harmonics.
DEGREE_OF_CHANNELS = {15: 0, 24: 1}

_STEM = re.compile(r"enc\.(\d+)x\1_conv\.weight")
_FIRST_BLOCK = re.compile(r"enc\.(\d+)x\1_block0\.norm0\.weight")


def read_weights(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's tensors in a file's content, which is a state dict or has one as `model_state_dict`.

    The tensors of frozen models are left out.  Raises ValueError where a value is no tensor, or has no name.
    """
    state = content.get("model_state_dict", content)
    if not isinstance(state, Mapping):
        raise ValueError(f"model_state_dict is a {type(state).__name__}, not a dictionary of tensors")
    weights = {name: value for name, value in state.items() if not _FROZEN.match(str(name))}
    strange = sorted(str(n) for n, value in weights.items() if not (isinstance(n, str) and isinstance(value, Tensor)))
    if strange:
        what = "are not named tensors" if strange[1:] else "is not a named tensor"
        raise ValueError(f"not a state dict: {', '.join(strange[:5])} {what}")
    return weights


def unet_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the U-Net only, under the names of a stand-alone U-Net."""
    inside = {name.removeprefix(UNET_PREFIX): t for name, t in weights.items() if name.startswith(UNET_PREFIX)}
    return inside or dict(weights)


@dataclass(frozen=True)
class NetworkShape:
    """Sizes of a published U-Net."""

    resolution: int
    base_dim: int
    num_blocks: int
    channel_mult: tuple[int, ...]
    attention_resolutions: tuple[int, ...]
    in_channels: int = 3
    out_channels: int = 24
    #: length of the pose embedding; 0: none
    camera_channels: int = 0
    #: cross-attention to a vector: its length, and the resolutions
    global_context_dim: int = 0
    global_cross_attention_resolutions: tuple[int, ...] = ()
    #: cross-attention to a map: its channels, and the resolutions
    spatial_context_channels: int = 0
    spatial_cross_attention_resolutions: tuple[int, ...] = ()
    #: length of the vector that is concatenated behind the encoder; 0: none
    concat_dim: int = 0

    @property
    def sh_degree(self) -> int:
        """Degree of the predicted spherical harmonics.  Raises ValueError for an unknown number of output channels."""
        if self.out_channels not in DEGREE_OF_CHANNELS:
            known = ", ".join(map(str, DEGREE_OF_CHANNELS))
            raise ValueError(f"the network has {self.out_channels} output channels; known are {known}")
        return DEGREE_OF_CHANNELS[self.out_channels]

    @property
    def contexts(self) -> dict[Source, tuple[str, int]]:
        """Contexts that condition the network: fusion and width, by source."""
        found: dict[Source, tuple[str, int]] = {}
        if self.concat_dim:
            found["semantic"] = ("concat", self.concat_dim)
        if self.global_context_dim:
            found["semantic"] = ("xattn", self.global_context_dim)
        if self.in_channels > _IMAGE_CHANNELS:
            found["depth"] = ("input", self.in_channels - _IMAGE_CHANNELS)
        if self.spatial_context_channels:
            found["depth"] = ("xattn", self.spatial_context_channels)
        return found

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> NetworkShape:
        """The sizes of the U-Net in `weights`.  Raises ValueError where there is none."""
        weights = unet_weights(weights)
        stems = [name for name in weights if _STEM.fullmatch(name)]
        sides = sorted((int(m[1]) for name in weights if (m := _FIRST_BLOCK.fullmatch(name))), reverse=True)
        if len(stems) != 1 or not sides:
            raise ValueError(
                f"no Splatter Image network: {len(stems)} tensors are called enc.<side>x<side>_conv.weight"
            )
        stem = weights[stems[0]]
        base, top = stem.shape[0], sides[0]
        levels, tail = [f"enc.{side}x{side}_block0.conv1.weight" for side in sides], f"dec.{top}x{top}_aux_conv.weight"
        if absent := [name for name in (*levels, tail) if name not in weights]:
            raise ValueError(f"no whole Splatter Image network: {', '.join(absent)} missing")
        camera = weights.get("map_layer0.weight")
        return cls(
            resolution=top,
            base_dim=base,
            num_blocks=_count(weights, f"enc.{top}x{top}_block{{}}.conv1.weight"),
            channel_mult=tuple(weights[name].shape[0] // base for name in levels),
            attention_resolutions=_where(weights, "qkv.weight"),
            in_channels=stem.shape[1],
            out_channels=weights[tail].shape[0],
            camera_channels=0 if camera is None else camera.shape[1],
            **context_sizes(weights),
        )


def context_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of `NetworkShape` on how context enters the U-Net of these tensors."""
    projector = next((name for name in PROJECTORS if f"{name}.weight" in weights), None)
    return {
        "global_context_dim": _width(weights, f"{GLOBAL_BLOCK}.kv_norm.weight"),
        "global_cross_attention_resolutions": _where(weights, f"{GLOBAL_BLOCK}.kv_norm.weight"),
        "spatial_context_channels": _width(weights, f"{SPATIAL_BLOCK}.kv_norm.weight"),
        "spatial_cross_attention_resolutions": _where(weights, f"{SPATIAL_BLOCK}.kv_norm.weight"),
        "concat_dim": 0 if projector is None else weights[f"{projector}.weight"].shape[1],
    }


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    count = 0
    while pattern.format(count) in weights:
        count += 1
    return count


def _where(weights: Mapping[str, Tensor], member: str) -> tuple[int, ...]:
    """The resolutions, largest first, whose first encoder block has `member`."""
    pattern = re.compile(rf"enc\.(\d+)x\1_block0\.{re.escape(member)}")
    return tuple(sorted((int(m[1]) for name in weights if (m := pattern.fullmatch(name))), reverse=True))


def _width(weights: Mapping[str, Tensor], member: str) -> int:
    return next((len(tensor) for name, tensor in weights.items() if name.endswith(f".{member}")), 0)
