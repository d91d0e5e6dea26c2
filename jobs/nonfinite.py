"""Handling of steps whose loss or gradient is not finite, or whose Gaussians cannot be drawn for that reason.

Losses and gradients are decided on the device, so that a GPU need not wait for the host, which checks when it
synchronises anyway.  Gaussians are refused by rasterisers on a CPU alone; on a GPU those that are not finite are not
drawn, and a step is bad where its loss or gradient is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from model.scenes import Scene


class NonFiniteError(RuntimeError):
    """A loss, a gradient or Gaussians of training are not finite; the message names them and the iteration."""


class NonFiniteGuard:
    """Checks every step of a stage.  `stop` freezes the weights at the first bad step, `skip` omits bad steps."""

    def __init__(self, policy: Literal["stop", "skip", "ignore"], device: torch.device) -> None:
        self._policy = policy
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self._terms: dict[str, Tensor] = {}

    def watch(self, iteration: int | Tensor, terms: Mapping[str, Tensor], weights: nn.Parameter) -> Tensor:
        """Check one step after backward and before the optimiser.  Returns whether it counts, a bool on the device.

        What it remembers changes in place, so that a CUDA graph of the step may contain it.
        """
        assert weights.grad is not None
        if self._policy == "ignore":
            return torch.ones((), dtype=torch.bool, device=weights.device)
        finite = torch.linalg.vector_norm(weights.grad).isfinite()
        for term in terms.values():
            finite = finite & term.detach().isfinite()
        if self._policy == "stop":
            is_first = ~finite & (self._first_bad < 0)
            self._first_bad.copy_(torch.where(is_first, iteration, self._first_bad))
            for name, term in terms.items():
                if name not in self._terms:
                    self._terms[name] = torch.zeros_like(term)
                self._terms[name].copy_(torch.where(is_first, term.detach(), self._terms[name]))
            finite = finite & (self._first_bad < 0)
        return finite

    def undrawn(self, iteration: int | Tensor, problem: str, scene: Scene) -> Tensor:
        """Decide on a step whose scene was refused because of `problem`.  Returns that it does not count, a bool.

        Raises `NonFiniteError` where the policy is `stop`.
        """
        assert self._policy != "ignore", "such Gaussians are left out"
        if self._policy == "stop":
            raise NonFiniteError(f"iteration {int(iteration)}: {problem}; {scene.extent()}")
        return torch.zeros((), dtype=torch.bool, device=self._first_bad.device)

    def raise_if_bad(self, scene: Scene) -> None:
        """Raise `NonFiniteError` if a step was bad; `scene` is the last prediction of the frozen weights."""
        if int(self._first_bad) < 0:
            return
        values = {name: term.item() for name, term in self._terms.items()}
        bad = [f"loss {name!r} is {value}" for name, value in values.items() if not torch.tensor(value).isfinite()]
        problem = (
            "; ".join(bad) or f"the norm of the gradient of {' + '.join(values)} is not finite, although the losses are"
        )
        raise NonFiniteError(f"iteration {int(self._first_bad)}: {problem}; {scene.extent()}")
