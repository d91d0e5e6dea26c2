"""DINOv2 as its authors publish it: the architecture read off the tensors' shapes, and the hub's names for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

#: Width of heads in all published sizes, which shapes do not determine.
_HEAD_WIDTH = 64

_OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "register_tokens": "embeddings.register_tokens",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
#: Published names inside a block -> the hub's, after the prefix `encoder.layer.i.`.
_INSIDE = {
    "norm1": "norm1",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "ls2.gamma": "layer_scale2.lambda1",
}


def facebook_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The equivalent of config.json.  Raises ValueError where these are not the tensors of a DINOv2."""
    try:
        width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
        positions = tensors["pos_embed"].shape[1] - 1  # without the class token's
        hidden = tensors["blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise ValueError(f"these are not the weights of a DINOv2 as Facebook publishes it: no tensor {error}") from None
    registers = tensors["register_tokens"].shape[1] if "register_tokens" in tensors else 0
    return {
        "hidden_size": width,
        "num_hidden_layers": len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
        "num_attention_heads": width // _HEAD_WIDTH,
        "mlp_ratio": hidden // width,
        "patch_size": patch,
        "image_size": math.isqrt(positions) * patch,
        **({"num_register_tokens": registers} if registers else {}),
    }


def from_facebook(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the hub's names, queries, keys and values split.  Raises ValueError for unknown names."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in _OUTSIDE:
            renamed[_OUTSIDE[name]] = tensor
        elif name.startswith("blocks."):
            renamed |= _block(name, tensor)
        else:
            raise ValueError(f"a DINOv2 has no tensor {name!r}")
    return renamed


def _block(name: str, tensor: Tensor) -> dict[str, Tensor]:
    _, index, inside = name.split(".", 2)
    prefix = f"encoder.layer.{index}."
    module, _, parameter = inside.rpartition(".")
    if module == "attn.qkv":
        parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
        return {f"{prefix}attention.attention.{part}.{parameter}": values for part, values in parts}
    if inside in _INSIDE:  # the scales, which are parameters themselves
        return {prefix + _INSIDE[inside]: tensor}
    if module in _INSIDE:
        return {f"{prefix}{_INSIDE[module]}.{parameter}": tensor}
    raise ValueError(f"a DINOv2 has no tensor {name!r}")
