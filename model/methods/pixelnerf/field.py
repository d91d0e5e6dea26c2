"""The networks of a radiance field: features of a point and of the sources at its projections -> colour and density.

Dimensions: B objects, V source views, N points, D hidden units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.methods.pixelnerf.options import Combination, Density

#: Frequencies of the encoding of positions, and the lowest in radians a scene unit; each is twice the one before.
NUM_FREQUENCIES, LOWEST_FREQUENCY = 6, 1.5
#: What softplus makes the density of at first.
FOG = -1.0
#: Length of an encoded position with the direction behind it.
POINT_FEATURES = 3 + 2 * NUM_FREQUENCIES * 3 + 3


def encode(positions: Tensor, directions: Tensor) -> Tensor:
    """positions, directions (..., 3) -> (..., 42): positions, their sines and cosines by frequency, and directions.

    The order is [x, sin f0 x, cos f0 x, sin f1 x, ...], each for all three axes; a cosine is the sine of a quarter turn
    more.  Directions are not encoded.
    """
    frequencies, phases = frequencies_and_phases(positions)
    waves = torch.sin(torch.addcmul(phases[:, None], positions[..., None, :], frequencies[:, None]))
    return torch.cat([positions, waves.flatten(-2), directions.expand_as(positions)], dim=-1)


def frequencies_and_phases(like: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the 12 waves (12,): each frequency twice, as sine and as cosine."""
    steps = torch.arange(NUM_FREQUENCIES, dtype=like.dtype, device=like.device)
    frequencies = (LOWEST_FREQUENCY * 2**steps).repeat_interleave(2)
    phases = torch.tensor([0, math.pi / 2], dtype=like.dtype, device=like.device).repeat(NUM_FREQUENCIES)
    return frequencies, phases


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer for rectified inputs: Kaiming's normal weights, no bias at first."""
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """x + W1 relu(W0 relu(x)), at first the identity."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.first, self.second = linear(hidden, hidden), linear(hidden, hidden)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x)), inplace=True))


class FieldNetwork(nn.Module):
    """Residual blocks; the first few see one source view each and take its features, the others their combination."""

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

        These layers and bilinear interpolation commute, because its four weights sum to 1.  So they are applied to the
        feature maps once, and the points read what comes of it.
        """
        weights: list[Tensor] = [layer.get_parameter("weight") for layer in self.injections]
        return torch.cat(weights), torch.cat([layer.get_parameter("bias") for layer in self.injections])

    def forward(self, features: Tensor, injected: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, V, N, 42), injected (B, V, N, view_blocks * D) -> colours (B, N, 3), densities (B, N)."""
        x = self.input(features)
        parts = injected.to(x.dtype).chunk(len(self.injections), dim=-1)
        for block, part in zip(self.blocks, parts, strict=False):
            x = block(x + part)
        x = x.mean(1) if self.combination == "mean" else x.amax(1)
        for block in self.blocks[len(parts) :]:
            x = block(x)
        raw = self.output(F.relu(x))
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        density = F.relu(raw[..., 3]) if self.density == "relu" else F.softplus(raw[..., 3])
        return torch.sigmoid(raw[..., :3]), density
