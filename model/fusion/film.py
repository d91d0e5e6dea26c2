"""Feature-wise linear modulation (Perez et al. 2018): the context scales and shifts every channel.

A vector does so alike for all pixels; a map pixel by pixel, after being averaged down to the feature map's size.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from model.fusion import ContextType, Place, Source
from model.fusion.base import Fusion
from model.fusion.fuser import Fuser
from model.types import Context


class _Modulation(Fuser):
    """h * (1 + scale) + shift, both linear in the normalised context, and initially close to 0."""

    def __init__(self, source: Source, context_type: ContextType, width: int, channels: int) -> None:
        super().__init__(source)
        # One group per channel standardises each map, as relative depth has arbitrary scale.
        self.norm = nn.LayerNorm(width) if context_type == "vector" else nn.GroupNorm(width, width)
        self.scale_shift = nn.Conv2d(width, 2 * channels, 1)
        # The gain of the published blocks' last layers: training starts from the unconditioned network.
        nn.init.xavier_uniform_(self.scale_shift.weight, gain=1e-5)
        nn.init.zeros_(self.scale_shift.bias)  # type: ignore[arg-type]

    def forward(self, h: Tensor, context: Context) -> Tensor:
        value = self.norm(self.read(context))
        grid = value[:, :, None, None] if value.dim() == 2 else F.interpolate(value, h.shape[-2:], mode="area")
        scale, shift = self.scale_shift(grid).chunk(2, dim=1)
        return h * (1 + scale) + shift


class Film(Fusion):
    """Enters in all encoder and decoder blocks at the attention resolutions, after their self-attention."""

    accepts: ClassVar[frozenset[ContextType]] = frozenset({"vector", "map"})
    place: ClassVar[Place] = "block"

    def block_module(self, channels: int) -> nn.Module:
        return _Modulation(self.source, self.context_type, self.width, channels)
