"""What every executor does with one trial, so that all of them end with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jobs.config import TrialConfig
from jobs.training import StopRequestedError
from jobs.trial import Runtime, TrialFailedError, TrialResult, run_trial
from results.records.disk import DiskFullError
from results.records.home import trial_folder
from results.records.journal import Journal
from results.records.trial_folder import trial_status
from sweep.file.load import RunOptions
from sweep.run.stop import request_stop

#: What a trial is: `run_trial`, or what stands in for it where the executors themselves are looked at.
Work = Callable[[TrialConfig, Path, Runtime], TrialResult]


def runtime_of(options: RunOptions, stop_file: Path) -> Runtime:
    """From the sweep's `run` section to what a trial is told."""
    return Runtime(
        threads=options.cpus_per_trial,
        device="cuda" if options.gpus_per_trial > 0 else "cpu",
        log_every=options.log_every,
        checkpoint_every=options.checkpoint_every,
        stop_file=str(stop_file),
    )


def attempt(
    key: str, config: TrialConfig, home: Path, runtime: Runtime, fail_fast: bool, work: Work = run_trial
) -> None:
    """Run one planned trial; whatever goes wrong ends in its journal, and never in another trial's way.

    Where a stop has been asked for, it does not even start.  A full disk asks for one, since the others would meet
    it too; a failure does under `fail_fast`.
    """
    stop_file = None if runtime.stop_file is None else Path(runtime.stop_file)
    if stop_file is not None and stop_file.exists():
        return
    try:
        found = work(config, home, runtime).key
        problem = None if found == key else f"the data or weights changed since it was planned: its key is now {found}"
    except (TrialFailedError, StopRequestedError):
        problem = None  # its journal says why
    except DiskFullError as error:
        problem = None
        if stop_file is not None:
            request_stop(stop_file, "disk", str(error))
    except Exception as error:  # before it could open a journal: no dataset
        problem = f"{type(error).__name__}: {error}"
    if problem is not None:
        with Journal(trial_folder(home, key)) as journal:
            journal.failed(problem)
    if fail_fast and stop_file is not None and trial_status(trial_folder(home, key)) == "failed":
        request_stop(stop_file, "failure", f"trial {key} failed")
