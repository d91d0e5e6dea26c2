"""The training loop, from top to bottom: batch, step (`jobs.step`), record, evaluate, save.

Everything random is a function of (seed, iteration), so a trial that is killed and resumed ends, on a CPU, with
the same bits as one that was not.  On a GPU the host waits for the device only where something is recorded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from jobs.adam import FlatAdam
from jobs.batch import draw_batch
from jobs.captured_step import CapturedStep
from jobs.checkpoint import CheckpointFolder, capture
from jobs.config import Stage, TrialConfig
from jobs.data.store import Store
from jobs.device import seed_dropout
from jobs.drawn_ahead import DrawnAhead
from jobs.ema import MovingAverage
from jobs.evaluate import Evaluation
from jobs.features import ContextReader
from jobs.flat import flatten_parameters
from jobs.kept import KeptWeights
from jobs.nonfinite import NonFiniteGuard
from jobs.step import Step, StepInputs, StepOutcome, step_inputs, stream_seed
from jobs.stop import ShouldStop, StopRequestedError
from model.losses.base import Loss
from model.scenes import Reconstructor

# Streams 0, 1, 3 and 4 of a seed belong to the sampling of batches and views.
_DROPOUT_STREAM = 2


class MetricLog(Protocol):
    """Receives the metrics of a training, as `Journal` does."""

    def start(self, step: int) -> None:
        """Training continues after `step` finished iterations."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Values measured after `step` finished iterations."""


@dataclass(frozen=True)
class Pace:
    """Intervals of logging and checkpoints in iterations, and the stop signal; they affect no result."""

    log_every: int
    checkpoint_every: int
    should_stop: ShouldStop


