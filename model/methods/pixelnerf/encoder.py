"""Source views -> feature maps at four scales: a ResNet34 without its last stage, as PixelNeRF uses it.

Module names are torchvision's.  Dimensions: N images, H x W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.methods.pixelnerf.options import PUBLISHED_WIDTH, Alignment, strides

#: Residual blocks of the four stages of a ResNet34.
_BLOCKS = (3, 4, 6, 3)


class Encoder(nn.Module):
    """ResNet34 features of 1, 1, 2 and 4 times `width` channels."""

    def __init__(
        self, width: int = PUBLISHED_WIDTH, *, first_pool: bool = True, frozen_statistics: bool = False
    ) -> None:
        """first_pool: the pooling after the first map, which halves all later maps; small images do without it.

        frozen_statistics: batch normalisation uses its running statistics during training too.
        """
        super().__init__()
        self.first_pool, self.frozen_statistics = first_pool, frozen_statistics
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(_BLOCKS[0], width, width, stride=1)
        self.layer2 = _stage(_BLOCKS[1], width, 2 * width, stride=2)
        self.layer3 = _stage(_BLOCKS[2], 2 * width, 4 * width, stride=2)
        if width == PUBLISHED_WIDTH:
            # Unused, but part of published files.
            self.layer4 = _stage(_BLOCKS[3], 4 * width, 8 * width, stride=2).requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        #: channels of each map
        self.channels = (width, width, 2 * width, 4 * width)
        #: stride of each map, in cells of the first
        self.strides = tuple(stride // 2 for stride in strides(first_pool=first_pool))

    def train(self, mode: bool = True) -> Encoder:
        super().train(mode)
        if self.frozen_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images (N, 3, H, W) in [0, 1] -> maps (N, C, h, w), the first of half the size of the images."""
        first = F.relu(self.bn1(self.conv1(images * 2 - 1)), inplace=True)
        pooled = F.max_pool2d(first, kernel_size=3, stride=2, padding=1) if self.first_pool else first
        second = self.layer1(pooled)
        third = self.layer2(second)
        return first, second, third, self.layer3(third)

    def load_imagenet(self, tensors: Mapping[str, Tensor]) -> None:
        """Take torchvision's ResNet34 weights; the classifier is left out.

        Raises ValueError where the tensors are those of another network.
        """
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
        try:
            self.load_state_dict(kept)
        except RuntimeError as error:
            raise ValueError(f"these are not the weights of a ResNet34 of width {PUBLISHED_WIDTH}: {error}") from error


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    from torchvision.models.resnet import BasicBlock, conv1x1  # imports torch's compiler: three seconds

    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


def project(
    pyramid: Sequence[Tensor], strides: Sequence[int], weight: Tensor, bias: Tensor, alignment: Alignment
) -> Tensor:
    """A linear layer (O, C) on the maps, resized to the first's size and concatenated to C channels: (N, h, w, O).

    Resizing and the layer commute, so each map is projected at its own size first, where it has the fewest cells.
    """
    size = (pyramid[0].shape[-2], pyramid[0].shape[-1])
    parts = weight.split([features.shape[1] for features in pyramid], dim=1)
    projected = bias.expand(1, 1, 1, -1)
    for features, part, stride in zip(pyramid, parts, strides, strict=True):
        projected = projected + resize(F.linear(features.permute(0, 2, 3, 1), part), size, stride, alignment)
    return projected


def resize(features: Tensor, size: tuple[int, int], stride: int, alignment: Alignment) -> Tensor:
    """A map (N, h, w, C) interpolated bilinearly to `size`; one of its cells covers `stride` cells of the result."""
    batch, height, width, channels = features.shape
    if (height, width) == size:
        return features
    # Two products with small matrices, channels last: on a CPU much faster than `interpolate`.
    down = interpolation(height, size[0], stride, alignment, features)
    right = interpolation(width, size[1], stride, alignment, features)
    taller = down @ features.reshape(batch, height, width * channels)
    return (right @ taller.view(batch * size[0], width, channels)).view(batch, *size, channels)


def interpolation(cells: int, wanted: int, stride: int, alignment: Alignment, like: Tensor) -> Tensor:
    """The matrix (wanted, cells) that interpolates a row of cells linearly, with the last cell as padding.

    Places are in float32 or better: bfloat16 has no fractions of a cell beyond the 64th.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    index = torch.arange(wanted, dtype=dtype, device=like.device)
    places = index / stride if alignment == "strided" else index * ((cells - 1) / max(wanted - 1, 1))
    distances = places.clamp(max=cells - 1)[:, None] - torch.arange(cells, dtype=dtype, device=like.device)
    return (1 - distances.abs()).clamp(min=0).to(like.dtype)
