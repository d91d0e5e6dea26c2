"""Depth Anything V2 (Yang et al., NeurIPS 2024): DINOv2 under a light DPT head, trained on synthetic depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from model.depth.dpt import UNUSED
from model.depth.network import ReluDepthNetwork
from model.hub import hub_network, load_hub_network
from model.preprocess import IMAGENET, Triple

_TASK = "DepthAnythingForDepthEstimation"


def _config(width: int, layers: int, heads: int, read: list[int], necks: list[int], fusion: int) -> dict[str, Any]:
    """Settings of the hub's config.json that differ from the library's defaults."""
    return {
        "backbone_config": {
            "model_type": "dinov2",
            "image_size": 518,
            "patch_size": 14,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "out_indices": read,
            "reshape_hidden_states": False,
        },
        "reassemble_hidden_size": width,
        "neck_hidden_sizes": necks,
        "fusion_hidden_size": fusion,
    }


class DepthAnythingV2Small(ReluDepthNetwork):
    """depth-anything/Depth-Anything-V2-Small-hf, 24.8 M parameters."""

    name: ClassVar[str] = "depth_anything_v2_small"
    side: ClassVar[int] = 518
    stride: ClassVar[int] = 14
    normalisation: ClassVar[tuple[Triple, Triple]] = IMAGENET
    config: ClassVar[dict[str, Any]] = _config(384, 12, 6, [3, 6, 9, 12], [48, 96, 192, 384], 64)

    @classmethod
    def architecture(cls) -> nn.Module:
        return hub_network(_TASK, cls.config, name=cls.name)

    @classmethod
    def loaded(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        return load_hub_network(_TASK, config, tensors, name=cls.name, unused=UNUSED)

    @classmethod
    def last_convolution(cls, network: nn.Module) -> nn.Conv2d:
        layer = network.get_submodule("head.conv3")
        assert isinstance(layer, nn.Conv2d)
        return layer

    def inverse_depth(self, prepared: Tensor) -> Tensor:
        maps: Tensor = self.network(prepared).predicted_depth
        return maps.unsqueeze(1)


class DepthAnythingV2Base(DepthAnythingV2Small):
    """depth-anything/Depth-Anything-V2-Base-hf, 97.5 M parameters."""

    name: ClassVar[str] = "depth_anything_v2_base"
    config: ClassVar[dict[str, Any]] = _config(768, 12, 12, [3, 6, 9, 12], [96, 192, 384, 768], 128)


class DepthAnythingV2Large(DepthAnythingV2Small):
    """depth-anything/Depth-Anything-V2-Large-hf, 335 M parameters."""

    name: ClassVar[str] = "depth_anything_v2_large"
    config: ClassVar[dict[str, Any]] = _config(1024, 24, 16, [5, 12, 18, 24], [256, 512, 1024, 1024], 256)
