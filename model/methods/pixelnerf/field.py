"""The networks of a radiance field: features of a point and of the sources at its projections -> colour and density.

Dimensions: B objects, V source views, N points, D hidden units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.constants import constant
from model.methods.pixelnerf.options import Combination, Density

#: Number of frequencies of the position encoding, and the lowest in radians per scene unit; each doubles the previous.
NUM_FREQUENCIES, LOWEST_FREQUENCY = 6, 1.5
#: Initial bias of the density before softplus: a thin fog.
FOG = -1.0
#: Length of `encode`'s result: position, sine and cosine of its 3 axes at each frequency, direction.
POINT_FEATURES = 3 + 2 * NUM_FREQUENCIES * 3 + 3


def encode(positions: Tensor, directions: Tensor) -> Tensor:
    """positions, directions (..., 3) -> (..., 42): positions, their sines and cosines by frequency, and directions.

    The order is [x, sin f0 x, cos f0 x, sin f1 x, ...], each for all three axes; a cosine is a sine with a phase of
    a quarter turn.  Directions are not encoded.
    """
    frequencies, phases = frequencies_and_phases(positions)
    waves = torch.sin(torch.addcmul(phases[:, None], positions[..., None, :], frequencies[:, None]))
    return torch.cat([positions, waves.flatten(-2), directions.expand_as(positions)], dim=-1)


def frequencies_and_phases(like: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies and phases of the 12 waves, (12,) each: every frequency twice, as sine and as cosine."""
    frequencies = [LOWEST_FREQUENCY * 2**step for step in range(NUM_FREQUENCIES) for _ in range(2)]
    return constant(frequencies, like), constant([0.0, math.pi / 2] * NUM_FREQUENCIES, like)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer for rectified inputs: Kaiming's normal weights, zero initial bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """x + W1 relu(W0 relu(x)), initially the identity."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.first, self.second = linear(hidden, hidden), linear(hidden, hidden)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(F.relu(self.first(F.relu(x)), inplace=True))
        return change.add_(x)


class FieldNetwork(nn.Module):
    """An MLP of residual blocks from a point to its colour and density.

    The first `view_blocks` blocks process the point in the frame of each source view, with that view's features added
    before each of them.  The other blocks process the combination over views.
    """

    def __init__(
        self,
        latent: int,
        *,
        hidden: int = 512,
        blocks: int = 5,
        view_blocks: int = 3,
        combination: Combination = "mean",
        density: Density = "relu",
    ) -> None:
        """latent: channels of the features at a projection; view_blocks: blocks before source views are combined."""
        super().__init__()
        self.combination, self.density = combination, density
        self.input = linear(POINT_FEATURES, hidden)
        self.blocks = nn.ModuleList(ResidualBlock(hidden) for _ in range(blocks))
        self.injections = nn.ModuleList(linear(latent, hidden) for _ in range(view_blocks))
        self.output = linear(hidden, 4)
        if density == "softplus":
            nn.init.zeros_(self.output.weight.data[3])
            nn.init.constant_(self.output.bias.data[3], FOG)

    @property
    def injection(self) -> tuple[Tensor, Tensor]:
        """Weight (view_blocks * D, latent) and bias of all layers through which source features enter.

        These layers and bilinear interpolation commute, because its four weights sum to 1.  So they are applied once to
        the feature maps, and the points interpolate the results.
        """
        weights: list[Tensor] = [layer.get_parameter("weight") for layer in self.injections]
        return torch.cat(weights), torch.cat([layer.get_parameter("bias") for layer in self.injections])

    def forward(self, features: Tensor, injected: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, V, N, 42), injected (B, V, N, view_blocks * D) -> colours (B, N, 3), densities (B, N)."""
        batch, views, points = features.shape[:3]
        # One matrix, (B * V * N, D): a layer's result for more dimensions is a view, and in-place operations copy it.
        x = self.input(features.flatten(0, 2))
        parts = injected.flatten(0, 2).to(x.dtype).chunk(len(self.injections), dim=-1)
        for block, part in zip(self.blocks, parts, strict=False):
            x = block(x.add_(part))
        if views > 1:
            x = x.view(batch, views, points, -1)
            x = (x.mean(1) if self.combination == "mean" else x.amax(1)).flatten(0, 1)
        for block in self.blocks[len(parts) :]:
            x = block(x)
        raw = self.output(F.relu(x)).view(batch, points, -1)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        density = F.relu(raw[..., 3]) if self.density == "relu" else F.softplus(raw[..., 3])
        return torch.sigmoid(raw[..., :3]), density
