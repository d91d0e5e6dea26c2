"""A moving average of a network's weights; if enabled, evaluations use it and the next stage starts from it."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jobs.config import EmaConfig

Network = TypeVar("Network", bound=nn.Module)

#: Exponent of the warm-up, by Katherine Crowson: the default of ema-pytorch, and so of Splatter Image's training.
_POWER = 2 / 3


def ema_decay(step: int, config: EmaConfig) -> float:
    """Decay of the average at the update after `step` iterations: 0 at the start, then towards 1."""
    return min(config.max_decay, 1 - (1 + max(step - config.start - 1, 0)) ** -_POWER)


class MovingAverage(Generic[Network]):
    """Follows `live`; without a configuration the average is the live network itself."""

    def __init__(self, live: Network, config: EmaConfig | None) -> None:
        self._live, self._config = live, config
        self.network: Network = live if config is None else copy.deepcopy(live).requires_grad_(False)

    def update(self, step: int) -> None:
        """Update the average after the stage's first `step` iterations, if an update is due."""
        # The published update tests a counter that starts at 0: it acts after 1, 11, 21, ... iterations.
        if self._config is None or (step - 1) % self._config.every:
            return
        blend = get_ema_multi_avg_fn(ema_decay(step, self._config))
        blend(list(self.network.parameters()), list(self._live.parameters()), 0)
        for mine, live in zip(self.network.buffers(), self._live.buffers(), strict=True):  # batch statistics
            mine.copy_(live)

    def copy_to_live(self) -> None:
        """Copy the average to the live network, from which the next stage starts."""
        if self._config is not None:
            self._live.load_state_dict(self.network.state_dict())
