"""Maps the backbone's feature map to the raw parameters of one or two Gaussians per pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import expm1, log

import torch
from torch import Tensor, nn

#: Prefix of the groups of the second Gaussian.
SECOND = "second_"
#: Initial distance of the second Gaussian behind the first, as a share of the depth range.
_FIRST_STEP = 0.1


@dataclass(frozen=True)
class Group:
    """One kind of raw parameter: number of channels, and initialisation of its part of the head."""

    name: str
    channels: int
    gain: float
    bias: float


def gaussian_groups(options: Mapping[str, float], sh_degree: int, per_pixel: int = 1) -> list[Group]:
    """The channel groups in the published order, `options` as in `HeadOptions`.

    With two Gaussians per pixel the groups of the second follow; instead of a depth it has a step behind the first.
    """
    groups = [
        Group("depth", 1, options["depth_scale"], options["depth_bias"]),
        Group("offset", 3, options["offset_scale"], options["offset_bias"]),
        Group("opacity", 1, options["opacity_scale"], options["opacity_bias"]),
        Group("scale", 3, options["scale_scale"], log(options["scale_bias"])),
        Group("rotation", 4, 1.0, 0.0),
        Group("sh_dc", 3, 5.0, 0.0),
    ]
    if sh_degree > 0:
        groups.append(Group("sh_rest", 3 * ((sh_degree + 1) ** 2 - 1), 0.0, 0.0))
    if per_pixel == 1:
        return groups
    step = Group(f"{SECOND}step", 1, options["depth_scale"], log(expm1(_FIRST_STEP)))  # the inverse of softplus
    return [*groups, step, *(replace(group, name=SECOND + group.name) for group in groups[1:])]


class GaussianHead(nn.Module):
    """A 1x1 convolution whose output is split into named groups: (B, C, H, W) -> {name: (B, n, H, W)}.

    As published, it has equally many input and output channels: C is the sum of all n.
    """

    def __init__(self, groups: list[Group]) -> None:
        super().__init__()
        self.sizes = {group.name: group.channels for group in groups}
        self.channels = sum(self.sizes.values())
        self.out = nn.Conv2d(self.channels, self.channels, 1)
        weights = self.out.weight.split(list(self.sizes.values()))
        biases = self.out.bias.split(list(self.sizes.values()))  # type: ignore[union-attr]
        with torch.no_grad():
            for group, weight, bias in zip(groups, weights, biases, strict=True):
                # The fan-out of a group is its own width, not the whole head's.
                nn.init.xavier_uniform_(weight, gain=group.gain)
                bias.fill_(group.bias)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        parts = self.out(features).split(list(self.sizes.values()), dim=1)
        return dict(zip(self.sizes, parts, strict=True))
