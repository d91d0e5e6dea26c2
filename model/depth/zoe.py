"""ZoeDepth (Bhat et al., 2023): metric depth, returned as its reciprocal like the others' relative inverse depth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.depth.dpt import UNUSED
from model.depth.network import DepthNetwork
from model.hub import load_hub_network
from model.preprocess import HALF, Triple, prepare

_TASK = "ZoeDepthForDepthEstimation"

#: Metres; the model's own least depth, which keeps reciprocals finite.
_LEAST_DEPTH = 1e-3


class ZoeDepth(DepthNetwork):
    """Intel/zoedepth-nyu-kitti, 345 M parameters: metres in rooms and streets, returned as 1 / metres.

    An object on a plain background is neither, so its metres mean little; as for the other models, the shape of the
    map matters.  `correct` also pads images by reflection and crops the map again, as the model's
    own processor does; square images then have 384 px.  The processor's optional average with the mirrored
    image is omitted.
    """

    name: ClassVar[str] = "zoedepth"
    side: ClassVar[int] = 384
    stride: ClassVar[int] = 32
    normalisation: ClassVar[tuple[Triple, Triple]] = HALF

    @classmethod
    def loaded(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        return load_hub_network(_TASK, config, tensors, name=cls.name, unused=UNUSED)

    def infer(self, images: Tensor) -> Tensor:
        if self.preprocess != "correct":
            return super().infer(images)
        height, width = images.shape[-2:]
        rows, columns = _margin(height), _margin(width)
        padded = F.pad(images, (columns, columns, rows, rows), mode="reflect")
        return super().infer(padded)[..., rows : rows + height, columns : columns + width]

    def prepared(self, images: Tensor) -> Tensor:
        if self.preprocess != "correct":
            return super().prepared(images)
        side, (mean, std) = self.resolution or self.side, self.normalisation
        # Its processor resizes with aligned corner centres.
        resized = F.interpolate(images, (side, side), mode="bilinear", align_corners=True)
        return prepare(resized, None, mean, std)

    def inverse_depth(self, prepared: Tensor) -> Tensor:
        # One at a time: the network decides for a whole batch whether it shows rooms or streets.
        metres = torch.cat([self.network(picture[None]).predicted_depth for picture in prepared])
        return metres.unsqueeze(1).clamp(min=_LEAST_DEPTH).reciprocal()


def _margin(length: int) -> int:
    """Padding of the model's own processor on each side, pixels; reflection padding must be less than `length`."""
    return min(int(3 * math.sqrt(length / 2)), length - 1)
