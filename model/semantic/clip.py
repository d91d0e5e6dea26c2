"""CLIP's image encoders (Radford et al., ICML 2021), in the hub's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from model.hub import hub_network, load_hub_network
from model.preprocess import CLIP, Triple
from model.semantic.encoder import PublishedEncoder

_TASK = "CLIPVisionModelWithProjection"


class ClipEncoder(PublishedEncoder):
    """The vector is the embedding that CLIP compares with texts; tokens are patches as the last layer leaves them."""

    #: settings of the hub's config.json for the image encoder
    config: ClassVar[dict[str, Any]]

    @classmethod
    def architecture(cls) -> nn.Module:
        return hub_network(_TASK, cls.config, name=cls.name)

    def loaded(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        return load_hub_network(_TASK, _image_encoder(config) or self.config, tensors, name=self.name)

    @property
    def side(self) -> int:
        return int(self.network.config.image_size)

    @property
    def stride(self) -> int:
        return int(self.network.config.patch_size)

    @property
    def normalisation(self) -> tuple[Triple, Triple]:
        return CLIP

    @property
    def width(self) -> int:
        config = self.network.config
        return int(config.projection_dim if self.output_type == "vector" else config.hidden_size)

    def vector(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self._look(images).image_embeds
        return embeddings

    def tokens(self, images: Tensor) -> Tensor:
        everything: Tensor = self._look(images).last_hidden_state
        return everything[:, 1:]  # the first is the class token

    def _look(self, images: Tensor) -> Any:
        return self.network(images, interpolate_pos_encoding=self.resolution != self.side)


class ClipVitB32(ClipEncoder):
    """ViT-B/32 at 224 px: a vector of 512, or 49 tokens of 768."""

    name: ClassVar[str] = "clip_vit_b32"
    patch: ClassVar[int] = 32
    config: ClassVar[dict[str, Any]] = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
        "projection_dim": 512,
        "hidden_act": "quick_gelu",
    }


class ClipVitL14(ClipEncoder):
    """ViT-L/14 at 224 px: a vector of 768, or 256 tokens of 1024."""

    name: ClassVar[str] = "clip_vit_l14"
    patch: ClassVar[int] = 14
    config: ClassVar[dict[str, Any]] = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "projection_dim": 768,
        "hidden_act": "quick_gelu",
    }


def _image_encoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """The image encoder's part of CLIP's configuration, with the embedding width, which stands outside of it."""
    outside = {"projection_dim": config["projection_dim"]} if "projection_dim" in config else {}
    return {**config.get("vision_config", config), **outside}
