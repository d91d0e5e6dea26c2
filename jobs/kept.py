"""The weights of a training that are evaluated: the last ones, or those with the best score on the validation split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from jobs.checkpoint import Checkpoint
from jobs.config import TrainConfig
from results.metrics import METRICS


class KeptWeights:
    """Keeps the weights with the best score so far; nothing where a configuration keeps the last (`train.keep`)."""

    def __init__(self, config: TrainConfig, saved: Checkpoint | None = None) -> None:
        """saved: the checkpoint that training continues from, if there is one."""
        self._metric = config.keep_by if config.keep == "best" else None
        #: of the best weights so far; empty before the first score
        self.tensors: dict[str, Tensor] = {}
        self._found: dict[str, Any] = {}
        if saved is not None and self._metric is not None and "best" in saved.extra:
            self.tensors, self._found = saved.best, saved.extra["best"]

    def offer(self, step: int, scores: Mapping[str, float], network: nn.Module) -> None:
        """Keep the weights of `network` if their score is better than all earlier ones.

        scores: means on the validation split by name, such as `val/psnr`.  Equal scores and NaN change nothing.
        """
        score = scores.get(f"val/{self._metric}", math.nan)
        if self._metric is None or math.isnan(score):
            return
        factor = 1 if METRICS[self._metric].direction == "up" else -1
        if not self._found or factor * score > factor * self._found["score"]:
            self._found = {"step": step, "score": score}
            self.tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    def plain(self) -> dict[str, Any]:
        """Step and score of the best weights, for a checkpoint; empty where there are none."""
        return {"best": self._found} if self._found else {}

    def load_into(self, network: nn.Module, last: int) -> int:
        """Give `network` the best weights, if any, and return the number of iterations after which they were best.

        last: the number of iterations of the whole training.
        """
        if not self._found:
            return last
        network.load_state_dict(self.tensors)
        return int(self._found["step"])
