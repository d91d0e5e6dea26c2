"""Conditioning of the network on camera poses: FiLM after Perez et al. 2018, as in Splatter Image.

The pose becomes a vector of cosines and sines; two layers map it to the vector by which every residual block shifts
its channels.  With one source view, whose camera frame is the world frame, it carries no information.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: frequencies per scalar
_FREQUENCIES = 5
_LONGEST = 10_000
#: six scalars, a cosine and a sine of each at every frequency
POSE_CHANNELS = 6 * 2 * _FREQUENCIES


def embed_pose(camera_to_world: Tensor) -> Tensor:
    """(..., 4, 4) on column vectors -> (..., 60): the camera's centre, then its z axis, each in a Fourier encoding.

    A scalar s becomes [cos(s f_0), ..., cos(s f_4), sin(s f_0), ..., sin(s f_4)] with f_i = 10000^(-i/5).
    """
    # Frequencies are float32 for any dtype of the pose, which reproduces the published values bitwise.
    exponents = torch.arange(_FREQUENCIES, dtype=torch.float32, device=camera_to_world.device) / _FREQUENCIES
    frequencies = ((1 / _LONGEST) ** exponents).to(camera_to_world.dtype)
    scalars = torch.cat([camera_to_world[..., :3, 3], camera_to_world[..., :3, 2]], dim=-1)
    phases = scalars[..., None] * frequencies
    return torch.cat([phases.cos(), phases.sin()], dim=-1).flatten(-2)


class CameraMapping(nn.Module):
    """Pose embeddings (B, in_channels) -> camera vectors (B, out_channels)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer0 = linear(in_channels, out_channels)
        self.layer1 = linear(out_channels, out_channels)

    def forward(self, embedding: Tensor) -> Tensor:
        # Published networks swap the halves of the vector: here, the z axis comes before the centre.
        embedding = embedding.roll(embedding.shape[-1] // 2, dims=-1)
        return F.silu(self.layer1(F.silu(self.layer0(embedding))))


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer with the network's initialisation: Glorot's uniform weights, zero bias."""
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
