"""The edge loss as the paper ran it, without eps: its gradient is NaN wherever a render is locally constant."""

from typing import ClassVar

from model.losses.edge import Edge


class EdgePublished(Edge):
    """For reproducing the paper's row; expect non-finite gradients on flat backgrounds."""

    eps: ClassVar[float] = 0.0
