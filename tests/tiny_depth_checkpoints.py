"""Stand-ins for depth models: tiny ones in the hub's format, and MiDaS's single file."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

#: Published names in MiDaS v2.1's small file, by the beginnings of timm's names for the same encoder.
MIDAS_ENCODER = {
    "conv_stem.": "pretrained.layer1.0.",
    "bn1.": "pretrained.layer1.1.",
    "blocks.0.": "pretrained.layer1.3.",
    "blocks.1.": "pretrained.layer1.4.",
    "blocks.2.": "pretrained.layer2.0.",
    "blocks.3.": "pretrained.layer3.0.",
    "blocks.4.": "pretrained.layer3.1.",
    "blocks.5.": "pretrained.layer4.0.",
    "blocks.6.": "pretrained.layer4.1.",
}

_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 64,
}
_DECODER = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 8}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpt_large": (
        "DPTForDepthEstimation",
        {**_VIT, **_DECODER, "patch_size": 16, "backbone_out_indices": [0, 1, 2, 3]},
    ),
    "dpt_hybrid": (
        "DPTForDepthEstimation",
        {
            **_VIT,
            **_DECODER,
            "patch_size": 16,
            "backbone_out_indices": [0, 1, 2, 3],
            "is_hybrid": True,
            "reassemble_factors": [1, 1, 1, 0.5],
            "backbone_featmap_shape": [1, 32, 4, 4],
            "backbone_config": {
                "model_type": "bit",
                "global_padding": "same",
                "layer_type": "bottleneck",
                "embedding_size": 8,
                "hidden_sizes": [8, 8, 32],
                "depths": [1, 1, 1],
                "num_groups": 2,
                "out_features": ["stage1", "stage2", "stage3"],
                "embedding_dynamic_padding": True,
            },
        },
    ),
    "zoedepth": (
        "ZoeDepthForDepthEstimation",
        {
            **_DECODER,
            "backbone_config": {
                "model_type": "beit",
                **_VIT,
                "patch_size": 16,
                "use_relative_position_bias": True,
                "reshape_hidden_states": False,
                "out_features": ["stage1", "stage2", "stage3", "stage4"],
            },
            "num_relative_features": 4,
            "bottleneck_features": 8,
            "bin_embedding_dim": 8,
            "bin_configurations": [
                {"name": "nyu", "n_bins": 8, "min_depth": 0.001, "max_depth": 10.0},
                {"name": "kitti", "n_bins": 8, "min_depth": 0.001, "max_depth": 80.0},
            ],
            "num_patch_transformer_layers": 4,
            "patch_transformer_hidden_size": 128,  # the library knows no other
            "patch_transformer_intermediate_size": 16,
            "patch_transformer_num_attention_heads": 2,
        },
    ),
} | {
    f"depth_anything_v2_{size}": (
        "DepthAnythingForDepthEstimation",
        {
            **_DECODER,
            "reassemble_hidden_size": 16,
            "head_hidden_size": 4,
            "backbone_config": {
                "model_type": "dinov2",
                **_VIT,
                "mlp_ratio": 2,
                "image_size": 70,
                "patch_size": 14,
                "out_indices": [1, 2, 3, 4],
                "reshape_hidden_states": False,
            },
        },
    )
    for size in ("small", "base", "large")
}


def hub_network(name: str) -> Any:
    """A tiny network of the library itself, with weights drawn from torch's generator."""
    import transformers

    task, config = CONFIGS[name]
    cls = getattr(transformers, task)
    network = cls(cls.config_class(**config))
    network.load_state_dict({key: drawn(key, tensor) for key, tensor in network.state_dict().items()})
    return network.eval()


def hub_folder(path: Path, name: str) -> None:
    """Writes config.json and model.safetensors; those of DPT lack unused layers, like Intel's files."""
    network = hub_network(name)
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(network.config.to_diff_dict(), default=str))
    absent = "neck.fusion_stage.layers.0.residual_layer1." if name.startswith("dpt") else "nothing"
    state = {key: t.contiguous() for key, t in network.state_dict().items() if not key.startswith(absent)}
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})


def midas_small(path: Path) -> None:
    """Writes the single file, at full size, because there is no smaller architecture."""
    torch.save(midas_tensors(), path.with_suffix(".pt"))


def midas_tensors() -> dict[str, Tensor]:
    """482 tensors under the names of MiDaS v2.1 small."""
    import timm

    encoder = timm.create_model(
        "tf_efficientnet_lite3", pretrained=False, features_only=True, out_indices=(1, 2, 3, 4)
    ).state_dict()
    shapes = {}
    for name, tensor in encoder.items():
        begin = next(begin for begin in MIDAS_ENCODER if name.startswith(begin))
        shapes[MIDAS_ENCODER[begin] + name.removeprefix(begin)] = tensor
    outputs = (64, 64, 128, 256)
    for level, (wide, narrow) in enumerate(((32, 64), (48, 128), (136, 256), (384, 512)), start=1):
        shapes[f"scratch.layer{level}_rn.weight"] = torch.empty(narrow, wide, 3, 3)
        block = f"scratch.refinenet{level}"
        for unit in ("resConfUnit1.conv1", "resConfUnit1.conv2", "resConfUnit2.conv1", "resConfUnit2.conv2"):
            shapes[f"{block}.{unit}.weight"] = torch.empty(narrow, narrow, 3, 3)
            shapes[f"{block}.{unit}.bias"] = torch.empty(narrow)
        shapes[f"{block}.out_conv.weight"] = torch.empty(outputs[level - 1], narrow, 1, 1)
        shapes[f"{block}.out_conv.bias"] = torch.empty(outputs[level - 1])
    for position, shape in ((0, (32, 64, 3, 3)), (2, (32, 32, 3, 3)), (4, (1, 32, 1, 1))):
        shapes[f"scratch.output_conv.{position}.weight"] = torch.empty(shape)
        shapes[f"scratch.output_conv.{position}.bias"] = torch.empty(shape[0])
    return {name: drawn(name, tensor) for name, tensor in shapes.items()}


def drawn(name: str, like: Tensor) -> Tensor:
    """Random weights that propagate a signal and keep the last ReLU active, so that no map is constant."""
    if not like.is_floating_point():
        return like.clone()
    noise = torch.randn(like.shape)
    if name.endswith("running_var"):
        return 1 + 0.1 * noise.abs()
    if like.dim() > 1:
        weight = noise / like[0].numel() ** 0.5
        return weight.abs() if len(like) == 1 and like.dim() == 4 else weight
    return (1.0 if name.endswith("weight") or len(like) == 1 else 0.0) + 0.1 * noise


DEPTH_MAKERS: dict[str, Callable[[Path], None]] = {
    "midas_small": midas_small,
    **{name: partial(hub_folder, name=name) for name in CONFIGS},
}
