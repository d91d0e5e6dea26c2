"""Deaths and errors of workers: Tune restarts the worker, whatever Ray names as the cause.

Ray reports a worker that it stopped because its node ran out of memory as `OutOfMemoryError`.  Tune (Ray 2.60) takes
only a `RayActorError` for the death of a worker; any other error of Ray ends its loop, and so the whole sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import tune_controller

from results.records.home import trial_folder
from results.records.journal import Journal
from results.records.trial_folder import trial_status
from sweep.run.stop import request_stop


class WorkerDiedError(RayActorError):
    """A worker died for a reason that Ray does not report as the death of an actor; the reason is the `__cause__`."""


class _ActorManager(RayActorManager):
    def _actor_task_failed(self, tracked_actor_task: TrackedActorTask, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            died = WorkerDiedError(error_msg=str(exception))
            died.__cause__ = exception
            exception = died
        super()._actor_task_failed(tracked_actor_task, exception)


tune_controller.RayActorManager = _ActorManager  # type: ignore[misc]  # Tune has no option for it


class DeadTrials(tune.Callback):
    """Releases what dead workers held, and records a trial that is no longer restarted as failed, in its journal."""

    def __init__(self, home: Path, max_failures: int, stop_file: Path | None, release: Callable[[str], None]) -> None:
        """stop_file: written after the first such failure; None to let the other trials run.

        release: lets other trials run the training that a trial's worker held when it died.
        """
        self._home, self._max_failures, self._stop_file, self._release = home, max_failures, stop_file, release

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune before it restarts a trial.

        The trial may get no worker before others end, and those may wait for its training.
        """
        self._release(trial.config["point"]["key"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune when it no longer restarts a trial."""
        key = trial.config["point"]["key"]
        self._release(key)
        folder = trial_folder(self._home, key)
        status = trial_status(folder)
        if status in ("finished", "pruned"):  # its worker died after that
            return
        if status != "failed":
            with Journal(folder) as journal:
                journal.failed(_reason(trial.get_pickled_error(), self._max_failures + 1))
        if self._stop_file is not None:
            request_stop(self._stop_file, "failure", f"trial {key} failed")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores its own set-up, which nobody reads


def _reason(error: Exception | None, times: int) -> str:
    """The reason why a trial failed; error: the one that ended its last worker."""
    if isinstance(error, RayTaskError):  # raised outside of `run_guarded`
        cause = error.cause
        while isinstance(cause, RayTaskError):  # the file server raised it
            cause = cause.cause
        return f"its worker failed {times} times: {type(cause).__name__}: {cause}"
    why = str(error).partition(". ")[0] if isinstance(error, WorkerDiedError) else "killed, or out of memory"
    return f"its worker process died {times} times ({why})"
