"""The same depth everywhere: a control for the effect of a depth input without information."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from model.depth.control import ControlDepth
from model.options import options
from model.types import Views


@options
class ConstantOptions:
    """Options of the constant depth."""

    #: inverse depth of every pixel
    value: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


class ConstantDepth(ControlDepth):
    """One value in every pixel of every picture."""

    Options: ClassVar[type] = ConstantOptions
    cached: ClassVar[bool] = False

    def forward(self, views: Views) -> Tensor:
        return views.images.new_full((*views.images.shape[:2], 1, *views.images.shape[-2:]), self.options.value)
