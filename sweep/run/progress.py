"""Progress of trials, read by a monitor: the state of each, and the time that all still take."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from results.records.monitor import Monitor
from results.records.plan import PlannedTrial
from results.records.trial_folder import Status

#: States after which a trial does not run again in this call.
DONE = ("finished", "failed", "pruned")
#: Seconds without a new event after which a running trial's machine may have failed.
_SILENT_S = 1800.0


@dataclass(frozen=True)
class TrialState:
    """The state of one trial at one moment."""

    key: str
    name: str
    seed: int
    status: Status
    step: int
    #: iterations of the whole training; 0 where nothing is trained
    steps: int
    #: iterations per second since the trial was last started, including evaluations on the validation split
    rate: float | None = None
    #: the newest values of all metrics: `train/`, `val/`, and those of the final evaluation
    metrics: Mapping[str, float] = field(default_factory=dict)
    #: the split of the final evaluation
    split: str = "test"
    #: why the trial failed, was queued again or pruned
    error: str | None = None
    #: duration of the final evaluation in seconds; None before its end
    evaluation_s: float | None = None
    #: seconds since the newest event in its journal
    silent_s: float = 0.0
    #: the machine that runs it, or ran it last
    host: str | None = None

    @property
    def is_silent(self) -> bool:
        """Whether it counts as running, but has recorded nothing for half an hour.

        Where another machine ran it, nothing else shows that this machine has failed.
        """
        return self.status == "running" and self.silent_s > _SILENT_S

    @property
    def is_evaluating(self) -> bool:
        """Whether its training is finished and its final evaluation runs."""
        return self.status == "running" and self.step >= self.steps

    @property
    def score(self) -> float | None:
        """PSNR of novel views in the final evaluation."""
        return self.metrics.get("novel/psnr")

    @property
    def validation_score(self) -> float | None:
        """PSNR of novel views in the last evaluation on the validation split during training."""
        return self.metrics.get("val/psnr")


def trial_state(trial: PlannedTrial[Any], monitor: Monitor) -> TrialState:
    """The current state of a plan's trial."""
    found = monitor.look(trial.key)
    return TrialState(
        key=trial.key,
        name=trial.name,
        seed=trial.seed,
        status=found.status,
        step=found.step,
        steps=trial.steps,
        rate=found.rate,
        metrics=found.metrics,
        split=trial.plain_config.get("eval", {}).get("split", "test"),
        error=found.error,
        evaluation_s=found.evaluation_s,
        silent_s=0.0 if found.newest is None else max(time.time() - found.newest, 0.0),
        host=found.host,
    )


def shape(config: Mapping[str, Any]) -> str:
    """The settings that determine the cost of an iteration and of the evaluation, as JSON.

    config: a configuration as plain values.  Trials of one shape differ only in the seed, learning rates, loss weights,
    the number of iterations, and how stages with the same losses divide them.
    """
    tree = {key: value for key, value in config.items() if key != "seed"}
    data = tree.get("data", {})
    tree["data"] = {key: data.get(key) for key in ("name", "resolution")}
    if "stages" in tree.get("train", {}):
        iterations: Counter[str] = Counter()
        for stage in tree["train"]["stages"]:
            losses = {name: _views(term) for name, term in stage["losses"].items()}
            iterations[json.dumps(losses, sort_keys=True)] += stage["iterations"]
        shares = {losses: round(count / iterations.total(), 3) for losses, count in iterations.items()}
        tree["train"] = {**tree["train"], "stages": shares}
    return json.dumps(tree, sort_keys=True)


def _views(term: Any) -> Any:
    return term.get("views") if isinstance(term, Mapping) else None


class Clock:
    """Estimates the time that trials still take, from others of the same shape."""

    def __init__(self) -> None:
        self._shapes: dict[str, str] = {}

    def left(self, trials: Sequence[PlannedTrial[Any]], states: Sequence[TrialState]) -> list[float | None]:
        """The remaining seconds of each trial, including its evaluation; None where they cannot be estimated.

        A training that several trials evaluate counts for the one that is furthest in it.
        """
        for trial in trials:
            if trial.key not in self._shapes:
                self._shapes[trial.key] = shape(trial.plain_config)
        shapes = [self._shapes[trial.key] for trial in trials]
        known = list(zip(shapes, states, strict=True))
        step_s = _Typical((shape, 1 / s.rate) for shape, s in known if s.rate)
        evaluation_s = _Typical((shape, s.evaluation_s) for shape, s in known if s.evaluation_s is not None and s.steps)
        control_s = _Typical(
            (shape, s.evaluation_s) for shape, s in known if s.evaluation_s is not None and not s.steps
        )
        return [
            _left(shape, s, steps, step_s, evaluation_s if s.steps else control_s)
            for (shape, s), steps in zip(known, _steps_left(trials, states), strict=True)
        ]


