"""One step of training: reconstruct, render, losses, backward, Adam.

A step reads nothing back from the device, and everything that differs between iterations reaches it as a tensor.  So
a GPU can run it as one CUDA graph (`jobs.captured_step.CapturedStep`), which repeats its work without its Python code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jobs.adam import FlatAdam
from jobs.batch import Batch
from jobs.config import LossTerm, Stage
from jobs.flat import backward
from jobs.nonfinite import NonFiniteGuard
from model.losses.base import Loss
from model.native.tracing import rebuild, tensors_of
from model.rasterizers.backend import where_room_sufficed
from model.rasterizers.validation import NonFiniteGaussiansError
from model.scenes import Reconstructor, Scene
from model.types import Context

# Streams 0, 1, 2 and 4 of a seed belong to the sampling of batches and to dropout.
_SUBSET_STREAM = 3


@dataclass(frozen=True)
class StepInputs:
    """Inputs of a step that differ between iterations, as tensors on the training's device."""

    batch: Batch
    context: Context
    iteration: Tensor  # () int64
    weights: dict[str, Tensor]  # of the active losses, () float32
    views: dict[str, Tensor]  # of the losses that compare a subset of the views: their indices (B, K) int64


@dataclass(frozen=True)
class StepOutcome:
    """Results of a step; a later step may overwrite them."""

    scene: Scene
    #: the unweighted losses, and their weighted sum as `loss`; ()
    losses: dict[str, Tensor]
    #: whether the weights were updated, bool ()
    counts: Tensor


@dataclass(frozen=True)
class Step:
    """A step of one stage of training."""

    network: Reconstructor
    losses: Mapping[str, Loss]
    optimizer: FlatAdam
    guard: NonFiniteGuard
    #: leave out Gaussians that are not finite
    finite_parts: bool

    def __call__(self, inputs: StepInputs) -> StepOutcome:
        outcome = self._outcome(inputs)
        return rebuild(outcome, (tensor.detach() for tensor in tensors_of(outcome)))  # frees the step's memory

    def _outcome(self, inputs: StepInputs) -> StepOutcome:
        batch = inputs.batch
        scene: Scene = self.network(batch.source, inputs.context)
        if self.finite_parts:
            scene = scene.without_non_finite()
        try:
            rendering, target = scene.render(batch.seen.cameras, batch.seen.background, batch.pixels), batch.target
        except NonFiniteGaussiansError as error:
            counts = self.guard.undrawn(inputs.iteration, str(error), scene)
            unknown = torch.full((), math.nan, device=counts.device)
            return StepOutcome(scene, dict.fromkeys(("loss", *inputs.weights), unknown), counts)
        terms = {}
        for name in inputs.weights:
            index = inputs.views.get(name)
            compared = (rendering, target) if index is None else (rendering.take(index), target.take(index))
            terms[name] = self.losses[name](*compared, scene)
        loss = torch.stack([weight * terms[name] for name, weight in inputs.weights.items()]).sum()

        weights = self.optimizer.weights
        backward(loss, self.network, weights)
        counts = self.guard.watch(inputs.iteration, terms, weights)
        self.optimizer.step(where_room_sufficed(counts))
        return StepOutcome(scene, {"loss": loss, **terms}, counts)


def step_inputs(batch: Batch, context: Context, stage: Stage, first: int, iteration: int, seed: int) -> StepInputs:
    """Inputs of the step of an iteration in a stage whose first iteration is `first`."""
    device = batch.seen.images.device
    active = {name: term for name, term in stage.losses.items() if iteration - first >= term.start}
    weights = torch.tensor([term.weight_at(iteration - first) for term in active.values()])
    indices = {name: compared_views(term, batch.seen.images, seed, iteration) for name, term in active.items()}
    return StepInputs(
        batch,
        context,
        torch.tensor(iteration).to(device, non_blocking=True),
        dict(zip(active, weights.to(device, non_blocking=True).unbind(), strict=True)),
        {name: index.to(device, non_blocking=True) for name, index in indices.items() if index is not None},
    )


def compared_views(term: LossTerm, images: Tensor, seed: int, iteration: int) -> Tensor | None:
    """Indices (B, K) of a random subset of `term.views` of the views (B, V, C, H, W) of each object; None for all.

    Views are drawn uniformly, so the mean over those drawn is an unbiased estimate of the mean over all.
    """
    batch, views = images.shape[:2]
    if term.views is None or term.views >= views:
        return None
    generator = np.random.default_rng(stream_seed(seed, _SUBSET_STREAM, iteration))
    drawn = generator.permuted(np.tile(np.arange(views), (batch, 1)), axis=1)[:, : term.views]
    return torch.from_numpy(np.sort(drawn, axis=1))


def stream_seed(seed: int, stream: int, iteration: int) -> int:
    """The seed of one stream of random numbers in one step."""
    return int(np.random.SeedSequence([seed, stream, iteration]).generate_state(1, np.uint64)[0] >> 1)
