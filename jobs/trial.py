"""One trial: a training and its evaluation, from configuration to result.

Its folder holds the journal and the result; the folder of its training holds the weights
(`results.records.training_folder`).  All executors run trials by `run_trial`.  It may be killed at any moment and
called again: it resumes from the last checkpoint, and returns at once if the result exists.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
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
from jobs.stop import ShouldStop, StopRequestedError, stop_signal
from jobs.trained import FinishedTraining, train_once
from jobs.training import Pace
from jobs.turntable import GaussianObject, render_turntable, save_pictures
from model.scenes import Reconstructor
from model.types import Context, Views
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
        frozen = weight_identities(config, home)
    keys = keys_of(config, store.fingerprint, frozen)
    folder = trial_folder(home, keys.trial)
    folder.mkdir(parents=True, exist_ok=True)
    should_stop = stop_signal(runtime.stop_file, folder / PRUNE_FILENAME)
    with exclusive_lock(folder / LOCK_FILENAME, f"trial {keys.trial}", should_stop), _log_to(folder / LOG_FILENAME):
        result = read_result(folder)
        if result is None:
            result = _Trial(config, keys, folder, home, store, frozen, runtime).run(should_stop)
            with _journal_with_end(folder, keys.trial):  # the journal is on the disk before the result
                write_json(folder / RESULT_FILENAME, result)
    return TrialResult(keys.trial, folder, result["metrics"], result["step"], keys.training)


@dataclass(frozen=True)
class _Trial:
    """A trial that has no result yet: its configuration, inputs and places."""

    config: TrialConfig
    keys: Keys
    folder: Path
    home: Path
    store: Store
    #: the frozen weights that it uses: name -> sha256
    frozen: Mapping[str, str]
    runtime: Runtime

    @property
    def device(self) -> torch.device:
        """The torch device of training and evaluation."""
        return choose_device(self.runtime.device)

    @property
    def weights(self) -> WeightStore:
        """The files of the frozen weights."""
        return WeightStore(weights_folder(self.home))

    def run(self, should_stop: ShouldStop) -> dict[str, Any]:
        """Trains and evaluates the trial; returns its result.  The journal records its end, whatever it is."""
        torch.set_num_threads(self.runtime.threads)
        keep_freed_memory()
        write_json(self.folder / CONFIG_FILENAME, self.config.identity())
        write_json(self.folder / ENVIRONMENT_FILENAME, describe_environment())
        with products(self.config.train.precision), _journal_with_end(self.folder, self.keys.trial) as journal:
            if problems := Requirements(self.store).problems(self.config):
                raise ValueError("; ".join(problems))
            if self.keys.training is None:
                journal.start(0)
                return self._evaluate(build_reconstructor(self.config, {}, self.weights), no_context, {}, journal)
            return self._evaluate(*self._train(self.keys.training, journal, should_stop), journal)

    def _train(self, key: str, journal: Journal, should_stop: ShouldStop) -> FinishedTraining:
        """Trains the network, or loads it where its training is finished."""
        config, runtime, weights, device = self.config, self.runtime, self.weights, self.device
        write_json(self.folder / TRAINING_FILENAME, {"key": key})
        training = train_once(
            config,
            key,
            self.store,
            self.home,
            frozen=self.frozen,
            weights=weights,
            journal=journal,
            validate=lambda network, context: evaluate_predictions(
                predicting(network, context, config),
                config,
                self.store,
                weights,
                device,
                "val",
                config.eval.val_objects,
            ),
            device=device,
            compile_mode=runtime.compile,
            keep_optimizer=runtime.keep_optimizer,
            pace=Pace(runtime.log_every, runtime.checkpoint_every, should_stop),
        )
        environment = trial_environment(training.record["environment"], config, device)
        write_json(self.folder / ENVIRONMENT_FILENAME, environment)
        return training

    def _evaluate(
        self,
        reconstructor: Reconstructor,
        context: Callable[[Views], Context],
        record: Mapping[str, Any],
        journal: Journal,
    ) -> dict[str, Any]:
        """Evaluates the trial's method, and writes all files but the result, which it returns.

        record: that of the training; empty where there is nothing to train.
        """
        config, store, folder, device = self.config, self.store, self.folder, self.device
        predict = predicting(reconstructor, context, config)
        stop = stop_signal(self.runtime.stop_file)  # a trained trial is not pruned any more
        evaluation = evaluate_predictions(predict, config, store, self.weights, device, should_stop=stop)
        evaluation.write(folder)
        sample_sheet(evaluation.samples).save(folder / SHEET_FILENAME)
        step, timing = 0, {"time/object_s": evaluation.object_s}
        if config.is_trained:
            step, seconds = config.train.iterations, record["seconds"]
            timing |= {"time/train_s": seconds, "time/step_ms": 1000 * seconds / step} if step else {}
            _write_turntable(predict, config, store, device, folder / TURNTABLE_FILENAME)
            costs = measure_costs(reconstructor, predict, config, store, device, seconds)
            write_json(folder / COSTS_FILENAME, costs)
        journal.metrics(step, evaluation.means() | timing)
        return {
            "key": self.keys.trial,
            "step": step,
            "metrics": evaluation.means(),
            "per_object_sha256": file_sha256(folder / MEASUREMENTS_FILENAME),
            "arithmetic": record.get("environment", {}).get("arithmetic", []),
            **({"continued_from": record["continued_from"]} if record.get("continued_from") else {}),
            **({"judged_step": record["judged_step"]} if config.is_trained and config.train.keep == "best" else {}),
            "finished": time.time(),
            "training": self.keys.training,
            **store.provenance,
            "weights": dict(self.frozen),
            "numerics": NUMERICS_VERSION,
            "evaluation": EVALUATION_VERSION,
        }


@contextmanager
def _journal_with_end(folder: Path, key: str) -> Iterator[Journal]:
    """The journal of a trial, in which an error or a stop of the body is recorded.

    Raises `TrialFailedError` for an error of the trial's own; passes on all others.
    """
    with Journal(folder) as journal:
        try:
            with full_disk_explained(folder):
                yield journal
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
            raise TrialFailedError(f"trial {key}: {type(error).__name__}: {error}") from error
        except BaseException:  # an interrupt, or an executor that ends its worker
            journal.stopped()
            raise


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