def _steps_left(trials: Sequence[PlannedTrial[Any]], states: Sequence[TrialState]) -> list[int]:
    """The iterations that each trial still has to train itself."""
    furthest: dict[str, TrialState] = {}
    for trial, state in zip(trials, states, strict=True):
        if trial.training is not None:
            furthest[trial.training] = max(furthest.get(trial.training, state), state, key=lambda each: each.step)
    return [
        0
        if trial.status == "to be evaluated" or (trial.training in furthest and furthest[trial.training] is not state)
        else state.steps - state.step
        for trial, state in zip(trials, states, strict=True)
    ]


class _Typical:
    """The median of measured values for one shape, or over all shapes where that shape has none."""

    def __init__(self, measured: Iterable[tuple[str, float]]) -> None:
        found: dict[str, list[float]] = {}
        for shape, value in measured:
            found.setdefault(shape, []).append(value)

        everything = [value for values in found.values() for value in values]
        self._medians = {shape: statistics.median(values) for shape, values in found.items()}
        self._overall = statistics.median(everything) if everything else None

    def __call__(self, shape: str) -> float | None:
        return self._medians.get(shape, self._overall)


def _left(
    shape: str,
    state: TrialState,
    steps: int,
    step_s: Callable[[str], float | None],
    evaluation_s: Callable[[str], float | None],
) -> float | None:
    if state.status in DONE:
        return 0.0
    evaluation = evaluation_s(shape)
    if state.is_evaluating:
        return None if evaluation is None else max(evaluation - state.silent_s, 0.0)
    step = 1 / state.rate if state.rate else step_s(shape)
    if steps and step is None:
        return None
    # Before any evaluation has ended, the estimate covers the training alone.
    return steps * (step or 0.0) + (evaluation or 0.0)


@dataclass(frozen=True)
class Totals:
    """Totals of a sweep at one moment, printed as one line."""

    counts: Mapping[str, int]
    #: the number of trials finished before the counted ones
    before: int = 0
    #: seconds until the last trial ends; None where they cannot be estimated
    seconds_left: float | None = None

    @classmethod
    def of(cls, states: Sequence[TrialState], left: Sequence[float | None], at_once: int, before: int = 0) -> Totals:
        """at_once: the number of trials that run at the same time."""
        known = [seconds for seconds in left if seconds is not None]
        total = max(sum(known) / max(at_once, 1), max(known, default=0.0))
        is_known = len(known) == len(left)
        return cls(Counter(state.status for state in states), before, total if is_known else None)

    def __str__(self) -> str:
        everything = sum(self.counts.values()) + self.before
        parts = [f"{self.counts.get('finished', 0) + self.before} of {everything} done"]
        parts += [
            f"{self.counts[status]} {status}"
            for status in ("running", "failed", "interrupted", "pruned")
            if self.counts.get(status)
        ]
        if any(self.counts.get(status) for status in ("running", "pending", "interrupted")):
            parts.append(
                "time left not known yet" if self.seconds_left is None else f"about {in_words(self.seconds_left)} left"
            )
        return ", ".join(parts)


@dataclass(frozen=True)
class Snapshot:
    """The states of a queue's trials at one moment, with the seconds left and totals."""

    states: Sequence[TrialState]
    left: Sequence[float | None]
    totals: Totals


def snapshot_of(
    trials: Sequence[PlannedTrial[Any]], states: Sequence[TrialState], clock: Clock, at_once: int, before: int = 0
) -> Snapshot:
    """Combines trials' states with the estimated time left."""
    left = clock.left(trials, states)
    running = sum(state.status == "running" for state in states)
    return Snapshot(states, left, Totals.of(states, left, max(at_once, running), before))


def in_words(seconds: float) -> str:
    """A duration as text: 45 s, 12 min, 1 h 12 min, 2 d 3 h."""
    if seconds < 60:
        return f"{seconds:.0f} s" if round(seconds) < 60 else "1 min"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    hours += minutes >= 30
    return f"{hours // 24} d {hours % 24} h"


def unfinished_first(states: Sequence[TrialState]) -> list[int]:
    """Indices of the states, sorted by status: running, interrupted, failed, pending, others; each in plan order."""
    order = {"running": 0, "interrupted": 1, "failed": 2, "pending": 3}
    return sorted(range(len(states)), key=lambda index: order.get(states[index].status, 4))
