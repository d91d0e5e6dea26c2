"""Base class of fusion modules, which know their source."""

from __future__ import annotations

from torch import Tensor, nn

from model.fusion import Source
from model.types import Context


class Fuser(nn.Module):
    """A module that reads one source of the context, with views folded into the batch."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source: Source = source

    def read(self, context: Context) -> Tensor:
        """(B * V, ...) values of this fuser's source.  Raises ValueError where the context lacks it."""
        value = context.get(self.source)
        if value is None:
            raise ValueError(f"the network is conditioned on {self.source}, but the context has none")
        return value.flatten(0, 1)
