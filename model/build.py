"""From the sections of a configuration to a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from model.fusion import FUSION, Source
from model.fusion.base import Fusion, entering_kind
from model.methods.splatter_image.backbones.unet import UNet
from model.methods.splatter_image.camera_embedding import POSE_CHANNELS
from model.methods.splatter_image.heads import GaussianHead, gaussian_groups
from model.methods.splatter_image.predictor import GaussianPredictor
from model.registry import resolve


class NetworkConfig(Protocol):
    """What of `jobs.config.TrialConfig` a network is made from."""

    @property
    def data(self) -> Any: ...
    @property
    def model(self) -> Any: ...
    @property
    def semantic(self) -> Any: ...
    @property
    def depth(self) -> Any: ...
    @property
    def seed(self) -> int: ...


def build_predictor(config: NetworkConfig, widths: Mapping[str, int]) -> GaussianPredictor:
    """A freshly initialised predictor, the same for the same configuration.

    `widths` names the active sources of context: length of the semantic vector or of each token, channels of the
    depth map.
    """
    ways: dict[Source, str] = {"semantic": config.semantic.fusion, "depth": config.depth.fusion}
    groups = gaussian_groups(config.model.head.model_dump(), config.model.sh_degree)
    fusions = [_fusion(way, source, widths[source]) for source, way in ways.items() if source in widths]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = UNet(
            resolution=config.data.resolution,
            out_channels=sum(group.channels for group in groups),
            base_dim=config.model.base_dim,
            num_blocks=config.model.num_blocks,
            channel_mult=config.model.channel_mult,
            attention_resolutions=config.model.attention_resolutions,
            camera_channels=POSE_CHANNELS if config.model.camera_embedding else 0,
            fusions=fusions,
        )
        head = GaussianHead(groups)
    return GaussianPredictor(unet, head)


def _fusion(way: str, source: Source, width: int) -> Fusion:
    cls: type[Fusion] = resolve(FUSION, way, "fusion")
    kind = entering_kind(cls, source)
    if kind is None:
        raise ValueError(f"fusion {way!r} cannot take {source} context; it accepts {', '.join(sorted(cls.accepts))}")
    return cls(source, kind, width)
