"""Estimates time and disk of a sweep's remaining trials, from finished trials of the same shape or a short probe.

Two trials have the same shape when they differ only in settings without cost (seed, learning rates, loss weights, how
stages with the same losses divide the iterations) or in the number of iterations, by which the cost of one is
multiplied.  A training costs nothing when it is finished or another trial of the plan runs it.  All figures are
estimates, and are labelled as such.
"""

from __future__ import annotations

import math
import socket
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.filesize import decimal

from jobs.captured_step import CapturedStep
from jobs.config import TrialConfig
from jobs.continuation import Beginning
from jobs.data.prepare import open_dataset
from jobs.training import stage_spans
from jobs.trial import TrialFailedError, run_trial
from model.registry import resolve
from results.records.home import cache_folder, data_folder, training_folder, trials_folder, weights_folder
from results.records.journal import read_events
from results.records.training_folder import training_of
from results.records.trial_folder import RESULT_FILENAME, read_config, read_environment
from sweep.file.schema import RunOptions
from sweep.plan.planner import Plan, PlannedTrial
from sweep.run.executors import EXECUTORS
from sweep.run.executors.base import Executor
from sweep.run.executors.run_guarded import runtime_of
from sweep.run.progress import in_words, shape

#: Iterations of each stage that a probe counts, and of those before, which warm up; a GPU then captures a graph.
_COUNTED = 4
#: Objects that a probe evaluates, of which the median counts: the first one warms up.
_OBJECTS = 3
_WARM_UP = {"cpu": 1, "cuda": CapturedStep.WARM_UP + 1}


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a trial of one shape."""

    #: seconds of an iteration, averaged over the stages in proportion to their lengths
    step_s: float
    #: a trial's other seconds: start-up and evaluation
    rest_s: float
    #: the disk space of a finished trial
    disk_bytes: float

    def seconds(self, config: TrialConfig, trained: int = 0) -> float:
        """Seconds of a trial; trained: iterations that are trained already."""
        return self.step_s * max(config.iterations - trained, 0) + self.rest_s


@dataclass(frozen=True, slots=True)
class Estimate:
    """Time and disk of the remaining trials."""

    #: key of a trial to run -> its seconds; None where no trial of its shape was measured on this machine
    seconds: Mapping[str, float | None]
    disk_bytes: float
    #: trials that run at the same time
    at_once: int
    #: seconds of trials that may be added to undecided rows, at most; None where a row's cost is unknown
    further: Sequence[float | None] = ()

    @property
    def most_wall_s(self) -> float | None:
        """Wall-clock seconds if all trials come that may; None where the cost of any is unknown."""
        known = [value for value in (*self.seconds.values(), *self.further) if value is not None]
        is_known = len(known) == len(self.seconds) + len(self.further)
        return max(sum(known) / self.at_once, max(known, default=0.0)) if is_known else None

    @property
    def unknown(self) -> int:
        """The number of trials without an estimate."""
        return sum(value is None for value in self.seconds.values())

    @property
    def wall_s(self) -> float:
        """Wall-clock seconds of the trials with an estimate."""
        known = [value for value in self.seconds.values() if value is not None]
        return max(sum(known) / self.at_once, max(known, default=0.0))

    def as_json(self) -> dict[str, Any]:
        """The estimate as plain values."""
        return {
            "wall_s": self.wall_s,
            "disk_bytes": self.disk_bytes,
            "at_once": self.at_once,
            "unknown_trials": self.unknown,
        } | ({"further_trials": len(self.further), "most_wall_s": self.most_wall_s} if self.further else {})

    def __str__(self) -> str:
        return f"{self._planned()}{self._coming()}"

    def _coming(self) -> str:
        """The cost of trials that may be added."""
        if not self.further:
            return ""
        cost = "" if self.most_wall_s is None else f": about {in_words(self.most_wall_s)} with all of them"
        return f"; up to {len(self.further)} more may come{cost}"

    def _planned(self) -> str:
        known = len(self.seconds) - self.unknown
        if not self.seconds:
            return "nothing to run"
        total = f"about {in_words(self.wall_s)}, {self.at_once} at once, and {decimal(round(self.disk_bytes))}"
        if not self.unknown:
            return f"{known} to run: {total}"
        hint = "nothing like them has finished on this machine; --estimate measures them"
        return f"{self.unknown} to run of unknown cost ({hint})" + (f"; the other {known}: {total}" if known else "")


def estimate(
    plan: Plan,
    home: Path | str,
    options: RunOptions,
    probe: Callable[[PlannedTrial], Cost | None] | None = None,
    continued: Mapping[str, Beginning] = MappingProxyType({}),
) -> Estimate:
    """Time and disk of the pending trials; `probe` (see `measure`) is called once for each unknown shape.

    `continued` is what `sweep.plan.plan_diff.beginnings` returns.
    """
    home = Path(home).absolute()
    costs: dict[str, Cost | None] = dict(_measured(home, _device(options))) if plan.pending else {}
    found: dict[str, Cost | None] = {trial.key: None for trial in plan.pending}
    for trial in plan.pending if costs or probe is not None else ():
        of_its_shape = shape(trial.config.identity())
        if of_its_shape not in costs and probe is not None:
            costs[of_its_shape] = probe(trial)
        found[trial.key] = costs.get(of_its_shape)
    seconds: dict[str, float | None] = {}
    disk_bytes, trained = 0.0, set[str | None]()
    for trial in plan.pending:
        is_trained = trial.status == "to be evaluated" or trial.training in trained
        trained |= {trial.training} - {None}
        cost = found[trial.key]
        beginning = continued.get(trial.key)
        before = beginning.step if beginning is not None and not beginning.obstacle else 0
        before = trial.config.iterations if is_trained else before
        seconds[trial.key] = None if cost is None else cost.seconds(trial.config, before)
        # Nearly all of a trial's disk space is its training's.
        disk_bytes += 0.0 if cost is None or is_trained else cost.disk_bytes
    return Estimate(seconds, disk_bytes, trials_at_once(options), _further(plan, costs))


def _further(plan: Plan, costs: Mapping[str, Cost | None]) -> list[float | None]:
    """Seconds of each trial that may be added to a row with too few seeds to be decided."""
    coming = plan.seeds.may_come if plan.seeds is not None else {}
    configs = {trial.name: trial.config for trial in reversed(plan.trials)}
    found = {row: costs.get(shape(configs[row].identity())) for row in coming if row in configs}
    return [
        None if cost is None else cost.seconds(configs[row]) for row, cost in found.items() for _ in range(coming[row])
    ]


def trials_at_once(options: RunOptions) -> int:
    """The number of trials that this machine runs at the same time."""
    executor: Executor = resolve(EXECUTORS, options.executor, "executor")
    return executor.at_once(options)


def _device(options: RunOptions) -> str:
    """The kind of device that trials run on."""
    return "cuda" if options.gpus_per_trial > 0 else "cpu"


# From finished trials


def _measured(home: Path, device: str) -> dict[str, Cost]:
    """Shape -> the median cost of trials of that shape that this machine has finished on such a device."""
    found: dict[str, list[Cost]] = {}
    for result in sorted(trials_folder(home).glob(f"*/{RESULT_FILENAME}")):
        try:
            measured = _of_finished(result.parent, device)
        except (OSError, ValueError, LookupError):  # of another version, or damaged: there are others
            continue
        if measured is not None:
            found.setdefault(measured[0], []).append(measured[1])
    return {of_shape: _median(costs) for of_shape, costs in found.items()}


def _median(costs: Sequence[Cost]) -> Cost:
    """Medians of each part; of the rest, over the trials in which it was measured."""
    rest = [cost.rest_s for cost in costs if not math.isnan(cost.rest_s)]
    return Cost(
        statistics.median(cost.step_s for cost in costs),
        statistics.median(rest) if rest else 0.0,
        statistics.median(cost.disk_bytes for cost in costs),
    )


def _of_finished(folder: Path, device: str) -> tuple[str, Cost] | None:
    """A finished trial's shape and cost; None where another machine ran it, or another device."""
    environment, written = read_environment(folder), read_config(folder)
    if environment is None or written is None or environment.get("host") != socket.gethostname():
        return None
    if any(arithmetic.get("device", device) != device for arithmetic in environment.get("arithmetic", ())):
        return None
    config = TrialConfig.model_validate(written)
    events = list(read_events(folder))
    starts = [event for event in events if event["event"] == "start"]
    last = [event for event in events if event["event"] == "metrics"][-1]
    train_s = last["values"].get("time/train_s", 0.0)
    own_s = train_s if starts[0]["step"] == 0 else 0.0
    # A training that was resumed, by this trial or another, spreads the trial's other seconds over several intervals.
    is_whole = "evaluation" not in environment and len(starts) == 1 and starts[0]["step"] in (0, config.iterations)
    rest_s = max(last["time"] - starts[0]["time"] - own_s, 0.0) if is_whole else math.nan
    step_s = train_s / config.iterations if config.iterations else 0.0
    return shape(config.identity()), Cost(step_s, rest_s, _bytes(folder))


