"""The dataset's own depth with a known amount of noise: a control for the accuracy that a depth model needs."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from model.depth.control import ControlDepth
from model.depth.oracle import true_inverse_depth
from model.options import options
from model.types import Views


@options
class NoisyOracleOptions:
    """Strength of the noise and of the quantisation."""

    #: standard deviation of the normal noise on every surface pixel, relative to its inverse depth
    sigma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    #: equal steps from 0 to 1 that the noisy map is rounded to; null leaves it as it is
    levels: Annotated[int, Field(ge=2)] | None = None
    #: seed of the noise; independent of the trial's seed
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class NoisyOracleDepth(ControlDepth):
    """The oracle's map times (1 + sigma n), clamped at 0, rounded to levels.

    The noise n is a function of (seed, frame): a frame has the same noise in every epoch and every trial.
    """

    Options: ClassVar[type] = NoisyOracleOptions
    needs_depth: ClassVar[bool] = True

    def forward(self, views: Views) -> Tensor:
        truth = true_inverse_depth(views)
        noise = torch.stack([self._noise(frame, truth.shape[-3:]) for frame in views.frames.flatten().tolist()])
        noisy = (truth * (1 + self.options.sigma * noise.view_as(truth).to(truth))).clamp(min=0)
        if self.options.levels is None:
            return noisy
        steps = self.options.levels - 1
        return (noisy * steps).round() / steps

    def _noise(self, frame: int, shape: torch.Size) -> Tensor:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.options.seed, frame])))
        return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))
