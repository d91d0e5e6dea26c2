"""The overhead of a trial: seconds from the end of one to the start of the next, with one worker.

`splatsweep` is the complete driver: it runs the plan's trials under Ray, reads progress from their journals and copies
these into MLflow.  `bare tuner` is Ray Tune with reused actors and nothing else, on the same trials, which sleep and
write a trial's files.  Both run in turn in every round.  Then the preset `quick` runs, to give the overhead as a share
of a real sweep's time (`sweep.bench.share`).
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from jobs.config import TrialConfig
from jobs.trial import Runtime, TrialResult
from model.methods.blank import BlankOptions
from results.records.home import ray_folder, trial_folder
from results.records.journal import Journal, read_events
from results.records.trial_folder import MEASUREMENTS_FILENAME, RESULT_FILENAME, read_result
from sweep.bench.measure import BenchResult, machine
from sweep.bench.share import run_preset
from sweep.file.load import RunOptions, Sweep
from sweep.plan.planner import Plan, PlannedTrial
from sweep.run.driver import execute
from sweep.run.executors.queue import FixedQueue
from sweep.run.recording import Recorder
from sweep.terminal import Terminal

#: Seconds that a trial sleeps.
NAP_S = 0.2
#: The target for the driver's overhead: seconds per trial after the first.
TARGET_S = 0.3
_STEPS = 10  # entries of a trial's journal


@dataclass(frozen=True)
class Gaps:
    """Seconds between the trials of one sweep."""

    between: list[float]
    #: from the call to the first trial's first event
    start_up: float
    #: seconds of the whole call
    wall: float


def run(quick: bool) -> BenchResult:
    """Measures sweeps of 4 or 24 trials that only sleep."""
    trials, rounds = (4, 1) if quick else (24, 3)
    measured: dict[str, list[Gaps]] = {"splatsweep": [], "bare tuner": []}
    for _ in range(rounds):
        measured["splatsweep"].append(_gaps(_run_ours, trials))
        measured["bare tuner"].append(_gaps(_run_bare, trials))
    bare = _median_gap(measured["bare tuner"])
    preset, gap = run_preset(small=quick), _median_gap(measured["splatsweep"])
    rows: list[dict[str, Any]] = [
        {
            "case": case,
            "trials": trials,
            "ms a trial": 1e3 * _median_gap(found),
            "slowest ms": 1e3 * max(gap for gaps in found for gap in gaps.between),
            "over bare ms": 1e3 * (_median_gap(found) - bare),
            "target ms": 1e3 * TARGET_S,
            "start-up s": median(gaps.start_up for gaps in found),
            "wall s": median(gaps.wall for gaps in found),
        }
        for case, found in measured.items()
    ]
    notes = [f"a trial sleeps {NAP_S} s; ms a trial: median from one trial's end to the next one's start, one worker"]
    rows.append({"case": "preset quick", "trials": preset.trials, "ms a trial": 1e3 * gap} | preset.percent(gap))
    notes += [
        "preset quick: shares of its time after the start-up, spent between its trials and by processes beside them"
    ]
    return BenchResult("sweep", machine(), rows, notes)


def nap(config: TrialConfig, home: Path, _runtime: Runtime) -> TrialResult:
    """Sleeps, and writes a trial's files."""
    key = _key(config.seed)
    folder = trial_folder(home, key)
    with Journal(folder) as journal:
        journal.start(0)
        for step in range(1, _STEPS + 1):
            time.sleep(NAP_S / _STEPS)
            journal.metrics(step, {"train/loss": 1 / step})
    measurements = f"object {config.seed}".encode()
    (folder / MEASUREMENTS_FILENAME).write_bytes(measurements)
    result = {"metrics": {}, "data_fingerprint": "", "weights": {}, "finished": time.time()}
    result["per_object_sha256"] = hashlib.sha256(measurements).hexdigest()
    (folder / RESULT_FILENAME).write_text(json.dumps(result))
    return TrialResult(key, folder, {}, _STEPS)


def _key(seed: int) -> str:
    return f"{seed:016x}"


def _run_ours(trials: list[PlannedTrial], home: Path, options: RunOptions) -> None:
    sweep = Sweep(name="naps", run=options)
    with Recorder(sweep, Plan("naps", "", tuple(trials), ()), home):
        execute(FixedQueue(trials), home, options, home / "stop", Terminal(file=io.StringIO()), work=nap)


def _run_bare(trials: list[PlannedTrial], home: Path, options: RunOptions) -> None:
    from ray import tune

    from sweep.run.executors.ray.connection import connect, disconnect

    def trainable(parameters: dict[str, Any]) -> None:
        nap(TrialConfig(model=BlankOptions(), seed=parameters["seed"]), home, Runtime())
        tune.report({"done": 1})

    connect()
    try:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": options.cpus_per_trial}),
            param_space={"seed": tune.grid_search([trial.seed for trial in trials])},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=str(ray_folder(home)), verbose=0),
        ).fit()
    finally:
        disconnect()


def _gaps(run_trials: Any, count: int) -> Gaps:
    """Runs `count` naps one after another in a temporary home, and reads the times of each from its folder."""
    config = TrialConfig(model=BlankOptions())
    trials = [
        PlannedTrial(_key(seed), (f"nap {seed}",), seed, config.model_copy(update={"seed": seed}), "pending")
        for seed in range(count)
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, began = Path(folder), time.time()
        run_trials(trials, home, RunOptions.model_validate({"max_concurrent": 1}))
        wall = time.time() - began
        spans = sorted(_span(trial_folder(home, trial.key)) for trial in trials)
    between = [start - end for (_, end), (start, _) in pairwise(spans)]
    return Gaps(between, spans[0][0] - began, wall)


def _span(folder: Path) -> tuple[float, float]:
    """The times of a trial's start and end."""
    result = read_result(folder)
    if result is None:
        raise RuntimeError(f"a trial that only sleeps did not end: {folder}")
    return read_events(folder)[0]["time"], result["finished"]


def _median_gap(found: list[Gaps]) -> float:
    return median(gap for gaps in found for gap in gaps.between)