def _bytes(trial: Path) -> float:
    """The bytes that a trial and its training occupy on disk."""
    training = training_of(trial)
    folders = [trial, *([training_folder(trial.parents[1], training)] if training is not None else [])]
    return float(sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()))


# From a probe


def measure(home: Path, options: RunOptions, report: Callable[[str], None]) -> Callable[[PlannedTrial], Cost | None]:
    """A probe: it runs a trial's first iterations of each stage and evaluates few objects, in a temporary home.

    Features of frozen models that it computes stay in the home's cache, since the trials need them too.
    """

    def probe(trial: PlannedTrial) -> Cost | None:
        report(f"measuring {trial.name}")
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=home) as folder:
            _share(home, Path(folder))
            try:
                return _probe(trial.config, Path(folder), options)
            except TrialFailedError as error:
                report(f"  {error}")
                return None

    return probe


def _share(home: Path, probe_home: Path) -> None:
    for name, folder in (("data", data_folder(home)), ("cache", cache_folder(home)), ("weights", weights_folder(home))):
        folder.mkdir(parents=True, exist_ok=True)
        (probe_home / name).symlink_to(folder, target_is_directory=True)


def _probe(config: TrialConfig, home: Path, options: RunOptions) -> Cost:
    runtime = runtime_of(options.model_copy(update={"log_every": 1}), home / "stop")
    warm_up = _WARM_UP[_device(options)]
    result = run_trial(_shortened(config, warm_up + _COUNTED), home, runtime)
    events = [event for event in read_events(result.folder) if event["event"] in ("start", "metrics")]
    store = open_dataset(config.data.name, config.data.options, home)
    # A trial starts a second time once the features that it lacked are computed.
    begin = max(index for index, event in enumerate(events) if event["event"] == "start")
    steps, final = events[begin:-1], events[-1]
    objects, object_s = len(store.split(config.eval.split)), final["values"]["time/object_s"]
    # Start-up, pictures and measured costs come once, however many objects are evaluated.
    once_s = max(final["time"] - steps[-1]["time"] - min(_OBJECTS, objects) * object_s, 0.0)
    evaluated = min(config.eval.objects or objects, objects)
    if config.iterations and config.eval.every:
        every, ends = config.eval.every, (last for _, _, last in stage_spans(config.train.stages))
        validations = {*range(every, config.iterations + 1, every), *ends}
        evaluated += len(validations) * min(config.eval.val_objects, len(store.split("val")))
    step_s = _step_seconds(config, steps, warm_up) if config.iterations else 0.0
    return Cost(step_s, once_s + object_s * evaluated, _bytes(result.folder))


