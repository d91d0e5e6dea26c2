"""MiDaS v2.1 small: EfficientNet-Lite3 and a light refining decoder (Ranftl et al., TPAMI 2022; MIT licence)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from model.depth.network import ReluDepthNetwork
from model.preprocess import IMAGENET, Triple

#: Channels of the encoder's maps at strides 4, 8, 16, 32, and of their projections for the decoder.
_ENCODER_CHANNELS = (32, 48, 136, 384)
_DECODER_CHANNELS = (64, 128, 256, 512)

#: Prefixes of published names -> ours; other names are equal.
_ENCODER_PARTS = {
    "pretrained.layer1.0.": "encoder.conv_stem.",
    "pretrained.layer1.1.": "encoder.bn1.",
    "pretrained.layer1.3.": "encoder.blocks.0.",
    "pretrained.layer1.4.": "encoder.blocks.1.",
    "pretrained.layer2.0.": "encoder.blocks.2.",
    "pretrained.layer3.0.": "encoder.blocks.3.",
    "pretrained.layer3.1.": "encoder.blocks.4.",
    "pretrained.layer4.0.": "encoder.blocks.5.",
    "pretrained.layer4.1.": "encoder.blocks.6.",
}


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return out


class _Refinement(nn.Module):
    """Adds this stride's map to the coarser path, refines the sum, and doubles its size."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.resConfUnit1 = _Residual(channels)  # unused at the coarsest stride, but part of the file
        self.resConfUnit2 = _Residual(channels)
        self.out_conv = nn.Conv2d(channels, out_channels, 1)

    def forward(self, path: Tensor | None, features: Tensor) -> Tensor:
        total = features if path is None else path + self.resConfUnit1(features)
        # Corner pixel centres are aligned here, unlike in the head.
        larger = F.interpolate(self.resConfUnit2(total), scale_factor=2, mode="bilinear", align_corners=True)
        out: Tensor = self.out_conv(larger)
        return out


class MidasSmallNetwork(nn.Module):
    """(N, 3, H, W) -> relative inverse depth (N, 1, H, W); sides are multiples of 32."""

    def __init__(self) -> None:
        import timm

        super().__init__()
        self.encoder = timm.create_model(
            "tf_efficientnet_lite3", pretrained=False, features_only=True, out_indices=(1, 2, 3, 4)
        )
        self.scratch = nn.Module()
        finer = _DECODER_CHANNELS[0]
        for level, (wide, narrow) in enumerate(zip(_ENCODER_CHANNELS, _DECODER_CHANNELS, strict=True), start=1):
            self.scratch.add_module(f"layer{level}_rn", nn.Conv2d(wide, narrow, 3, padding=1, bias=False))
            self.scratch.add_module(f"refinenet{level}", _Refinement(narrow, finer))
            finer = narrow
        self.scratch.add_module(
            "output_conv",
            nn.Sequential(
                nn.Conv2d(64, 32, 3, padding=1),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(32, 32, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(32, 1, 1),
                nn.ReLU(),
            ),
        )

    def forward(self, images: Tensor) -> Tensor:
        path: Tensor | None = None
        for level, features in reversed(list(enumerate(self.encoder(images), start=1))):
            narrowed = self.scratch.get_submodule(f"layer{level}_rn")(features)
            path = self.scratch.get_submodule(f"refinenet{level}")(path, narrowed)
        out: Tensor = self.scratch.get_submodule("output_conv")(path)
        return out


class MidasSmall(ReluDepthNetwork):
    """MiDaS_small of the torch hub, 21.3 M parameters."""

    name: ClassVar[str] = "midas_small"
    side: ClassVar[int] = 256
    stride: ClassVar[int] = 32
    normalisation: ClassVar[tuple[Triple, Triple]] = IMAGENET

    @classmethod
    def architecture(cls) -> nn.Module:
        return MidasSmallNetwork()

    @classmethod
    def loaded(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        network = cls.architecture()
        try:
            network.load_state_dict({_our_name(name): tensor for name, tensor in tensors.items()})
        except RuntimeError as error:
            raise ValueError(f"these are not the weights of {cls.name}: {error}") from error
        return network

    @classmethod
    def last_convolution(cls, network: nn.Module) -> nn.Conv2d:
        layer = network.get_submodule("scratch.output_conv.4")
        assert isinstance(layer, nn.Conv2d)
        return layer


def _our_name(published: str) -> str:
    for theirs, ours in _ENCODER_PARTS.items():
        if published.startswith(theirs):
            return ours + published.removeprefix(theirs)
    return published
