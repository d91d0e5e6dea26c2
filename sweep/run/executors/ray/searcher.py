"""The order in which Tune starts trials: that of a queue, until a stop is requested."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from jobs.stop import is_requested
from sweep.plan.planner import PlannedTrial
from sweep.run.executors.queue import TrialQueue
from sweep.run.executors.ray.packing import Packing, Use
from sweep.run.stop import request_stop

_STOP_INTERVAL_S = 0.5


class QueueSearcher(Searcher):
    """Hands the queue's trials to Tune, which requests one as soon as the previous one has resources.

    An error of the queue requests a stop, so that running trials write a checkpoint.  `error` holds it for the caller.
    """

    def __init__(self, queue: TrialQueue, packing: Packing, stop_file: Path) -> None:
        super().__init__(metric=None, mode="max")
        self._queue, self._packing, self._stop_file = queue, packing, stop_file
        self._given: dict[str, tuple[PlannedTrial, float]] = {}  # Tune's name -> the trial and its share
        self._put_back: deque[PlannedTrial] = deque()
        self.error: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        """The parameters of `run_point` that differ between trials; None while no trial is available yet.

        Once the stop file exists there is none any more, since Tune would start and end thousands of them one by one.
        """
        if is_requested(self._stop_file):
            return Searcher.FINISHED
        try:
            return self._suggest(trial_id)
        except Exception as error:
            self._stop(error)
            return Searcher.FINISHED

    def _suggest(self, trial_id: str) -> Any:
        trial = self._next()
        if trial is None:
            may_come = self._queue.is_growing or (self._packing.is_shared and self._given)
            return None if may_come else Searcher.FINISHED
        share = self._packing.share_of(trial.config)
        self._given[trial_id] = trial, share
        config = trial.config.model_dump(mode="json")
        return {"point": {"key": trial.key, "training": trial.training, "config": config, "gpus": share}}

    def _next(self) -> PlannedTrial | None:
        return self._put_back.popleft() if self._put_back else self._queue.next()

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Called by Tune when a trial has ended: queues it again where it was put back, and else reports its end."""
        try:
            self._completed(*self._given.pop(trial_id), result or {})
        except Exception as error:
            self._stop(error)

    def _completed(self, trial: PlannedTrial, share: float, result: Mapping[str, Any]) -> None:
        if result.get("is_put_back"):
            self._packing.ran_out(trial.config, share)
            self._put_back.append(trial)
            return
        if result.get("total_bytes"):
            self._packing.used(trial.config, Use(int(result["peak_bytes"]), int(result["total_bytes"])))
        self._queue.ended(trial)

    def _stop(self, error: Exception) -> None:
        self.error = self.error or error
        request_stop(self._stop_file, "failure", f"{type(error).__name__} in the driver: {error}")

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing, because the plan decides which trials run."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores its own set-up, which nobody reads


class StoppableScheduler(FIFOScheduler):
    """First come, first served; once the stop file exists, trials that wait for resources are dropped."""

    def __init__(self, stop_file: Path) -> None:
        super().__init__()
        self._stop_file, self._looked = stop_file, 0.0

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Called several times a second."""
        if time.monotonic() - self._looked > _STOP_INTERVAL_S:
            self._looked = time.monotonic()
            if is_requested(self._stop_file):
                for trial in tune_controller.get_trials():
                    if trial.status == "PENDING":
                        trial.init_local_path()  # Tune reads the path of every trial at the end
                        tune_controller.stop_trial(trial)
        return super().choose_trial_to_run(tune_controller)

    def __getstate__(self) -> dict[str, Any]:
        return {}
