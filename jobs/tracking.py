"""Journals -> MLflow.  Only the driver writes to MLflow, never the trials.

Writing is idempotent: a run is found by the tag of its trial's key, and a metric that was written before is written
with the same time and value, which MLflow stores once.  An outage of the server loses nothing: the journals stay, and
`splatsweep sync` replays them.

A finished run is never changed.  Equal keys need not have equal scores, for instance on another machine: a home whose
finished trial has other scores than every finished run of its key makes a further run.  Several homes may write to one
store: if two create a run for the same key concurrently, both continue with the older, until one of them has finished
it; the home whose write collides repeats it.  A run starts and ends when its trial did, however late it is recorded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from results import mlflow_settings

mlflow_settings.set_defaults()

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, RunStatus, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.utils.uri import is_http_uri
from requests import HTTPError

from jobs.mlflow_store import all_experiments, create_database, find_experiment, refuse_dead_store, set_artifact_folder
from jobs.provenance import provenance_tags
from results.address import default_uri, reason, without_secrets
from results.errors import ResultsError
from results.metrics import VIEW_KINDS
from results.own_store import adopt_store
from results.records import tags
from results.records.flat import flatten
from results.records.hashing import file_sha256
from results.records.home import artifacts_folder, database_file, database_lock, training_folder, trial_folder
from results.records.journal import JournalReader
from results.records.monitor import Monitor, TrialProgress
from results.records.training_folder import WEIGHTS_FILENAME, training_of
from results.records.trial_folder import ARTIFACTS, MEASUREMENTS_FILENAME, Status

log = logging.getLogger(__name__)

#: Attempts to record a trial where homes collide, and the MLflow error codes of a collision: the param or
#: tag was written by another home at the same time, or the run was deleted in favour of an older one.
_ATTEMPTS = 6
_COLLISIONS = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")
#: artifact with the network of a finished trial
MODEL_FILENAME = "model.safetensors"
_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100
#: characters that MLflow has room for; databases other than SQLite refuse more
_PARAM_LENGTH, _TAG_LENGTH, _DESCRIPTION_LENGTH = 6000, 8000, 20_000

#: beginnings of metrics that are measured once, after training
_FINAL = (*(f"{kind}/" for kind in VIEW_KINDS), "time/")

#: Status of a trial -> MLflow's status.
_MLFLOW_STATUS: dict[str, int] = {
    "running": RunStatus.RUNNING,
    "interrupted": RunStatus.KILLED,
    "pruned": RunStatus.KILLED,
    "failed": RunStatus.FAILED,
    "finished": RunStatus.FINISHED,
}


class UnrecordedTrialsError(ResultsError):
    """MLflow refused trials; all others are recorded."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        """refused: trial -> reason."""
        name, why = next(iter(refused.items()))
        others = len(refused) - 1
        more = f", and {others} more trial{'s' * (others > 1)}" if others else ""
        super().__init__(f"MLflow does not take trial {name!r}: {why}{more}")


class ExperimentDeletedError(ResultsError):
    """The experiment of a sweep was deleted from its store."""

    def __init__(self, name: str, number: str, uri: str) -> None:
        restore = f"MLFLOW_TRACKING_URI={shlex.quote(without_secrets(uri))} mlflow experiments restore -x {number}"
        super().__init__(
            f"the experiment {name!r} was deleted from the MLflow store {without_secrets(uri)}; to have it back: "
            f"{restore}; or choose another name in the sweep file: tracking.experiment"
        )


class ArtifactTooLargeError(ResultsError):
    """A tracking server, or a proxy in front of it, refused an artifact because of its size."""

    def __init__(self, path: Path) -> None:
        without = ", or record no networks: tracking.models: never" if path.name == MODEL_FILENAME else ""
        super().__init__(
            f"its artifact {path.name} ({path.stat().st_size / 1e6:.1f} MB) is too large for the server, or a proxy "
            f"in front of it; raise the limit there (nginx: client_max_body_size){without}"
        )


@dataclass(frozen=True)
class TrackedTrial:
    """Facts on a trial that its run records, besides the journal's contents."""

    key: str
    #: name for people, e.g. "tv seed 1"
    run_name: str
    config: Mapping[str, Any]
    tags: Mapping[str, str]


@dataclass
class _Run:
    run_id: str
    #: status of the trial that was last written to MLflow
    published: str
    reader: JournalReader
    #: SHA-256 of the scores of a finished run
    scores: str | None = None
    #: time of the journal's last event
    latest: float = 0.0
    logged: set[tuple[str, int]] = field(default_factory=set)

    def holds(self, trial: TrialProgress) -> bool:
        """Whether a run has all of a trial: a finished run stays, until its trial has other scores."""
        if self.published == "finished":
            return not tags.differ(_scores(trial), self.scores)
        return self.published == trial.status and not self.reader.has_new()


