"""One trial: a training and its evaluation, from configuration to result.

Its folder holds the journal and the result; the folder of its training holds the weights
(`results.records.training_folder`).  All executors run trials by `run_trial`.  It may be killed at any moment and
called again: it resumes from the last checkpoint, and returns at once if the result exists.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.config import TrialConfig
from jobs.cost import measure_costs
from jobs.data.gpu_cache import keep_only
from jobs.data.prepare import open_dataset
from jobs.data.requirements import Requirements
from jobs.data.store import Store
from jobs.device import choose_device
from jobs.environment import describe_environment, trial_environment
from jobs.evaluate import Predict, evaluate_predictions, no_context, object_views, predicting
from jobs.execution import CompileMode
from jobs.keys import EVALUATION_VERSION, NUMERICS_VERSION, Keys, frozen_weights, keys_of
from jobs.lock import exclusive_lock
from jobs.memory import is_out_of_memory, keep_freed_memory
from jobs.precision import products
from jobs.reconstructor import build_reconstructor
from jobs.samples import sample_sheet
from jobs.stop import StopRequestedError, stop_signal
from jobs.trained import train_once
from jobs.training import Pace
from jobs.turntable import GaussianObject, render_turntable, save_pictures
from model.weights import WeightStore
from results.records.atomic import write_json
from results.records.disk import DiskFullError, SpareableLog, full_disk_explained
from results.records.hashing import file_sha256
from results.records.home import trial_folder, weights_folder
from results.records.journal import Journal
from results.records.training_folder import RECORD_FILENAME as TRAINING_FILENAME
from results.records.trial_folder import (
    CONFIG_FILENAME,
    COSTS_FILENAME,
    ENVIRONMENT_FILENAME,
    LOCK_FILENAME,
    LOG_FILENAME,
    MEASUREMENTS_FILENAME,
    PRUNE_FILENAME,
    RESULT_FILENAME,
    SHEET_FILENAME,
    TURNTABLE_FILENAME,
    read_result,
)

log = logging.getLogger(__name__)

TURNTABLE_VIEWS = 24
#: pixels a side
SMALLEST_TURNTABLE, LARGEST_TURNTABLE = 64, 128


@dataclass(frozen=True)
class Runtime:
    """Execution settings of a trial, which are not part of its key.

    Results are bitwise equal for equal `threads`; other numbers change the order of sums.
    """

    threads: int = 1
    #: a torch device, or "auto": the GPU if there is one
    device: str = "auto"
    #: execution of training, see `jobs.execution.choose_execution`
    compile: CompileMode = "auto"
    log_every: int = 50
    checkpoint_every: int = 500
    #: whether a finished training keeps its last checkpoint, so that longer ones can continue it
    keep_optimizer: bool = False
    #: while this file exists, trials write a checkpoint at once and stop
    stop_file: str | None = None


@dataclass(frozen=True)
class TrialResult:
    """Results of a finished trial."""

    key: str
    folder: Path
    #: means over objects: "novel/psnr", "conditioned/lpips", ...
    metrics: dict[str, float]
    #: iterations trained
    step: int
    #: key of its training; None where there is nothing to train
    training: str | None = None


class TrialFailedError(RuntimeError):
    """A trial that cannot be finished as configured; running it again would end the same way."""


def weight_identities(config: TrialConfig, home: Path, replaced: Collection[str] = ()) -> dict[str, str]:
    """The sha256 of every frozen weight that a trial uses; downloads files without a published hash.

    Those that a checkpoint has `replaced` are never read; they are left out where their hash is not known here.
    """
    weights = WeightStore(weights_folder(home))
    identities = {}
    for name in frozen_weights(config):
        if weights.identity(name) is None:
            if name in replaced:
                continue
            weights.fetch(name)
        identities[name] = str(weights.identity(name))
    return identities


def run_trial(config: TrialConfig, home: Path | str, runtime: Runtime | None = None) -> TrialResult:
    """Trains and evaluates one configuration under `home`, or resumes it; finished trainings are reused.

    If another process runs the trial at the moment, this waits for it.
    Raises `TrialFailedError` where the trial itself fails, with the reason in its journal, and
    `StopRequestedError` where a stop file requests it, the sweep's or the folder's own (`PRUNE_FILENAME`), or
    `DiskFullError`, or what `is_out_of_memory` recognises; after these it can be resumed.
    """
    home, runtime = Path(home).absolute(), runtime or Runtime()
    store = open_dataset(config.data.name, config.data.options, home)
    keep_only(store.path)
    with full_disk_explained(weights_folder(home)):
        weights = weight_identities(config, home)
    keys = keys_of(config, store.fingerprint, weights)
    folder = trial_folder(home, keys.trial)
    folder.mkdir(parents=True, exist_ok=True)
    should_stop = stop_signal(runtime.stop_file, folder / PRUNE_FILENAME)
    pace = Pace(runtime.log_every, runtime.checkpoint_every, should_stop)
    with exclusive_lock(folder / LOCK_FILENAME, f"trial {keys.trial}", should_stop), _log_to(folder / LOG_FILENAME):
        result = read_result(folder)
        if result is None:
            result = _run(config, keys, folder, store, home, runtime, pace, weights) | {
                "training": keys.training,
                **store.provenance,
                "weights": weights,
                "numerics": NUMERICS_VERSION,
                "evaluation": EVALUATION_VERSION,
            }
            write_json(folder / RESULT_FILENAME, result)
    return TrialResult(keys.trial, folder, result["metrics"], result["step"], keys.training)


def _run(
    config: TrialConfig,
    keys: Keys,
    folder: Path,
    store: Store,
    home: Path,
    runtime: Runtime,
    pace: Pace,
    frozen: Mapping[str, str],
) -> dict[str, Any]:
    torch.set_num_threads(runtime.threads)
    keep_freed_memory()
    write_json(folder / CONFIG_FILENAME, config.identity())
    write_json(folder / ENVIRONMENT_FILENAME, describe_environment())
    with products(config.train.precision), Journal(folder) as journal:
        try:
            with full_disk_explained(folder):
                return _train_and_evaluate(config, keys, folder, store, home, runtime, pace, frozen, journal)
        except (StopRequestedError, DiskFullError) as request:
            log.info("%s", request)
            pruning = folder / PRUNE_FILENAME
            if isinstance(request, StopRequestedError) and pruning.exists():
                journal.pruned(f"{request}: {pruning.read_text()}")
            else:
                journal.stopped(str(request))
            raise
        except Exception as error:
            log.error("%s", traceback.format_exc())
            if is_out_of_memory(error):
                raise  # the executor knows which trials shared the GPU
            journal.failed(f"{type(error).__name__}: {error}")
            raise TrialFailedError(f"trial {keys.trial}: {type(error).__name__}: {error}") from error
        except BaseException:  # an interrupt, or an executor that ends its worker
            journal.stopped()
            raise


def _train_and_evaluate(
    config: TrialConfig,
    keys: Keys,
    folder: Path,
    store: Store,
    home: Path,
    runtime: Runtime,
    pace: Pace,
    frozen: Mapping[str, str],
    journal: Journal,
) -> dict[str, Any]:
    if problems := Requirements(store).problems(config):
        raise ValueError("; ".join(problems))
    device = choose_device(runtime.device)
    weights = WeightStore(weights_folder(home))
    seconds, arithmetic = 0.0, []
    origin: dict[str, Any] = {}
    if keys.training is not None:
        write_json(folder / TRAINING_FILENAME, {"key": keys.training})
        trained = train_once(
            config,
            keys.training,
            store,
            home,
            frozen=frozen,
            weights=weights,
            journal=journal,
            validate=lambda network, context: evaluate_predictions(
                predicting(network, context, config), config, store, weights, device, "val", config.eval.val_objects
            ),
            device=device,
            compile_mode=runtime.compile,
            keep_optimizer=runtime.keep_optimizer,
            pace=pace,
        )
        predict = predicting(trained.reconstructor, trained.context, config)
        record = trained.record
        seconds, arithmetic = record["seconds"], record["environment"].get("arithmetic", [])
        origin = {"continued_from": record["continued_from"]} if record.get("continued_from") else {}
        if config.train.keep == "best":
            origin["judged_step"] = record["judged_step"]
        write_json(folder / ENVIRONMENT_FILENAME, trial_environment(record["environment"], config, device))
    else:
        journal.start(0)
        predict = predicting(build_reconstructor(config, {}, weights), no_context, config)

    # A trained trial is not pruned any more.
    stop = stop_signal(runtime.stop_file)
    evaluation = evaluate_predictions(predict, config, store, weights, device, should_stop=stop)
    evaluation.write(folder)
    sample_sheet(evaluation.samples).save(folder / SHEET_FILENAME)
    if config.is_trained:
        _write_turntable(predict, config, store, device, folder / TURNTABLE_FILENAME)
        write_json(
            folder / COSTS_FILENAME, measure_costs(trained.reconstructor, predict, config, store, device, seconds)
        )
    step = config.train.iterations if config.is_trained else 0
    timing = {"time/object_s": evaluation.object_s}
    if step:
        timing |= {"time/train_s": seconds, "time/step_ms": 1000 * seconds / step}
    journal.metrics(step, evaluation.means() | timing)
    return {
        "key": keys.trial,
        "step": step,
        "metrics": evaluation.means(),
        "per_object_sha256": file_sha256(folder / MEASUREMENTS_FILENAME),
        "arithmetic": arithmetic,
        **origin,
        "finished": time.time(),
    }


@torch.inference_mode()
def _write_turntable(predict: Predict, config: TrialConfig, store: Store, device: torch.device, path: Path) -> None:
    """Renders the first evaluated object from all around; skipped where its cameras do not determine the orbit."""
    row = next(store.split(config.eval.split).itertuples())
    views = object_views(store, row, config.data.resolution, config.model.input_views, device)
    subject = GaussianObject(str(row.object), predict(views.select(0, config.model.input_views)), views)
    size = min(max(config.data.resolution, SMALLEST_TURNTABLE), LARGEST_TURNTABLE)
    try:
        pictures = render_turntable(subject, TURNTABLE_VIEWS, size)
    except ValueError as error:
        log.warning("no turntable of %s: %s", subject.name, error)
    else:
        save_pictures(pictures, path, comment=subject.name)


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Append this process's log records to the trial's own file."""
    handler = SpareableLog(path)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    formatter.converter = time.gmtime  # trials of one sweep may run in several time zones
    handler.setFormatter(formatter)
    logger = logging.getLogger("jobs")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        handler.close()