class Averages:
    """Means of the losses since the last record, and the seconds spent; part of every checkpoint."""

    def __init__(
        self,
        sums: Mapping[str, float] = MappingProxyType({}),
        counted: Mapping[str, float] = MappingProxyType({}),
        steps: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """The members of `plain`."""
        self._sums, self._counted, self.steps, self.seconds = dict(sums), dict(counted), steps, seconds
        #: the active losses, and on the device (2, L): sums over the steps that count, and their numbers
        self._names: tuple[str, ...] = ()
        self._latest: Tensor | None = None

    def add(self, values: Mapping[str, Tensor], counts: Tensor, seconds: float) -> None:
        """Add one step; its values are ignored where `counts` is false."""
        if tuple(values) != self._names or self._latest is None:
            self._read()
            self._names = tuple(values)
            former = [[found.get(name, 0.0) for name in values] for found in (self._sums, self._counted)]
            self._latest = torch.tensor(former, dtype=torch.float64).to(counts.device, non_blocking=True)
        new = torch.stack([value.detach() for value in values.values()])
        self._latest = self._latest + torch.where(counts, torch.stack([new, torch.ones_like(new)]).double(), 0.0)
        self.steps += 1
        self.seconds += seconds

    def take(self) -> dict[str, float]:
        """Returns the means under `train/`, each over the steps that count and have the loss, and resets them."""
        self._read()
        sums, counted = self._sums, self._counted
        means = {f"train/{name}": total / counted[name] for name, total in sums.items() if counted[name]}
        skipped = self.steps - max(counted.values(), default=self.steps)
        means |= {"train/skipped": skipped / self.steps} if skipped else {}
        self._sums, self._counted, self.steps = {}, {}, 0
        return means

    def plain(self) -> dict[str, Any]:
        """Plain numbers, as a checkpoint keeps them."""
        self._read()
        return {"sums": self._sums, "counted": self._counted, "steps": self.steps, "seconds": self.seconds}

    def _read(self) -> None:
        """Take the numbers from the device; the host waits for it."""
        if self._latest is not None:
            sums, counted = self._latest.tolist()
            self._sums |= dict(zip(self._names, sums, strict=True))
            self._counted |= dict(zip(self._names, counted, strict=True))
            self._latest = None


class TrainedNetwork(NamedTuple):
    """The network to evaluate, and how it came about."""

    network: Reconstructor
    #: spent in iterations, those of earlier processes and of a continued training included
    seconds: float
    #: iterations after which it had these weights
    step: int
    #: trainings that this one continues, the first of them first: {"training": key, "step": iterations}
    continued_from: list[dict[str, Any]]


def train(
    network: Reconstructor,
    context: ContextReader,
    losses: dict[str, Loss],
    store: Store,
    config: TrialConfig,
    *,
    journal: MetricLog,
    checkpoints: CheckpointFolder,
    validate: Callable[[Reconstructor], Evaluation],
    device: torch.device,
    pace: Pace,
    captures_steps: bool = False,
) -> TrainedNetwork:
    """Train `network` through all stages, from its last checkpoint on.

    `captures_steps`: a GPU replays whole steps as one CUDA graph.
    Returns the network to evaluate, which is the moving average if enabled, with the weights that `train.keep` names.
    Raises `NonFiniteError` according to `train.nonfinite`, and `StopRequestedError`.
    """
    iteration, averages, origin = 0, Averages(), {}
    saved = checkpoints.latest()
    if saved is not None:
        iteration, averages = saved.step, Averages(**saved.extra["averages"])
        origin = {name: value for name, value in saved.extra.items() if name == "continued_from"}
        saved.restore(network)
    kept = KeptWeights(config.train, saved)
    journal.start(iteration)

    objects, evaluated = store.split("train"), network
    weights = flatten_parameters(network)

    def draw(stage: Stage, first: int, iteration: int) -> StepInputs:
        batch = draw_batch(store, objects, config, iteration, device)
        return step_inputs(batch, context(batch.source), stage, first, iteration, config.seed)

    for stage, first, last in stage_spans(config.train.stages):
        optimizer = FlatAdam(weights, stage.lr, config.method.adam_eps)
        average = MovingAverage(network, config.train.ema)
        guard = NonFiniteGuard(config.train.nonfinite, device)
        step: Callable[[StepInputs], StepOutcome]
        step = Step(network, losses, optimizer, guard, config.train.nonfinite == "ignore")
        if captures_steps:
            step = CapturedStep(step, device)
        inputs = DrawnAhead(partial(draw, stage, first), device, last)
        if saved is not None and first < saved.step <= last:
            saved.restore(network, optimizer, average.network)
        network.train()
        while iteration < last:
            started = time.perf_counter()
            seed_dropout(stream_seed(config.seed, _DROPOUT_STREAM, iteration), device)
            done = step(inputs.take(iteration))
            iteration += 1
            inputs.prepare(iteration)
            average.update(iteration - first)

            stopping = pace.should_stop()
            logs = iteration % pace.log_every == 0 or iteration == last
            validates = config.eval.every is not None and (iteration % config.eval.every == 0 or iteration == last)
            saves = stopping or iteration % pace.checkpoint_every == 0 or iteration == config.train.iterations
            if device.type == "cpu" or logs or validates or saves:
                guard.raise_if_bad(done.scene)  # on a GPU the host waits here, so that the time is that of the steps
            averages.add(done.losses, done.counts, time.perf_counter() - started)
            if logs:
                journal.metrics(iteration, averages.take())
            if validates:
                scores = validation_scores(validate(average.network))
                network.train()
                journal.metrics(iteration, scores)
                kept.offer(iteration, scores, average.network)
            if saves:
                state = {"averages": averages.plain()} | kept.plain() | origin
                checkpoints.save(capture(iteration, network, optimizer, average.network, state, kept.tensors))
            if stopping and iteration < config.train.iterations:
                raise StopRequestedError(f"stopped after {iteration} of {config.train.iterations} iterations")
        evaluated = average.network
        if last < config.train.iterations:
            average.copy_to_live()
    kept_step = kept.load_into(evaluated, config.train.iterations)
    return TrainedNetwork(evaluated, averages.seconds, kept_step, origin.get("continued_from", []))


def validation_scores(evaluation: Evaluation) -> dict[str, float]:
    """Means on novel views, under `val/`."""
    novel = "novel/"
    means = evaluation.means().items()
    return {f"val/{name.removeprefix(novel)}": mean for name, mean in means if name.startswith(novel)}


def stage_spans(stages: tuple[Stage, ...]) -> list[tuple[Stage, int, int]]:
    """Each stage with its first iteration and the one after its last."""
    spans, first = [], 0
    for stage in stages:
        spans.append((stage, first, first + stage.iterations))
        first += stage.iterations
    return spans