def _params(config: Mapping[str, Any]) -> dict[str, str]:
    """A configuration as MLflow's parameters: dotted keys -> text, e.g. "train.stages.0.losses.l2": "1.0"."""
    values = {key: value for key, value in flatten(config).items() if value != {}}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


class Tracker:
    """Fills MLflow from the journals of some trials."""

    def __init__(
        self,
        home: Path,
        uri: str | None,
        experiment: str,
        monitor: Monitor | None = None,
        largest_model: float = 0,
    ) -> None:
        """uri: MLflow's tracking server or database; None is the home's own.  largest_model: bytes of weights up to
        which the network of a finished trial becomes an artifact of its run.

        Credentials of a server come from MLflow's own variables, MLFLOW_TRACKING_USERNAME or _TOKEN say, those of
        PostgreSQL from PGPASSWORD or ~/.pgpass where the address has none.
        """
        self._home = home.absolute()
        self.uri = uri or default_uri(self._home)
        self._monitor, self._largest_model = monitor or Monitor(self._home), largest_model
        self._runs: dict[str, _Run] = {}
        #: key -> the status in which a trial had an artifact that is too large, and the reason
        self._too_large: dict[str, tuple[Status, str]] = {}
        # Sweeps of one home share trials, and two processes that initialise one database corrupt it.
        self._lock = FileLock(database_lock(self._home))
        self._is_own = self.uri == default_uri(self._home)
        self._experiment = experiment
        with self._lock:
            if self._is_own:
                create_database(database_file(self._home))
            refuse_dead_store(self.uri)
            if self._is_own:
                adopt_store(self._home)
            self._client = MlflowClient(self.uri)
            self._experiment_id()

    def sync(self, trials: Sequence[TrackedTrial]) -> None:
        """Write the journals' new events to MLflow.

        If MLflow refuses a trial, the others are still written; all refusals are raised as one `UnrecordedTrialsError`.
        Errors of the store itself are raised at once.  A trial with an artifact that is too large is sent again by
        another `Tracker`, or once its status has changed.
        """
        found = self._monitor.look_at(trial.key for trial in trials)
        new = [(trial, now) for trial in trials if self._lacks(trial.key, now := found[trial.key])]
        if new:
            refuse_dead_store(self.uri)
        refused: dict[str, str] = {}
        for trial, now in new:
            before, why = self._too_large.get(trial.key, (None, ""))
            if now.status == before:
                refused[trial.run_name] = why
                continue
            try:
                with self._lock:
                    self._sync_trial(trial, now)
            except ArtifactTooLargeError as error:
                self._too_large[trial.key] = now.status, str(error)
                refused[trial.run_name] = str(error)
            except MlflowException as error:
                if error.error_code not in _COLLISIONS:
                    raise
                refused[trial.run_name] = reason(error)
        if refused:
            raise UnrecordedTrialsError(refused)

    def _lacks(self, key: str, now: TrialProgress) -> bool:
        """Whether there is something to write of a trial."""
        run = self._runs.get(key)
        return now.status != "pending" and (run is None or not run.holds(now))

    def describe(self, text: str) -> None:
        """Sets the experiment's description, in Markdown."""
        self._client.set_experiment_tag(self._experiment_id(), tags.DESCRIPTION, text[:_DESCRIPTION_LENGTH])

    def publish_report(self, sweep: str, page: Path) -> None:
        """Logs a report's page as the artifact of one run per sweep, which is no trial; a later page replaces it."""
        with self._lock:
            experiment = self._experiment_id()
            found = self._client.search_runs([experiment], f"tags.`{tags.REPORT}` = '{sweep}'")
            named = {tags.REPORT: sweep}
            run = found[0] if found else self._client.create_run(experiment, tags=named, run_name=f"report of {sweep}")
            self._keep_artifacts_here(run)
            self._log_artifact(run.info.run_id, page)
            self._client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.FINISHED))

    def _sync_trial(self, trial: TrackedTrial, now: TrialProgress) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._record(trial, now)
                return
            except MlflowException as error:
                if error.error_code not in _COLLISIONS or attempt == _ATTEMPTS:
                    raise
            time.sleep(random.uniform(0, 0.1 * attempt))

    def _record(self, trial: TrackedTrial, now: TrialProgress) -> None:
        # Removed while it is written: if that fails, it is unknown what MLflow stored, and all is sent again.
        known = self._runs.pop(trial.key, None)
        if known is not None and self._is_finished(known):  # perhaps by another home
            known = None
        before = known and known.published
        run = known or self._open_run(trial, now)
        if run.published != "finished":
            self._write(run, trial_folder(self._home, trial.key), now.status)
            run.scores = _scores(now)
            if run.published == "finished":
                run.logged.clear()  # thousands of entries, which are needed no more
            if run.published != before and not self._is_own:
                self._delete_doubles(trial.key)
        self._runs[trial.key] = run

    def _is_finished(self, run: _Run) -> bool:
        return _published(self._client.get_run(run.run_id)) == "finished"

    def _write(self, run: _Run, folder: Path, status: Status) -> None:
        """Writes new events.  `status` was read before the journal, so the journal is at least as recent."""
        metrics = []
        for event in run.reader.new():
            run.latest = event["time"]
            if event["event"] == "metrics":
                metrics += self._new_metrics(run, event)
            elif event["event"] == "failed":
                self._client.set_tag(run.run_id, tags.ERROR, event["error"])
            elif event["event"] == "pruned":
                self._client.set_tag(run.run_id, tags.PRUNED, event["reason"])
        for start in range(0, len(metrics), _METRICS_PER_CALL):
            self._client.log_batch(run.run_id, metrics=metrics[start : start + _METRICS_PER_CALL])
        if status != run.published:
            self._publish(run, folder, status)

    def _new_metrics(self, run: _Run, event: Mapping[str, Any]) -> list[Metric]:
        """The values of one event whose metric was not yet logged at that step, e.g. by a killed run."""
        when = int(event["time"] * 1000)
        # MLflow's pages draw bars of metrics without a step above 0, and curves of all others.
        steps = {name: 0 if name.startswith(_FINAL) else event["step"] for name in event["values"]}
        new = {name: step for name, step in steps.items() if (name, step) not in run.logged}
        run.logged.update(new.items())
        return [Metric(name, event["values"][name], when, step) for name, step in new.items()]

    def _publish(self, run: _Run, folder: Path, status: Status) -> None:
        values = provenance_tags(folder)
        if status in ("finished", "failed", "pruned"):
            hashes = {}
            for path in (folder / name for name in ARTIFACTS):
                if path.exists() and path.stat().st_size:  # skip empty logs
                    self._log_artifact(run.run_id, path)
                    hashes[path.name] = file_sha256(path)
            if status == "finished":
                hashes |= self._log_model(run, folder)
                self._withdraw_reasons(run)
            values[tags.HASHES] = json.dumps(hashes)
        self._client.log_batch(run.run_id, tags=[RunTag(*tag) for tag in values.items()])
        name = RunStatus.to_string(_MLFLOW_STATUS[status])
        if status == "running":
            self._client.update_run(run.run_id, name)
        else:
            self._client.set_terminated(run.run_id, name, int(run.latest * 1000) or None)
        # Last: it marks all of the above as complete.
        self._client.set_tag(run.run_id, tags.STATUS, status)
        run.published = status

    def _withdraw_reasons(self, run: _Run) -> None:
        """Delete the reason why a trial that is finished now once failed or was pruned."""
        for name in {tags.ERROR, tags.PRUNED} & self._client.get_run(run.run_id).data.tags.keys():
            self._client.delete_tag(run.run_id, name)

    def _log_model(self, run: _Run, folder: Path) -> dict[str, str]:
        """Log the network of a finished trial; returns its hash by name.

        It is left out where it is too large, and where it or its dataset, which the file describes, is not here.
        """
        training = training_of(folder)
        weights = None if training is None else training_folder(self._home, training) / WEIGHTS_FILENAME
        if weights is None or not weights.is_file() or weights.stat().st_size > self._largest_model:
            return {}
        from jobs.data.prepare import MissingDatasetError, find_prepared
        from jobs.model_file import exported  # torch

        try:
            content = exported(folder, find_prepared)  # recording prepares no dataset
        except MissingDatasetError:
            return {}
        except ValueError as error:
            log.warning("the network of trial %s is no artifact of its run: %s", folder.name, error)
            return {}
        with tempfile.TemporaryDirectory(prefix="splatsweep-") as parent:
            path = Path(parent) / MODEL_FILENAME
            path.write_bytes(content)
            self._log_artifact(run.run_id, path)
        return {MODEL_FILENAME: hashlib.sha256(content).hexdigest()}

    def _log_artifact(self, run_id: str, path: Path) -> None:
        try:
            self._client.log_artifact(run_id, str(path))
        except HTTPError as error:
            if error.response is None or error.response.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise
            raise ArtifactTooLargeError(path) from error

    def _open_run(self, trial: TrackedTrial, now: TrialProgress) -> _Run:
        """The run of a trial with its scores, in whichever experiment it was created, or a new one."""
        reader = JournalReader(trial_folder(self._home, trial.key))
        run = self._find_run(trial.key, _scores(now)) or self._create_run(trial, now)
        if _published(run) == "finished":
            return _Run(run.info.run_id, "finished", reader, _recorded_scores(run))
        self._keep_artifacts_here(run)
        # Also for an existing run: its creator may have been killed before logging them.  MLflow changes no param, and
        # settings that are not in the key may be others now (`jobs.keys.WATCHING`).
        known = run.data.params
        params = [Param(key, value[:_PARAM_LENGTH]) for key, value in _params(trial.config).items() if key not in known]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            self._client.log_batch(run.info.run_id, params=params[start : start + _PARAMS_PER_CALL])
        return _Run(run.info.run_id, _published(run), reader)

    def _create_run(self, trial: TrackedTrial, now: TrialProgress) -> MlflowRun:
        experiment, started = self._experiment_id(), None if now.first is None else int(now.first * 1000)
        values = {**trial.tags, tags.KEY: trial.key, tags.STATUS: "running", tags.CREATED: str(time.time_ns())}
        values = {name: value[:_TAG_LENGTH] for name, value in values.items()}
        created = self._client.create_run(experiment, started, values, trial.run_name)
        first = self._find_run(trial.key, _scores(now)) or created
        if first.info.run_id != created.info.run_id:  # another home created it meanwhile
            self._client.delete_run(created.info.run_id)
        return first

    def _delete_doubles(self, key: str) -> None:
        """Two homes may create the same run concurrently; the oldest is kept."""
        for run in self._find_runs(key)[1:]:
            if _published(run) != "finished":
                self._client.delete_run(run.info.run_id)

    def _find_run(self, key: str, scores: str | None) -> MlflowRun | None:
        """The run for a trial with these scores, None while it has none; finished runs of other scores are left out."""
        found = self._find_runs(key)
        return next(
            (r for r in found if _published(r) != "finished" or not tags.differ(scores, _recorded_scores(r))), None
        )

    def _find_runs(self, key: str) -> list[MlflowRun]:
        """The runs of a key: finished ones first, then by age, the oldest first."""
        experiments = [e.experiment_id for e in all_experiments(self._client)]
        found = self._client.search_runs(experiments, f"tags.`{tags.KEY}` = '{key}'")
        return sorted(found, key=lambda r: (_published(r) != "finished", _created(r), r.info.run_id))

    def _experiment_id(self) -> str:
        """The experiment of the sweep's name, even if it was renamed later; created where there is none.

        Raises `ExperimentDeletedError` where it was deleted.
        """
        found = find_experiment(self._client, self._experiment)
        if found is None:
            found = self._create_experiment()
        if found.lifecycle_stage != "active":
            raise ExperimentDeletedError(self._experiment, found.experiment_id, self.uri)
        if found.tags.get(tags.EXPERIMENT) is None:
            self._client.set_experiment_tag(found.experiment_id, tags.EXPERIMENT, self._experiment)
        return str(found.experiment_id)

    def _create_experiment(self) -> Experiment:
        # A server has a place for artifacts; with a database alone, MLflow would put them in the working directory.
        artifacts = None if is_http_uri(self.uri) else artifacts_folder(self._home).as_uri()
        # Versions of MLflow 3 without a switch in their UI open the pages for trainings by `mlflow.experimentKind`.
        # Later ones ignore it: the address decides, else the browser's last choice, else language models.
        kinds = {"mlflow.experimentKind": "custom_model_development", tags.EXPERIMENT: self._experiment}
        try:
            made = self._client.create_experiment(self._experiment, artifact_location=artifacts, tags=kinds)
        except MlflowException:
            found = self._client.get_experiment_by_name(self._experiment)
            if found is None:
                raise
            return found  # another home created it meanwhile
        return self._client.get_experiment(made)

    def _keep_artifacts_here(self, run: MlflowRun) -> None:
        """Set the artifact folder of a run in a database to this home's, which records the run.

        MLflow takes the folder from the experiment, which may name that of another home, or of this one before it
        was moved.  A tracking server stores artifacts itself.
        """
        here = f"{artifacts_folder(self._home).as_uri()}/{run.info.run_id}/artifacts"
        if not is_http_uri(self.uri) and run.info.artifact_uri != here:
            set_artifact_folder(self.uri, run.info.run_id, here)


def _scores(trial: TrialProgress) -> str | None:
    """The SHA-256 of a trial's scores; None while it has none."""
    return trial.result["per_object_sha256"] if trial.result is not None else None


def _recorded_scores(run: MlflowRun) -> str | None:
    return tags.artifact_hash(run.data.tags, MEASUREMENTS_FILENAME)


def _created(run: MlflowRun) -> int:
    """The moment at which a run was created, in nanoseconds; those of earlier versions started then."""
    recorded = run.data.tags.get(tags.CREATED, "")  # which may have been edited in MLflow
    return int(recorded) if recorded.isdecimal() else run.info.start_time * 1_000_000


def _published(run: MlflowRun) -> str:
    return run.data.tags.get(tags.STATUS, "")  # a tag may have been deleted in MLflow: the trial is then recorded anew
