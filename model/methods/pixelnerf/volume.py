"""Volume rendering: colours and densities along rays -> colour, opacity and depth.

Dimensions: ..., R rays, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Added to the transparency of every interval, as published.
_LEAST_TRANSPARENCY = 1e-10


@dataclass(frozen=True, slots=True)
class Composite:
    """Result of volume rendering along R rays."""

    colours: Tensor  # (..., R, 3) over black
    weights: Tensor  # (..., R, S) share of each sample in them
    opacity: Tensor  # (..., R) sum of the shares
    depth: Tensor  # (..., R) mean distance of the samples, times the opacity


def composite(colours: Tensor, densities: Tensor, distances: Tensor, far: Tensor) -> Composite:
    """Composites colours (..., R, S, 3) and densities at sorted distances (..., R, S), up to far (..., R).

    A sample represents the interval to the next one, the last that to `far`.
    """
    lengths = torch.diff(distances, dim=-1, append=far[..., None])
    transparency = torch.exp(-lengths * densities)
    # The cumulative product as a sum of logarithms: the gradient of `cumprod` synchronises with a GPU.
    passed = torch.log(transparency + _LEAST_TRANSPARENCY).cumsum(-1)
    in_front = torch.cat([torch.zeros_like(passed[..., :1]), passed[..., :-1]], dim=-1)
    weights = (1 - transparency) * torch.exp(in_front)
    return Composite(
        colours=(weights[..., None] * colours).sum(-2),
        weights=weights,
        opacity=weights.sum(-1),
        depth=(weights * distances).sum(-1),
    )
