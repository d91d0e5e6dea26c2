"""Our names of parameters <-> the published ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from model.fusion import Source
from model.fusion.concat import Concat
from model.fusion.fuser import Fuser
from model.fusion.input import InputChannel
from model.fusion.xattn import CrossAttention
from model.methods.splatter_image.backbones.unet import ResidualBlock, UNet

#: Prefix of the U-Net's and the head's names in the file of a whole predictor.
UNET_PREFIX = "network_with_offset.encoder."
HEAD_PREFIX = "network_with_offset."
#: Published names of cross-attention to a vector and to a map.
GLOBAL_BLOCK, SPATIAL_BLOCK = "global_cross_attn_block", "spatial_cross_attn_block"
_CROSS_ATTENTION: dict[Source, str] = {"semantic": GLOBAL_BLOCK, "depth": SPATIAL_BLOCK}
#: Names of the layer before a concatenation, one for each encoder.
PROJECTORS = ("dino_projector", "clip_projector")

_PUBLISHED_FUSIONS = (Concat, CrossAttention, InputChannel)
_OWN_MEMBERS = ("norm0", "conv0", "affine", "norm1", "conv1", "skip")
_ATTENTION_MEMBERS = {"norm": "norm2", "qkv": "qkv", "proj": "proj"}
_FUSER_MEMBERS = {
    "query_norm": "q_norm",
    "query": "q_proj",
    "context_norm": "kv_norm",
    "key_value": "kv_proj",
    "out": "out_proj",
}


def check_names(expected: Mapping[str, torch.Size], constants: set[str], weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError where tensors are missing, superfluous or of another shape; `constants` are optional."""
    if found := misfits(expected, constants, weights):
        raise ValueError(f"the published weights do not fit the network: {found}")


def misfits(expected: Mapping[str, torch.Size], optional: Collection[str], weights: Mapping[str, Tensor]) -> str:
    """The tensors that are missing, superfluous or of another shape, in words; "" without any."""
    problems = {
        "missing": sorted(expected.keys() - weights.keys()),
        "left over": sorted(weights.keys() - expected.keys() - set(optional)),
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(shape)}"
            for name, shape in expected.items()
            if name in weights and weights[name].shape != shape
        ],
    }
    return "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in problems.items() if names)


def listed(names: Sequence[str]) -> str:
    """The first three names, and dots for more."""
    return ", ".join(names[:3]) + (", ..." if names[3:] else "")


def published_names(unet: UNet, projector: str = PROJECTORS[0]) -> dict[str, str]:
    """Our name -> published name, for every parameter of a U-Net.

    projector: one of `PROJECTORS`.  Raises ValueError for a network with unpublished fusions.
    """
    strange = sorted({type(f).__name__ for f in unet.fusions if type(f) not in _PUBLISHED_FUSIONS})
    if strange:
        raise ValueError(f"the published format has no place for {', '.join(strange)}")
    modules = dict(_module_names(unet, projector))
    names = {}
    for key in unet.state_dict():
        module, _, leaf = key.rpartition(".")
        names[key] = f"{modules[module]}.{leaf}"
    return names


def _module_names(unet: UNet, projector: str) -> Iterator[tuple[str, str]]:
    """(our path, published path) of every module with its own parameters."""
    side = unet.resolution
    yield "stem", f"enc.{side}x{side}_conv"
    yield "tail_norm", f"dec.{side}x{side}_aux_norm"
    yield "tail_conv", f"dec.{side}x{side}_aux_conv"
    yield "camera.layer0", "map_layer0"
    yield "camera.layer1", "map_layer1"
    yield "bottleneck_fusers.0.projector", projector
    yield "bottleneck_fusers.0.reducer", "channel_reducer"
    for path, name in block_names(unet):
        block = unet.get_submodule(path)
        assert isinstance(block, ResidualBlock)
        for member in _OWN_MEMBERS:
            yield f"{path}.{member}", f"{name}.{member}"
        for ours, theirs in _ATTENTION_MEMBERS.items():
            yield f"{path}.attention.{ours}", f"{name}.{theirs}"
        for index, fuser in enumerate(block.fusers):
            assert isinstance(fuser, Fuser)
            for ours, theirs in _FUSER_MEMBERS.items():
                yield f"{path}.fusers.{index}.{ours}", f"{name}.{_CROSS_ATTENTION[fuser.source]}.{theirs}"


def block_names(unet: UNet) -> Iterator[tuple[str, str]]:
    """(our path, published path) of every residual block."""
    levels, num_blocks = len(unet.decoder_blocks), unet.num_blocks
    encoder = [
        f"enc.{side}x{side}_{part}"
        for level, side in enumerate(unet.resolution >> level for level in range(levels))
        for part in [*(["down"] if level else []), *(f"block{index}" for index in range(num_blocks))]
    ]
    yield from ((f"encoder.{index}", name) for index, name in enumerate(encoder))
    for position in range(levels):
        side = unet.resolution >> (levels - 1 - position)
        for index, part in enumerate(["in0", "in1"] if position == 0 else ["up"]):
            yield f"decoder_entries.{position}.{index}", f"dec.{side}x{side}_{part}"
        for index in range(num_blocks + 1):
            yield f"decoder_blocks.{position}.{index}", f"dec.{side}x{side}_block{index}"
