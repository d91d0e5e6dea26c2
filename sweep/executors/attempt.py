"""What every executor does with one trial, so that all of them end with the same bits."""

from __future__ import annotations

from pathlib import Path

from jobs.config import TrialConfig
from jobs.journal import Journal
from jobs.train import StopRequestedError
from jobs.trial import Runtime, TrialFailedError, run_trial
from sweep.spec import RunOptions


def runtime_of(options: RunOptions, stop_file: Path) -> Runtime:
    """From the sweep's `run` section to what a trial is told."""
    return Runtime(
        threads=options.cpus_per_trial,
        device="cuda" if options.gpus_per_trial > 0 else "cpu",
        log_every=options.log_every,
        checkpoint_every=options.checkpoint_every,
        stop_file=str(stop_file),
    )


def attempt(key: str, config: TrialConfig, home: Path, runtime: Runtime) -> None:
    """Run one planned trial; whatever goes wrong ends in its journal, and never in another trial's way.

    Where a stop has been asked for, it does not even start.
    """
    if runtime.stop_file is not None and Path(runtime.stop_file).exists():
        return
    try:
        found = run_trial(config, home, runtime).key
        problem = None if found == key else f"the data or weights changed since it was planned: its key is now {found}"
    except (TrialFailedError, StopRequestedError):
        return  # its journal says why
    except Exception as error:  # before it could open a journal: no dataset, no disk
        problem = f"{type(error).__name__}: {error}"
    if problem is not None:
        with Journal(home / "trials" / key) as journal:
            journal.failed(problem)
