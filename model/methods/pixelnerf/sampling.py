"""Sampling along rays: stratified, by importance, and around the estimated depth.

All distances are along rays.  Random numbers are arguments, so that they do not depend on the grouping of rays.
Dimensions: ..., R rays, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.types import TensorFields

#: Added to every weight before normalisation to probabilities.
_FLOOR = 1e-5


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Numbers of samples per ray."""

    coarse: int
    importance: int
    depth: int

    @property
    def fine(self) -> int:
        """Number of samples that the fine network evaluates: all of them."""
        return self.coarse + self.importance + self.depth


@dataclass(frozen=True, slots=True)
class Draws(TensorFields):
    """The random numbers of R rays of each of B objects."""

    coarse: Tensor  # (B, R, coarse) uniform in [0, 1), the place in an interval
    interval: Tensor  # (B, R, importance) uniform in [0, 1), which interval
    within: Tensor  # (B, R, importance) uniform in [0, 1), the place in it
    depth: Tensor  # (B, R, depth) normal

    @classmethod
    def make(
        cls, shape: tuple[int, int], counts: SampleCounts, like: Tensor, generator: torch.Generator | None = None
    ) -> Draws:
        """Draws for (B, R) rays, by default from torch's own generator."""
        kind = {"dtype": like.dtype, "device": like.device, "generator": generator}
        return cls(
            coarse=torch.rand(*shape, counts.coarse, **kind),  # type: ignore[call-overload]
            interval=torch.rand(*shape, counts.importance, **kind),  # type: ignore[call-overload]
            within=torch.rand(*shape, counts.importance, **kind),  # type: ignore[call-overload]
            depth=torch.randn(*shape, counts.depth, **kind),  # type: ignore[call-overload]
        )

    def part(self, start: int, stop: int) -> Draws:
        """Draws of rays start..stop-1 of every object."""
        return Draws(
            self.coarse[:, start:stop],
            self.interval[:, start:stop],
            self.within[:, start:stop],
            self.depth[:, start:stop],
        )


def stratified(near: Tensor, far: Tensor, uniform: Tensor) -> Tensor:
    """One distance in each of S equal intervals between near and far (..., R): (..., R, S), in order."""
    count = uniform.shape[-1]
    steps = torch.arange(count, dtype=uniform.dtype, device=uniform.device)
    return _between(near, far, (steps + uniform) / count)


def by_importance(near: Tensor, far: Tensor, weights: Tensor, interval: Tensor, within: Tensor) -> Tensor:
    """Distances (..., R, M) in the intervals of stratified samples, drawn in proportion to their weights (..., R, S).

    `interval` selects an interval, `within` the uniform position in it.  Weights get no gradient.
    """
    weights = weights.detach() + _FLOOR
    shares = weights / weights.sum(-1, keepdim=True)
    # The first interval whose cumulative share exceeds the number.
    chosen = torch.searchsorted(shares.cumsum(-1), interval.contiguous(), right=True)
    count = weights.shape[-1]
    return _between(near, far, (chosen.clamp(max=count - 1) + within) / count)


def around_depth(near: Tensor, far: Tensor, depth: Tensor, deviation: float, normal: Tensor) -> Tensor:
    """Distances (..., R, M), normally distributed around `depth` (..., R), clamped to near and far."""
    drawn = depth[..., None] + deviation * normal
    return torch.minimum(torch.maximum(drawn, near[..., None]), far[..., None])


def _between(near: Tensor, far: Tensor, share: Tensor) -> Tensor:
    return near[..., None] * (1 - share) + far[..., None] * share
