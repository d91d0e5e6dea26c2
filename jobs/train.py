"""The training loop, from top to bottom: batch, predict, render, loss, step, record, evaluate, save.

Everything random is a function of (seed, iteration), so a trial that is killed and resumed ends, on a CPU, with
the same bits as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from jobs.checkpoint import CheckpointFolder, capture
from jobs.config import Stage, TrialConfig
from jobs.data.sampling import training_frames
from jobs.data.store import Store
from jobs.evaluate import Evaluation
from jobs.features import ContextReader
from jobs.journal import Journal
from model.losses.base import Loss
from model.predictor import GaussianPredictor
from model.rasterizers import render
from model.types import Gaussians

#: Adam as published: no weight decay, and an eps that hardly ever matters.
ADAM_EPS = 1e-15

_DROPOUT_STREAM = 2  # streams 0 and 1 of a seed belong to the sampling of batches


class NonFiniteError(RuntimeError):
    """Training met a loss or a gradient that is not a number; the message says where."""


@dataclass
class Averages:
    """Means of the losses since they were last recorded, and the seconds spent; part of every checkpoint."""

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0

    def add(self, values: dict[str, float], seconds: float) -> None:
        """Count one step."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.seconds += seconds

    def take(self) -> dict[str, float]:
        """The means under `train/`, starting afresh."""
        means = {f"train/{name}": total / self.steps for name, total in self.sums.items()}
        self.sums, self.steps = {}, 0
        return means


def train(
    predictor: GaussianPredictor,
    context: ContextReader,
    losses: dict[str, Loss],
    store: Store,
    config: TrialConfig,
    *,
    journal: Journal,
    checkpoints: CheckpointFolder,
    validate: Callable[[], Evaluation],
    device: torch.device,
    log_every: int,
    checkpoint_every: int,
) -> float:
    """Train `predictor` through all stages, from its last checkpoint on.  Returns the seconds spent in steps."""
    iteration, averages = 0, Averages()
    saved = checkpoints.latest()
    if saved is not None:
        iteration, averages = saved.step, Averages(**saved.extra["averages"])
        saved.restore(predictor)
    journal.start(iteration)

    objects = store.split("train")
    for stage, first, last in stage_spans(config.train.stages):
        if iteration >= last:
            continue
        optimizer = torch.optim.Adam(predictor.parameters(), lr=stage.lr, eps=ADAM_EPS, fused=True)
        if saved is not None and first < iteration:  # resumed inside this stage
            saved.restore(predictor, optimizer)
        while iteration < last:
            started = time.perf_counter()
            torch.manual_seed(dropout_seed(config.seed, iteration))
            frames = training_frames(
                objects,
                seed=config.seed,
                iteration=iteration,
                batch_size=config.train.batch_size,
                views=config.train.views_per_object,
            )
            views = store.views(frames, config.data.resolution).to(device)
            source = views.select(0, 1)

            predictor.train()
            gaussians = predictor(source, context(source))
            images = render(
                gaussians, views.cameras, views.background, config.render.backend, config.render.antialiasing
            )
            terms = {name: losses[name](images.flatten(0, 1), views.images.flatten(0, 1)) for name in stage.losses}
            loss = torch.stack([weight * terms[name] for name, weight in stage.losses.items()]).sum()

            optimizer.zero_grad()
            loss.backward()
            problem = non_finite(terms, predictor)
            if problem is None:
                optimizer.step()
            elif config.train.non_finite == "stop":
                raise NonFiniteError(f"iteration {iteration}: {problem}; {extent(gaussians)}")

            iteration += 1
            values = {name: term.item() for name, term in {"loss": loss, **terms}.items()}
            if problem is not None:
                values = {name: v for name, v in values.items() if math.isfinite(v)} | {"skipped": 1.0}
            averages.add(values, time.perf_counter() - started)
            if iteration % log_every == 0 or iteration == last:
                journal.metrics(iteration, averages.take())
            if config.eval.every is not None and (iteration % config.eval.every == 0 or iteration == last):
                means = validate().means()
                journal.metrics(iteration, {f"val/{m}": means[f"novel/{m}"] for m in ("psnr", "ssim", "lpips")})
            if iteration % checkpoint_every == 0 or iteration == config.train.iterations:
                checkpoints.save(capture(iteration, predictor, optimizer, {"averages": vars(averages)}))
    return averages.seconds


def stage_spans(stages: tuple[Stage, ...]) -> list[tuple[Stage, int, int]]:
    """Each stage with its first iteration and the one behind its last."""
    spans, first = [], 0
    for stage in stages:
        spans.append((stage, first, first + stage.iterations))
        first += stage.iterations
    return spans


def dropout_seed(seed: int, iteration: int) -> int:
    """The seed of torch's generator for one step."""
    return int(np.random.SeedSequence([seed, _DROPOUT_STREAM, iteration]).generate_state(1, np.uint64)[0] >> 1)


def non_finite(terms: dict[str, Tensor], predictor: GaussianPredictor) -> str | None:
    """What is not finite, in words: a loss term, or else the gradient; None where all is well."""
    for name, term in terms.items():
        if not term.isfinite():
            return f"loss {name!r} is {term.item()}"
    gradients = [p.grad for p in predictor.parameters() if p.grad is not None]
    if not torch.nn.utils.get_total_norm(gradients).isfinite():
        return f"the gradient of {' + '.join(terms)} is not finite, although the losses are"
    return None


def extent(gaussians: Gaussians) -> str:
    """Smallest and largest value of every parameter, for a report."""
    parts = []
    for name in ("means", "scales", "opacities", "sh"):
        values = getattr(gaussians, name).detach()
        parts.append(f"{name} {values.min().item():.3g}..{values.max().item():.3g}")
    return "Gaussians: " + ", ".join(parts)
