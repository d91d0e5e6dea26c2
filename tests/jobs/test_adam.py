"""Adam on flat weights."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import Tensor, nn

from jobs.adam import FlatAdam


def gradients(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(7, generator=generator) for _ in range(count)]


def updated(optimizer: FlatAdam | torch.optim.Adam, weights: nn.Parameter, steps: list[Tensor]) -> Tensor:
    for gradient in steps:
        weights.grad = gradient.clone()
        optimizer.step()
    return weights.detach().clone()


def test_updates_are_those_of_torch() -> None:
    ours, theirs = nn.Parameter(torch.ones(7)), nn.Parameter(torch.ones(7))
    expected = updated(torch.optim.Adam([theirs], lr=0.1, eps=0.5, fused=True), theirs, gradients(20))
    assert torch.equal(updated(FlatAdam(ours, lr=0.1, eps=0.5), ours, gradients(20)), expected)


def test_a_step_that_does_not_count_changes_nothing() -> None:
    weights, other = nn.Parameter(torch.ones(7)), nn.Parameter(torch.ones(7))
    optimizer, first, last = FlatAdam(weights, 0.1, 1e-8), *gradients(2)
    updated(optimizer, weights, [first])
    weights.grad = torch.full((7,), torch.nan)
    optimizer.step(torch.tensor(False))
    weights.grad = last
    optimizer.step(torch.tensor(True))
    assert torch.equal(weights, updated(FlatAdam(other, 0.1, 1e-8), other, [first, last]))


def test_a_loaded_state_continues() -> None:
    weights, other = nn.Parameter(torch.ones(7)), nn.Parameter(torch.ones(7))
    optimizer = FlatAdam(weights, 0.1, 1e-8)
    updated(optimizer, weights, gradients(9)[:5])
    resumed = nn.Parameter(weights.detach().clone())
    successor = FlatAdam(resumed, 0.1, 1e-8)
    successor.load(optimizer.state)
    expected = updated(FlatAdam(other, 0.1, 1e-8), other, gradients(9))
    assert torch.equal(updated(successor, resumed, gradients(9)[5:]), expected)


def test_training_does_not_import_torchs_compiler() -> None:
    """Its import would take a third of the start of every process that trains."""
    code = """
import sys
import jobs.training, jobs.trial, jobs.model_file, torch
optimizer = jobs.training.FlatAdam(torch.nn.Parameter(torch.ones(2)), 0.1, 1e-8)
optimizer.weights.grad = torch.ones(2)
optimizer.step(torch.tensor(True))
print([name for name in ("torch._dynamo", "torchvision") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
