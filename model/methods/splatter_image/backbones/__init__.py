"""Networks from source views to feature maps.  One file each, one for its options, one line here."""

from model.methods.splatter_image.backbones.base import Backbone
from model.registry import resolve

BACKBONES: dict[str, str] = {
    "unet": "model.methods.splatter_image.backbones.unet_options:UNetBackbone",
    "transformer": "model.methods.splatter_image.backbones.transformer_options:TransformerBackbone",
}


def find_backbone(name: str) -> type[Backbone]:
    """The backbone of that name.  Raises `UnknownChoiceError`."""
    backbone: type[Backbone] = resolve(BACKBONES, name, "backbone")
    return backbone
