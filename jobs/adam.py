"""Adam on all weights of a network as one tensor, by torch's fused kernel.

`torch.optim.Adam` computes the same, but creating it imports torch's compiler: two seconds and 150 MB in every process
that trains.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class FlatAdam:
    """Adam without weight decay, with the usual decay rates 0.9 and 0.999 of its moments."""

    def __init__(self, weights: nn.Parameter, lr: float, eps: float) -> None:
        """weights: (N,), as `jobs.flat.flatten_parameters` returns them."""
        self.weights, self._lr, self._eps = weights, lr, eps
        #: number of updates, (); running means of the gradient and of its square, (N,)
        self.state = {
            "step": torch.zeros((), device=weights.device),
            "exp_avg": torch.zeros_like(weights.data),
            "exp_avg_sq": torch.zeros_like(weights.data),
        }

    @torch.no_grad()
    def step(self, counts: Tensor | None = None) -> None:
        """Update the weights by their gradient; where `counts`, bool (), is false, nothing changes.

        Nothing is read back from the device, so that a CUDA graph may contain it.
        """
        assert self.weights.grad is not None
        adam(
            [self.weights],
            [self.weights.grad],
            [self.state["exp_avg"]],
            [self.state["exp_avg_sq"]],
            [],
            [self.state["step"]],
            fused=True,
            found_inf=None if counts is None else (~counts).float(),
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._lr,
            weight_decay=0.0,
            eps=self._eps,
            maximize=False,
        )

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from the `state` of another."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])
