"""DINOv2 with the linear classifier of ImageNet: what the paper calls DINO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from model.hub import hub_network, load_hub_network
from model.preprocess import IMAGENET, Triple
from model.semantic.dinov2 import SIDE, Dinov2LargeRegisters, registers
from model.semantic.dinov2_facebook import facebook_config, from_facebook
from model.semantic.encoder import PublishedEncoder

_TASK = "Dinov2WithRegistersBackbone"
#: Number of last layers whose class tokens the classifier reads.
_LAYERS = 4


class LinearClassifier(nn.Module):
    """A linear layer on the class tokens of the last four layers and the mean of the last one's patches.

    All are taken after the backbone's norm, as in DINOv2's `dinov2_vitl14_reg_lc` (Oquab et al., 2023; its repository's
    `dinov2/hub/classifiers.py`).
    """

    def __init__(self, backbone: Any, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear((_LAYERS + 1) * backbone.config.hidden_size, classes)

    def layers(self, images: Tensor) -> tuple[Tensor, ...]:
        """All tokens (N, 1 + registers + T, D) of each of the last four layers."""
        maps: tuple[Tensor, ...] = self.backbone(images).feature_maps
        return maps

    def patches(self, layer: Tensor) -> Tensor:
        """Patch tokens (N, T, D) of one layer."""
        return layer[:, 1 + registers(self.backbone.config) :]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes)."""
        layers = self.layers(images)
        tokens = [*(layer[:, 0] for layer in layers), self.patches(layers[-1]).mean(dim=1)]
        logits: Tensor = self.head(torch.cat(tokens, dim=-1))
        return logits


class Dinov2VitL14RegistersClassifier(PublishedEncoder):
    """The vector is the 1000 logits, not features, as in the paper; tokens are the last layer's 256 of 1024."""

    name: ClassVar[str] = "dinov2_vitl14_reg_lc"
    patch: ClassVar[int] = 14

    @classmethod
    def architecture(cls) -> nn.Module:
        config = _reading_last_layers(Dinov2LargeRegisters.config)
        return LinearClassifier(hub_network(_TASK, config, name=cls.name), classes=1000)

    def loaded(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        backbone, head = _part(tensors, "backbone."), _part(tensors, "linear_head.")
        if set(head) != {"weight", "bias"}:
            raise ValueError(f"{self.name} needs linear_head.weight and linear_head.bias, and these weights lack them")
        config = _reading_last_layers(facebook_config(backbone))
        network = LinearClassifier(
            load_hub_network(_TASK, config, from_facebook(backbone), name=self.name), classes=len(head["bias"])
        )
        try:
            network.head.load_state_dict(head)
        except RuntimeError as error:
            raise ValueError(f"the linear head does not fit the backbone: {error}") from error
        return network

    @property
    def side(self) -> int:
        return SIDE

    @property
    def stride(self) -> int:
        return int(self.network.backbone.config.patch_size)

    @property
    def normalisation(self) -> tuple[Triple, Triple]:
        return IMAGENET

    @property
    def width(self) -> int:
        classifier = self.network
        return int(
            classifier.head.out_features if self.output_type == "vector" else classifier.backbone.config.hidden_size
        )

    def vector(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def tokens(self, images: Tensor) -> Tensor:
        patches: Tensor = self.network.patches(self.network.layers(images)[-1])
        return patches


def _reading_last_layers(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration for a backbone that returns the last layers, including class token and registers."""
    depth = config["num_hidden_layers"]
    if depth < _LAYERS:
        raise ValueError(f"a classifier on the last {_LAYERS} layers needs as many, and this network has {depth}")
    return {**config, "out_indices": list(range(depth - _LAYERS + 1, depth + 1)), "reshape_hidden_states": False}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
