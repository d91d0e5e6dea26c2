"""Loads published weights into networks, and exports networks under the published names."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from model.fusion.base import Fusion
from model.fusion.concat import Concat
from model.fusion.input import InputChannel
from model.fusion.xattn import CrossAttention
from model.methods.splatter_image.backbones.unet import UNet
from model.methods.splatter_image.camera_embedding import POSE_CHANNELS
from model.methods.splatter_image.heads import GaussianHead, gaussian_groups
from model.methods.splatter_image.predictor import GaussianPredictor
from model.official.checkpoint import NetworkShape, context_sizes, read_weights, unet_weights
from model.official.constants import PREDICTOR_CONSTANTS, resampling_filters
from model.official.datasets import published_dataset
from model.official.names import HEAD_PREFIX, PROJECTORS, UNET_PREFIX, check_names, published_names
from model.official.network import FileFacts, OfficialPredictor, OfficialUNet


def unet_from_official(
    state_dict: Mapping[str, Any],
    *,
    resolution: int,
    base_dim: int,
    num_blocks: int,
    channel_mult: Sequence[int],
    attention_resolutions: Collection[int],
    in_channels: int,
    out_channels: int,
    camera_embedding_dim: int = 0,
    global_context_dim: int = 0,
    spatial_context_channels: int = 0,
    global_cross_attention_resolutions: Collection[int] = (),
    spatial_cross_attention_resolutions: Collection[int] = (),
) -> OfficialUNet:
    """A U-Net with published weights, in evaluation mode and in their precision.

    A concatenation behind the encoder is recognised by its tensors.
    Raises ValueError where tensors are missing, left over or of another shape than the sizes given here say.
    """
    weights = unet_weights(read_weights(state_dict))
    shape = NetworkShape(
        resolution=resolution,
        base_dim=base_dim,
        num_blocks=num_blocks,
        channel_mult=tuple(channel_mult),
        attention_resolutions=tuple(attention_resolutions),
        in_channels=in_channels,
        out_channels=out_channels,
        camera_channels=camera_embedding_dim,
        global_context_dim=global_context_dim,
        global_cross_attention_resolutions=tuple(global_cross_attention_resolutions),
        spatial_context_channels=spatial_context_channels,
        spatial_cross_attention_resolutions=tuple(spatial_cross_attention_resolutions),
        concat_dim=context_sizes(weights)["concat_dim"],
    )
    with torch.device("meta"):
        unet = _unet(shape, depth_input=False)
    return load_official(OfficialUNet(unet), weights).eval()


def predictor_from_official(
    state_dict: Mapping[str, Any],
    *,
    dataset: str,
    resolution: int,
    base_dim: int,
    num_blocks: int,
    attention_resolutions: Collection[int],
    camera_embedding: bool = False,
    depth_input: bool = False,
) -> OfficialPredictor:
    """A predictor with published weights, in evaluation mode and in their precision.

    dataset: a name in `PUBLISHED`.  Cross-attention and concatenation are recognised by their tensors.
    Raises ValueError where tensors are missing, left over or of another shape than the sizes given here say.
    """
    facts = published_dataset(dataset)
    weights = read_weights(state_dict)
    shape = NetworkShape(
        resolution=resolution,
        base_dim=base_dim,
        num_blocks=num_blocks,
        channel_mult=(1, 2, 2, 2),
        attention_resolutions=tuple(attention_resolutions),
        out_channels=_head_channels(weights),
        camera_channels=POSE_CHANNELS if camera_embedding else 0,
        **context_sizes(unet_weights(weights)),
    )
    with torch.device("meta"):
        unet = _unet(shape, depth_input)
        head = GaussianHead(gaussian_groups(facts.head.model_dump(), shape.sh_degree))
    return load_official(OfficialPredictor(unet, head, facts), weights).eval()


NetworkT = TypeVar("NetworkT", OfficialUNet, OfficialPredictor, GaussianPredictor)


def load_official(network: NetworkT, weights: Mapping[str, Tensor]) -> NetworkT:
    """Give `network` copies of published weights, named as in a file; returns it.

    Raises ValueError where tensors are missing, superfluous or of another shape than the network's.
    """
    projector = next((p for p in PROJECTORS if any(n.endswith(f"{p}.weight") for n in weights)), PROJECTORS[0])
    names, constants = _names(network, projector), _constant_names(network)
    check_names({theirs: network.get_parameter(ours).shape for ours, theirs in names.items()}, constants, weights)
    network.load_state_dict({ours: weights[theirs].detach().clone() for ours, theirs in names.items()}, assign=True)
    if isinstance(network, (OfficialUNet, OfficialPredictor)):
        found = {name: weights[name].detach().clone() for name in constants if name in weights}
        _warn_of_other_constants(found, network.file.constants)
        network.file = FileFacts(network.file.constants | found, projector)
    return network


def official_state_dict(network: OfficialUNet | OfficialPredictor) -> dict[str, Tensor]:
    """The tensors of a network under their published names, constants included; they share memory with it.

    To export a predictor of ours, wrap it: `OfficialPredictor(ours.backbone, ours.head, PUBLISHED[name])`.
    Raises ValueError for a network with unpublished parts.
    """
    state = network.state_dict()
    parameters = {theirs: state[ours] for ours, theirs in _names(network, network.file.projector).items()}
    return network.file.constants | parameters


def _unet(shape: NetworkShape, depth_input: bool) -> UNet:
    fusions: list[Fusion] = []
    if depth_input:
        fusions.append(InputChannel("depth", "map", 1))
    if shape.concat_dim:
        fusions.append(Concat("semantic", "vector", shape.concat_dim))
    if shape.global_cross_attention_resolutions:
        fusions.append(CrossAttention("semantic", "vector", shape.global_context_dim))
    if shape.spatial_cross_attention_resolutions:
        fusions.append(CrossAttention("depth", "map", shape.spatial_context_channels))
    return UNet(
        resolution=shape.resolution,
        in_channels=shape.in_channels,
        out_channels=shape.out_channels,
        base_dim=shape.base_dim,
        num_blocks=shape.num_blocks,
        channel_mult=shape.channel_mult,
        attention_resolutions=shape.attention_resolutions,
        camera_channels=shape.camera_channels,
        fusions=fusions,
        fusion_resolutions={
            "semantic": shape.global_cross_attention_resolutions,
            "depth": shape.spatial_cross_attention_resolutions,
        },
    )


def _head_channels(weights: Mapping[str, Tensor]) -> int:
    name = f"{HEAD_PREFIX}out.weight"
    if name not in weights:
        raise ValueError(f"no whole predictor: its head, {name}, is missing")
    return len(weights[name])


def _names(network: OfficialUNet | GaussianPredictor, projector: str) -> dict[str, str]:
    """Our name -> published name, for every parameter."""
    is_whole = isinstance(network, GaussianPredictor)
    ours, theirs = ("backbone.", UNET_PREFIX) if is_whole else ("unet.", "")
    names = {ours + name: theirs + other for name, other in published_names(_unet_of(network), projector).items()}
    if isinstance(network, GaussianPredictor):
        names |= {f"head.{name}": HEAD_PREFIX + name for name in network.head.state_dict()}
    return names


def _unet_of(network: OfficialUNet | GaussianPredictor) -> UNet:
    if isinstance(network, OfficialUNet):
        return network.unet
    if not isinstance(network.backbone, UNet):
        raise ValueError(
            f"published networks are U-Nets, not {type(network.backbone).__name__}; set model.backbone to unet"
        )
    return network.backbone


def _constant_names(network: OfficialUNet | GaussianPredictor) -> set[str]:
    if isinstance(network, (OfficialUNet, OfficialPredictor)):
        return set(network.file.constants)
    return {*PREDICTOR_CONSTANTS, *(UNET_PREFIX + name for name in resampling_filters(_unet_of(network)))}


def _warn_of_other_constants(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Warn that a file was created for another dataset or network; its parameters fit nevertheless."""
    other = [name for name, value in found.items() if not _alike(value, expected[name])]
    if other:
        warnings.warn(
            f"constants in the file differ from those of this network: {', '.join(sorted(other))}", stacklevel=4
        )


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.to(a.device).double(), atol=1e-5)
