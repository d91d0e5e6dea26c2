"""Converts releases of known models from their authors' tensor names to those of the hub.

Facts: OpenAI's CLIP (`model.py`), MiDaS (`dpt_depth.py`, `blocks.py`, `backbones/`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

#: Names inside a block: published -> the hub's.
_CLIP_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_CLIP_OUTSIDE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_DPT_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
#: Prefixes; the first match is used.
_DPT_OUTSIDE = {
    "pretrained.model.cls_token": "dpt.embeddings.cls_token",
    "pretrained.model.pos_embed": "dpt.embeddings.position_embeddings",
    "pretrained.model.patch_embed.proj.": "dpt.embeddings.{projection}.",
    "pretrained.model.patch_embed.backbone.stem.conv.": "dpt.embeddings.backbone.bit.embedder.convolution.",
    "pretrained.model.patch_embed.backbone.stem.norm.": "dpt.embeddings.backbone.bit.embedder.norm.",
    "pretrained.model.norm.": "dpt.layernorm.",
    "scratch.output_conv.": "head.head.",
}


def is_openai_clip(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a CLIP published by OpenAI, or of a part of it."""
    return any(name == "visual.conv1.weight" or name.startswith("visual.") for name in tensors)


def openai_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the image encoder in float32.  Raises ValueError where it is no vision transformer."""
    if "visual.class_embedding" not in tensors or "visual.proj" not in tensors:
        raise ValueError("OpenAI's own CLIP archive, but without a whole vision transformer in it")
    found: dict[str, Tensor] = {"visual_projection.weight": tensors["visual.proj"].T}
    for name, tensor in tensors.items():
        if name in _CLIP_OUTSIDE:
            found[_CLIP_OUTSIDE[name]] = tensor
        elif match := re.fullmatch(r"visual\.transformer\.resblocks\.(\d+)\.(.+)", name):
            found |= dict(_renamed(f"vision_model.encoder.layers.{match[1]}", match[2], tensor, _CLIP_BLOCK, _clip_qkv))
    return {name: tensor.float().contiguous() for name, tensor in found.items()}


def _clip_qkv(rest: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    match = re.fullmatch(r"attn\.in_proj_(weight|bias)", rest)
    for name, part in zip("qkv", tensor.chunk(3), strict=True) if match else ():
        yield f"self_attn.{name}_proj.{match[1]}", part  # type: ignore[index]


def is_midas_dpt(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a transformer of MiDaS v3, published by its authors."""
    return any(name.startswith("pretrained.model.") for name in tensors)


def midas_dpt(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DPT-Large or DPT-Hybrid in the hub's names.  Raises ValueError for MiDaS' other transformers."""
    if "pretrained.model.cls_token" not in tensors or not _has(tensors, "pretrained.model.blocks.0.attn.qkv.weight"):
        raise ValueError("a model of MiDaS that is neither DPT-Large nor DPT-Hybrid")
    is_hybrid = _has(tensors, "pretrained.model.patch_embed.backbone.")
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"pretrained\.model\.blocks\.(\d+)\.(.+)", name):
            found |= dict(_renamed(f"dpt.encoder.layer.{match[1]}", match[2], tensor, _DPT_BLOCK, _dpt_qkv))
        elif renamed := _dpt_name(name, is_hybrid):
            found[renamed] = tensor
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _dpt_qkv(rest: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    match = re.fullmatch(r"attn\.qkv\.(weight|bias)", rest)
    for name, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True) if match else ():
        yield f"attention.attention.{name}.{match[1]}", part  # type: ignore[index]


def _dpt_name(name: str, is_hybrid: bool) -> str | None:
    """The hub's name of a tensor outside of the transformer's blocks; None for unused tensors."""
    for prefix, renamed in _DPT_OUTSIDE.items():
        if name.startswith(prefix):
            projection = "projection" if is_hybrid else "patch_embeddings.projection"
            return renamed.format(projection=projection) + name[len(prefix) :]
    if match := re.fullmatch(r"pretrained\.model\.patch_embed\.backbone\.stages\.(\d+)\.blocks\.(\d+)\.(.+)", name):
        return f"dpt.embeddings.backbone.bit.encoder.stages.{match[1]}.layers.{match[2]}.{match[3]}"
    if match := re.fullmatch(r"pretrained\.act_postprocess(\d)\.0\.project\.0\.(.+)", name):
        return f"neck.reassemble_stage.readout_projects.{int(match[1]) - 1}.0.{match[2]}"
    if match := re.fullmatch(r"pretrained\.act_postprocess(\d)\.([34])\.(.+)", name):
        part = {"3": "projection", "4": "resize"}[match[2]]
        return f"neck.reassemble_stage.layers.{int(match[1]) - 1}.{part}.{match[3]}"
    if match := re.fullmatch(r"scratch\.layer(\d)_rn\.(.+)", name):
        return f"neck.convs.{int(match[1]) - 1}.{match[2]}"
    if match := re.fullmatch(r"scratch\.refinenet(\d)\.(.+)", name):
        rest = match[2].replace("out_conv", "projection")
        rest = re.sub(r"resConfUnit(\d)\.conv(\d)", r"residual_layer\1.convolution\2", rest)
        return f"neck.fusion_stage.layers.{4 - int(match[1])}.{rest}"
    return None


def _renamed(
    block: str,
    rest: str,
    tensor: Tensor,
    names: Mapping[str, str],
    split: Callable[[str, Tensor], Iterator[tuple[str, Tensor]]],
) -> Iterator[tuple[str, Tensor]]:
    """One tensor of a transformer's block; queries, keys and values become three."""
    parts = list(split(rest, tensor))
    for name, part in parts:
        yield f"{block}.{name}", part
    stem, _, kind = rest.rpartition(".")
    if not parts and stem in names:
        yield f"{block}.{names[stem]}.{kind}", tensor


def _has(tensors: Mapping[str, Any], beginning: str) -> bool:
    return any(name.startswith(beginning) for name in tensors)
