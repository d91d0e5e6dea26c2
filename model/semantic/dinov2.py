"""DINOv2 (Oquab et al., TMLR 2024), with and without registers (Darcet et al., ICLR 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from model.hub import hub_network, load_hub_network
from model.preprocess import IMAGENET, Triple
from model.semantic.dinov2_facebook import facebook_config, from_facebook
from model.semantic.encoder import PublishedEncoder

#: Image side in evaluations of DINOv2, by its authors and in the paper; its positions were trained for 518.
SIDE = 224


class Dinov2Encoder(PublishedEncoder):
    """The vector is the class token behind the last norm; tokens are the patches behind it, without registers."""

    patch: ClassVar[int] = 14
    #: settings of the hub's config.json that differ from the library's defaults
    config: ClassVar[dict[str, Any]]

    @classmethod
    def architecture(cls) -> nn.Module:
        return hub_network(_task(cls.config), cls.config, name=cls.name)

    def loaded(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        if not config:
            config, tensors = facebook_config(tensors), from_facebook(tensors)
        return load_hub_network(_task(config), config, tensors, name=self.name)

    @property
    def side(self) -> int:
        return SIDE

    @property
    def stride(self) -> int:
        return int(self.network.config.patch_size)

    @property
    def normalisation(self) -> tuple[Triple, Triple]:
        return IMAGENET

    @property
    def width(self) -> int:
        return int(self.network.config.hidden_size)

    def vector(self, images: Tensor) -> Tensor:
        token: Tensor = self.network(images).pooler_output
        return token

    def tokens(self, images: Tensor) -> Tensor:
        everything: Tensor = self.network(images).last_hidden_state
        return everything[:, 1 + registers(self.network.config) :]


def registers(config: Any) -> int:
    """Tokens between the class token and the patches."""
    return int(getattr(config, "num_register_tokens", 0))


def _task(config: Mapping[str, Any]) -> str:
    return "Dinov2WithRegistersModel" if config.get("num_register_tokens") else "Dinov2Model"


_SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}
_BASE = {**_SMALL, "hidden_size": 768, "num_attention_heads": 12}
_LARGE = {**_SMALL, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
_REGISTERS = {"num_register_tokens": 4}


class Dinov2Small(Dinov2Encoder):
    """ViT-S/14: a vector of 384, or 256 tokens of 384."""

    name: ClassVar[str] = "dinov2_small"
    config: ClassVar[dict[str, Any]] = _SMALL


class Dinov2Base(Dinov2Encoder):
    """ViT-B/14: a vector of 768, or 256 tokens of 768."""

    name: ClassVar[str] = "dinov2_base"
    config: ClassVar[dict[str, Any]] = _BASE


class Dinov2Large(Dinov2Encoder):
    """ViT-L/14: a vector of 1024, or 256 tokens of 1024."""

    name: ClassVar[str] = "dinov2_large"
    config: ClassVar[dict[str, Any]] = _LARGE


class Dinov2SmallRegisters(Dinov2Encoder):
    """ViT-S/14 with four registers."""

    name: ClassVar[str] = "dinov2_small_reg"
    config: ClassVar[dict[str, Any]] = _SMALL | _REGISTERS


class Dinov2BaseRegisters(Dinov2Encoder):
    """ViT-B/14 with four registers."""

    name: ClassVar[str] = "dinov2_base_reg"
    config: ClassVar[dict[str, Any]] = _BASE | _REGISTERS


class Dinov2LargeRegisters(Dinov2Encoder):
    """ViT-L/14 with four registers."""

    name: ClassVar[str] = "dinov2_large_reg"
    config: ClassVar[dict[str, Any]] = _LARGE | _REGISTERS
