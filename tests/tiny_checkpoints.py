"""Small checkpoints in the formats that the real ones are published in, with random tensors.

They use the same code path as the real weights; only sizes differ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.tiny_depth_checkpoints import DEPTH_MAKERS

#: Sizes of a DINOv2; heads have 64 channels, as in the published ones.
DINOV2 = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 1, "image_size": 56, "patch_size": 14}
CLIP_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TIMM_ARGS = {"embed_dim": 24, "depth": 2, "num_heads": 2}


def write_tiny_checkpoint(name: str, folder: Path) -> None:
    """Writes a stand-in for these weights into a folder of weights, like a published file that a user puts there.

    The tensors are a function of the name.  Raises KeyError for a name without a maker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(name.encode()))
        MAKERS[name](folder / name)


def resnet34(path: Path) -> None:
    """Writes a torchvision file, in full size, since there is no smaller one."""
    import torchvision

    torch.save(torchvision.models.resnet34().state_dict(), path.with_suffix(".pth"))


def clip(path: Path) -> None:
    """Writes a whole CLIP in the hub's format, including the unused text encoder."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 40,
        "max_position_embeddings": 8,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    scrambled(CLIPModel(CLIPConfig(text_config=text, vision_config=CLIP_VISION, projection_dim=24))).save_pretrained(
        path
    )


def dinov2(path: Path, *, registers: int = 0) -> None:
    """Writes a folder in the hub's format."""
    import transformers

    if registers:
        config = transformers.Dinov2WithRegistersConfig(**DINOV2, num_register_tokens=registers)
        model: Any = transformers.Dinov2WithRegistersModel(config)
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**DINOV2))
    scrambled(model).save_pretrained(path)


def dinov2_classifier(path: Path) -> None:
    """Writes one file as Facebook's code saves it: backbone and linear head."""
    tensors = {f"backbone.{name}": tensor for name, tensor in facebook_dinov2(registers=4).items()}
    tensors["linear_head.weight"] = torch.randn(1000, 5 * 64) / 18
    tensors["linear_head.bias"] = torch.randn(1000)
    torch.save(tensors, path.with_suffix(".pth"))


def facebook_dinov2(*, registers: int = 0) -> dict[str, Tensor]:
    """The tensors of a DINOv2 under its authors' names."""
    width, hidden, layers, patch, grid = 64, 256, 4, 14, 4
    tensors = {
        "cls_token": torch.randn(1, 1, width),
        "pos_embed": torch.randn(1, grid**2 + 1, width),
        "mask_token": torch.randn(1, width),
        "patch_embed.proj.weight": torch.randn(width, 3, patch, patch) / patch,
        "patch_embed.proj.bias": torch.randn(width),
        "norm.weight": 1 + 0.1 * torch.randn(width),
        "norm.bias": 0.1 * torch.randn(width),
    }
    if registers:
        tensors["register_tokens"] = torch.randn(1, registers, width)
    for index in range(layers):
        block = {
            "norm1.weight": 1 + 0.1 * torch.randn(width),
            "norm1.bias": 0.1 * torch.randn(width),
            "attn.qkv.weight": torch.randn(3 * width, width) / 8,
            "attn.qkv.bias": 0.1 * torch.randn(3 * width),
            "attn.proj.weight": torch.randn(width, width) / 8,
            "attn.proj.bias": 0.1 * torch.randn(width),
            "ls1.gamma": torch.rand(width),
            "norm2.weight": 1 + 0.1 * torch.randn(width),
            "norm2.bias": 0.1 * torch.randn(width),
            "mlp.fc1.weight": torch.randn(hidden, width) / 8,
            "mlp.fc1.bias": 0.1 * torch.randn(hidden),
            "mlp.fc2.weight": torch.randn(width, hidden) / 16,
            "mlp.fc2.bias": 0.1 * torch.randn(width),
            "ls2.gamma": torch.rand(width),
        }
        tensors |= {f"blocks.{index}.{name}": tensor for name, tensor in block.items()}
    return tensors


def timm_folder(path: Path, architecture: str, **model_args: Any) -> None:
    """Writes a folder in the hub's format as timm does."""
    import timm
    from timm.models import save_for_hf

    network = scrambled(timm.create_model(architecture, num_classes=5, **model_args))
    path.mkdir(parents=True)
    save_for_hf(network, path, model_args=model_args, safe_serialization=True)


def efficientnet_lite0(path: Path) -> None:
    """Writes tensors in timm's order under other names; there is only one size."""
    import timm

    network = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    torch.save(
        {f"tensor_{i}": tensor for i, tensor in enumerate(network.state_dict().values())}, path.with_suffix(".pth")
    )


def torchvision_features(path: Path, network: str) -> None:
    """Writes the convolutions of a torchvision classifier; there is only one size, which LPIPS needs."""
    import torchvision

    with torch.device("meta"):  # its classifier has nine parameters in ten
        shapes = getattr(torchvision.models, network)(weights=None).features.state_dict()
    tensors = {name: torch.randn(t.shape) * (2 / max(1, t[0].numel())) ** 0.5 for name, t in shapes.items()}
    torch.save({f"features.{name}": tensor for name, tensor in tensors.items()}, path.with_suffix(".pth"))


def scrambled(network: Any) -> Any:
    """The network with every parameter slightly changed, so that none keeps an initial 0 or 1."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


MAKERS: dict[str, Callable[[Path], None]] = {
    "vgg16": partial(torchvision_features, network="vgg16"),
    "alexnet": partial(torchvision_features, network="alexnet"),
    "resnet34": resnet34,
    "efficientnet_lite0": efficientnet_lite0,
    "clip_vit_b32": clip,
    "clip_vit_l14": clip,
    "dinov2_small": dinov2,
    "dinov2_base": dinov2,
    "dinov2_large": dinov2,
    "dinov2_small_reg": partial(dinov2, registers=4),
    "dinov2_base_reg": partial(dinov2, registers=4),
    "dinov2_large_reg": partial(dinov2, registers=4),
    "dinov2_vitl14_reg_lc": dinov2_classifier,
    **DEPTH_MAKERS,
}
