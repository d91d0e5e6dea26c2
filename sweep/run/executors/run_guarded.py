"""Runs one trial, the same way in every executor, so that all produce bit-identical results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobs.config import TrialConfig
from jobs.data.gpu_cache import keep_only
from jobs.device import require_gpu
from jobs.memory import has_gpu_caches, is_out_of_memory, peak_gpu_memory, watch_gpu_memory, without_gpu_caches
from jobs.stop import StopRequestedError, is_requested
from jobs.trial import Runtime, TrialFailedError, TrialResult, run_trial
from results.records.disk import DiskFullError
from results.records.home import trial_folder
from results.records.journal import Journal
from results.records.permissions import widen_umask
from results.records.trial_folder import trial_status
from sweep.run.executors.base import ExecutorOptions
from sweep.run.stop import request_stop

#: A function that runs a trial: `run_trial`, or its replacement in tests of the executors.
TrialFunction = Callable[[TrialConfig, Path, Runtime], TrialResult]


def runtime_of(options: ExecutorOptions, stop_file: Path) -> Runtime:
    """The runtime options of a trial, from the sweep's `run` section."""
    return Runtime(
        threads=options.cpus_per_trial,
        device="cuda" if options.gpus_per_trial > 0 else "cpu",
        compile=options.compile,
        log_every=options.log_every,
        checkpoint_every=options.checkpoint_every,
        keep_optimizer=options.keep_optimizer,
        stop_file=str(stop_file),
    )


@dataclass(frozen=True)
class GuardedRun:
    """The outcome of one start of a trial, besides what its folder records."""

    #: whether it ran out of memory on a shared GPU, and should run again with a larger share
    is_put_back: bool = False
    #: the peak of torch's reserved GPU memory; 0 without a GPU
    gpu_bytes: int = 0


def run_guarded(
    key: str,
    config: TrialConfig,
    home: Path,
    runtime: Runtime,
    fail_fast: bool,
    work: TrialFunction = run_trial,
    gpu_share: float = 1.0,
) -> GuardedRun:
    """Runs one planned trial; records every error of it in its journal.

    Raises `GpuLostError` where a trial failed and this process can no longer use its GPU, so that other trials run in
    another process; none of its own errors otherwise.
    The trial does not start where the stop file exists.  A full disk writes the stop file, because it would make the
    other trials fail too; under `fail_fast` a failure does as well.  A trial that runs out of GPU memory goes on
    without the copies there that only save time.  If that fails too with less than a whole GPU, it is queued again,
    because it may fit with fewer trials on that GPU.
    """
    stop_file = None if runtime.stop_file is None else Path(runtime.stop_file)
    if is_requested(stop_file):
        return GuardedRun()
    widen_umask(home)
    folder, problem = trial_folder(home, key), None
    watch_gpu_memory()
    try:
        found = _run(work, config, home, runtime, folder).key
        problem = None if found == key else f"the data or weights changed since it was planned: its key is now {found}"
    except (TrialFailedError, StopRequestedError):
        pass  # the journal has the reason, unless another process runs the trial and writes it
    except DiskFullError as error:
        if stop_file is not None:
            request_stop(stop_file, "disk", str(error))
    except Exception as error:  # out of memory, or an error before the journal was opened, such as a missing dataset
        reason = f"{type(error).__name__}: {error}"
        if not is_out_of_memory(error):
            problem = reason
        elif gpu_share >= 1:
            problem = f"{reason}\n(no other trial was on its GPU: reduce train.batch_size or the network)"
        else:
            _put_back(folder, gpu_share, reason)
            return GuardedRun(is_put_back=True)
    if problem is not None:
        with Journal(folder) as journal:
            journal.failed(problem)
    if trial_status(folder) == "failed":
        if fail_fast and stop_file is not None:
            request_stop(stop_file, "failure", f"trial {key} failed")
        require_gpu()
    return GuardedRun(gpu_bytes=peak_gpu_memory())


def _run(work: TrialFunction, config: TrialConfig, home: Path, runtime: Runtime, folder: Path) -> TrialResult:
    """Runs a trial; where it runs out of GPU memory, once more without what may be cached there."""
    try:
        return work(config, home, runtime)
    except Exception as error:
        if not (is_out_of_memory(error) and has_gpu_caches()):
            raise
        reason = f"{type(error).__name__}: {error}"
    with Journal(folder) as journal:
        journal.stopped(f"out of memory; it goes on without its dataset and features on the GPU ({reason})")
    with without_gpu_caches():
        keep_only(None)
        watch_gpu_memory()
        return work(config, home, runtime)


def _put_back(folder: Path, gpu_share: float, reason: str) -> None:
    with Journal(folder) as journal:
        journal.stopped(
            f"out of memory with {gpu_share:g} of a GPU; queued again to run with fewer trials on the GPU ({reason})"
        )