def _shortened(config: TrialConfig, iterations: int) -> TrialConfig:
    stages = tuple(
        stage.model_copy(
            update={
                "iterations": iterations,
                "losses": {n: t.model_copy(update={"start": 0, "ramp": 0}) for n, t in stage.losses.items()},
            }
        )
        for stage in config.train.stages
    )
    return config.model_copy(
        update={
            "train": config.train.model_copy(update={"stages": stages}),
            "eval": config.eval.model_copy(update={"objects": _OBJECTS, "every": None}),
        }
    )


def _step_seconds(config: TrialConfig, steps: Sequence[Mapping[str, Any]], warm_up: int) -> float:
    """The mean seconds of an iteration over the whole trial, with the median of the probe for each stage."""
    gaps = [after["time"] - before["time"] for before, after in pairwise(steps)]
    stages, iterations = config.train.stages, warm_up + _COUNTED
    assert len(gaps) == len(stages) * iterations
    medians = [
        statistics.median(gaps[index * iterations + warm_up : (index + 1) * iterations]) for index in range(len(stages))
    ]
    return _weighted(medians, [stage.iterations for stage in stages])


def _weighted(values: Iterable[float], counts: Sequence[int]) -> float:
    return sum(value * count for value, count in zip(values, counts, strict=True)) / sum(counts)
