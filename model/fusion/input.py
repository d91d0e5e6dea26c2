"""A map as an extra channel of the input image, values unchanged (published)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from model.fusion import ContextType, Place
from model.fusion.base import Fusion
from model.fusion.fuser import Fuser
from model.types import Context


class _AppendChannels(Fuser):
    def forward(self, images: Tensor, context: Context) -> Tensor:
        return torch.cat([images, self.read(context)], dim=1)


class InputChannel(Fusion):
    """The map is a channel after red, green and blue; it is not normalised."""

    accepts: ClassVar[frozenset[ContextType]] = frozenset({"map"})
    place: ClassVar[Place] = "input"

    @property
    def input_channels(self) -> int:
        return self.width

    def input_module(self) -> nn.Module:
        return _AppendChannels(self.source)
