import hashlib
import json
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from requests import HTTPError, Response
from sqlalchemy.exc import OperationalError

from jobs.mlflow_store import forget
from jobs.tracking import (
    ArtifactTooLargeError,
    ExperimentDeletedError,
    TrackedTrial,
    Tracker,
    UnrecordedTrialsError,
    _created,
)
from results.address import default_uri
from results.records.flat import flatten
from results.records.journal import Journal
from results.records.tags import artifact_hash, code_of, evaluation_of
from results.records.trial_folder import MEASUREMENTS_FILENAME, RESULT_FILENAME

TRIAL = TrackedTrial(
    key="0123456789abcdef",
    run_name="baseline",
    config={"seed": 0, "train": {"stages": [{"losses": {"l2": 1.0}}]}, "mult": [1, 2]},
    tags={"splatsweep.trial": "baseline"},
)


@pytest.fixture(autouse=True)
def _store(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "mlflow.db")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "trials" / TRIAL.key
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def client(tmp_path) -> MlflowClient:
    return MlflowClient(default_uri(tmp_path))


def tracker(home) -> Tracker:
    return Tracker(home, None, "experiment")


def only_run(client: MlflowClient):
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return run


def history(client: MlflowClient, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(only_run(client).info.run_id, name)]


def measure_loss(folder) -> None:
    """Writes the journal of a trial that has reached iteration 5 and no end."""
    with Journal(folder) as journal:
        journal.start(0)
        journal.metrics(5, {"train/loss": 0.5})


def finish(folder, scores: bytes = b"rows") -> None:
    (folder / MEASUREMENTS_FILENAME).write_bytes(scores)
    sha256 = hashlib.sha256(scores).hexdigest()
    (folder / RESULT_FILENAME).write_text(
        json.dumps(
            {
                "per_object_sha256": sha256,
                "metrics": {},
                "data_fingerprint": "f00d",
                "data_checksum": "beef",
                "weights": {"vgg16": "cafe"},
            }
        )
    )


def params(config):
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in flatten(config).items()}


def test_configuration_is_flattened_to_dotted_params():
    assert params(TRIAL.config) == {"seed": "0", "train.stages.0.losses.l2": "1.0", "mult": "[1, 2]"}


def test_a_trial_that_has_not_begun_has_no_run(tmp_path, client):
    tracker(tmp_path).sync([TRIAL])
    assert client.search_runs([e.experiment_id for e in client.search_experiments()]) == []


def test_a_run_grows_with_its_journal_and_ends_with_its_result(tmp_path, folder, client):
    writer = tracker(tmp_path)
    with Journal(folder) as journal:
        journal.start(0)
        journal.metrics(5, {"train/loss": 0.5})
        writer.sync([TRIAL])
        assert history(client, "train/loss") == [(5, 0.5)]
        assert only_run(client).info.status == "RUNNING"
        journal.metrics(10, {"train/loss": 0.25})
    (folder / "log.txt").touch()  # nothing was logged
    finish(folder)
    writer.sync([TRIAL])
    run = only_run(client)
    assert history(client, "train/loss") == [(5, 0.5), (10, 0.25)]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "baseline")
    assert run.data.tags["splatsweep.status"] == "finished"
    assert run.data.tags["splatsweep.key"] == TRIAL.key
    assert run.data.tags["splatsweep.data_fingerprint"] == "f00d"
    assert run.data.tags["splatsweep.data_checksum"] == "beef"
    assert run.data.tags["splatsweep.weights.vgg16"] == "cafe"
    assert artifact_hash(run.data.tags, "per_object.parquet") == hashlib.sha256(b"rows").hexdigest()
    assert [name for name in run.data.tags if name.startswith("splatsweep.sha256")] == ["splatsweep.sha256"]
    assert run.data.params["train.stages.0.losses.l2"] == "1.0"
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == [MEASUREMENTS_FILENAME]


def test_a_run_that_is_recorded_later_starts_and_ends_when_its_trial_did(tmp_path, folder, client):
    measure_loss(folder)
    finish(folder)
    journal = folder / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    then = [event | {"time": 1.7e9 + 60 * number} for number, event in enumerate(events)]
    journal.write_text("".join(json.dumps(event) + "\n" for event in then))
    tracker(tmp_path).sync([TRIAL])
    info = only_run(client).info
    assert info.start_time == 1_700_000_000_000
    (measured,) = client.get_metric_history(info.run_id, "train/loss")
    assert measured.timestamp == 1_700_000_060_000
    assert info.end_time == 1_700_000_000_000 + 60_000 * (len(events) - 1)


def test_a_run_is_tagged_with_the_arithmetic_of_its_trial(tmp_path, folder, client):
    computed = {"backend": "gsplat", "execution": "graph", "precision": "tf32", "device": "cuda"}
    environment = {"git": {}, "packages": {}, "host": "node", "python": "3.11", "arithmetic": [computed]}
    (folder / "environment.json").write_text(json.dumps(environment))
    with Journal(folder) as journal:
        journal.start(0)
    finish(folder)
    tracker(tmp_path).sync([TRIAL])
    tags = only_run(client).data.tags
    assert {name: tags[f"splatsweep.arithmetic.{name}"] for name in computed} == computed


def test_a_run_has_the_code_of_its_training_and_that_of_an_evaluation_elsewhere(tmp_path, folder, client):
    drawn = {"backend": "cpu", "device": "cpu"}
    evaluation = {"git": {"commit": "c" * 40, "dirty": False}, "host": "there", "arithmetic": [drawn]}
    environment = {"git": {"commit": "b" * 40, "dirty": True}, "host": "node", "python": "3.11"}
    environment |= {"earlier_commits": [{"commit": "a" * 40, "dirty": False}], "evaluation": evaluation}
    (folder / "environment.json").write_text(json.dumps(environment))
    measure_loss(folder)
    finish(folder)
    tracker(tmp_path).sync([TRIAL])
    found = only_run(client).data.tags
    assert found["mlflow.source.git.commit"] == "b" * 40
    assert code_of(found, 7) == "aaaaaaa then bbbbbbb with changes"
    assert evaluation_of(found) == {"host": "there", "code": "c" * 40} | drawn


def test_a_run_names_the_trainings_that_its_own_continues_and_which_weights_were_best(tmp_path, folder, client):
    measure_loss(folder)
    finish(folder)
    result = json.loads((folder / RESULT_FILENAME).read_text())
    lineage = [{"training": "0123", "step": 5}, {"training": "4567", "step": 9}]
    (folder / RESULT_FILENAME).write_text(json.dumps(result | {"continued_from": lineage, "judged_step": 12}))
    tracker(tmp_path).sync([TRIAL])
    found = only_run(client).data.tags
    assert found["splatsweep.continued_from"] == "training 0123 at iteration 5, then training 4567 at iteration 9"
    assert found["splatsweep.judged_step"] == "12"


def test_another_driver_continues_the_run_and_repeats_nothing(tmp_path, folder, client):
    with Journal(folder) as journal:
        journal.start(0)
        journal.metrics(5, {"train/loss": 0.5})
        tracker(tmp_path).sync([TRIAL])
        # Killed, resumed from step 4: step 5 is measured again.
        journal.start(4)
        journal.metrics(5, {"train/loss": 0.5})
        journal.metrics(6, {"train/loss": 0.4})
    for _ in range(2):
        tracker(tmp_path).sync([TRIAL])
    assert history(client, "train/loss") == [(5, 0.5), (6, 0.4)]


def test_a_finished_run_is_left_alone(tmp_path, folder, client):
    with Journal(folder) as journal:
        journal.start(0)
    finish(folder)
    tracker(tmp_path).sync([TRIAL])
    ended = only_run(client).info.end_time
    tracker(tmp_path).sync([TRIAL])
    assert only_run(client).info.end_time == ended


def scores_of_runs(client: MlflowClient) -> dict[str, str]:
    """The state of each run, by the SHA-256 of its scores."""
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {artifact_hash(r.data.tags, MEASUREMENTS_FILENAME): r.data.tags["splatsweep.status"] for r in runs}


BOTH = {hashlib.sha256(scores).hexdigest(): "finished" for scores in (b"rows", b"other rows")}


def test_a_driver_keeps_no_list_of_the_metrics_of_finished_trials(tmp_path, folder):
    """They would be gigabytes for a sweep of thousands of long trainings."""
    one = tracker(tmp_path)
    measure_loss(folder)
    one.sync([TRIAL])
    assert one._runs[TRIAL.key].logged == {("train/loss", 5)}
    finish(folder)
    one.sync([TRIAL])
    assert one._runs[TRIAL.key].logged == set()


@pytest.mark.parametrize("seen_running", [False, True])
def test_a_trial_that_was_trained_again_with_other_scores_has_a_further_run(tmp_path, folder, client, seen_running):
    measure_loss(folder)
    finish(folder)
    tracker(tmp_path).sync([TRIAL])
    first = only_run(client)
    shutil.rmtree(folder)
    measure_loss(folder)
    writer = tracker(tmp_path)
    if seen_running:
        writer.sync([TRIAL])
        assert only_run(client).info.status == "FINISHED"
    finish(folder, b"other rows")
    for again in (writer, writer, tracker(tmp_path)):
        again.sync([TRIAL])
        assert scores_of_runs(client) == BOTH
    runs = {run.info.run_id: run for run in client.search_runs(["1"])}
    kept = runs.pop(first.info.run_id)
    (second,) = runs.values()
    assert (kept.info.end_time, kept.data.tags) == (first.info.end_time, first.data.tags)
    assert [(m.step, m.value) for m in client.get_metric_history(second.info.run_id, "train/loss")] == [(5, 0.5)]
    assert second.data.params == params(TRIAL.config)


@pytest.mark.parametrize("end", ["finished", "failed"])
def test_a_run_that_another_home_has_finished_takes_nothing_more(tmp_path, folder, client, end):
    """Two homes train one key at once; the other one's scores get a run of their own, and its failure none."""
    other = tmp_path / "other" / "trials" / TRIAL.key
    for place in (folder, other):
        measure_loss(place)
    writers = [Tracker(home, default_uri(tmp_path), "experiment") for home in (tmp_path, tmp_path / "other")]
    for writer in writers:
        writer.sync([TRIAL])
    finish(folder)
    writers[0].sync([TRIAL])
    run = only_run(client)
    if end == "failed":
        with Journal(other) as journal:
            journal.failed("ValueError: no")
        writers[1].sync([TRIAL])
        assert only_run(client).data.tags == run.data.tags
    else:
        finish(other, b"other rows")
        for writer in (*writers, *writers):
            writer.sync([TRIAL])
        assert scores_of_runs(client) == BOTH
        assert client.get_run(run.info.run_id).data.tags == run.data.tags


def test_a_failed_trial_is_a_failed_run_until_it_is_retried(tmp_path, folder, client):
    writer = tracker(tmp_path)
    with Journal(folder) as journal:
        journal.start(0)
        journal.failed("ValueError: no")
        (folder / "log.txt").write_text("Traceback")
        writer.sync([TRIAL])
        assert only_run(client).info.status == "FAILED"
        assert [file.path for file in client.list_artifacts(only_run(client).info.run_id)] == ["log.txt"]
        assert only_run(client).data.tags["splatsweep.error"] == "ValueError: no"
        journal.start(0)
        tracker(tmp_path).sync([TRIAL])
        assert only_run(client).info.status == "RUNNING"
        assert only_run(client).data.tags["splatsweep.status"] == "running"
        journal.pruned("worse than the median")
        writer.sync([TRIAL])
        assert only_run(client).data.tags["splatsweep.pruned"] == "worse than the median"
        journal.start(0)
    finish(folder)
    tracker(tmp_path).sync([TRIAL])
    assert only_run(client).info.status == "FINISHED"
    assert not only_run(client).data.tags.keys() & {"splatsweep.error", "splatsweep.pruned"}


def test_an_interrupted_trial_is_a_killed_run_until_it_resumes(tmp_path, folder, client):
    writer = tracker(tmp_path)
    with Journal(folder) as journal:
        journal.start(0)
        writer.sync([TRIAL])
        journal.stopped()
        writer.sync([TRIAL])
        assert only_run(client).info.status == "KILLED"
        assert only_run(client).data.tags["splatsweep.status"] == "interrupted"
        journal.start(0)
        writer.sync([TRIAL])
    run = only_run(client)
    assert (run.info.status, run.data.tags["splatsweep.status"]) == ("RUNNING", "running")


def test_a_trial_resumes_with_other_settings_that_are_not_in_its_key(tmp_path, folder, client):
    def watched(every: int) -> TrackedTrial:
        return replace(TRIAL, config={**TRIAL.config, "eval": {"every": every}})

    measure_loss(folder)
    tracker(tmp_path).sync([watched(100)])
    finish(folder)
    tracker(tmp_path).sync([watched(50)])
    run = only_run(client)
    assert run.info.status == "FINISHED"
    assert run.data.params == params(watched(100).config)


def test_a_trial_with_more_than_a_call_may_have_is_recorded_completely(tmp_path, folder, client):
    trial = replace(TRIAL, config={"long": "x" * 7000, "none": {}, **{f"key{number}": number for number in range(250)}})
    with Journal(folder) as journal:
        journal.start(0)
        for step in range(1, 3):
            journal.metrics(step, {f"train/{number}": 1.0 for number in range(600)})
    tracker(tmp_path).sync([trial])
    run = only_run(client)
    kept = {name: value for name, value in trial.config.items() if name != "none"}
    assert run.data.params == params(kept | {"long": "x" * 6000})
    assert len(run.data.metrics) == 600
    assert history(client, "train/0") == history(client, "train/599") == [(1, 1.0), (2, 1.0)]


def test_values_that_are_not_finite_are_recorded(tmp_path, folder, client):
    with Journal(folder) as journal:
        journal.start(0)
        journal.metrics(1, {"novel/psnr": float("inf")})
    tracker(tmp_path).sync([TRIAL])
    assert history(client, "novel/psnr")[0][1] > 1e308


def test_final_scores_have_no_step_so_that_mlflow_draws_bars(tmp_path, folder, client):
    with Journal(folder) as journal:
        journal.start(0)
        journal.metrics(5, {"train/loss": 0.5})
        journal.metrics(9, {"novel/psnr": 20.0, "conditioned/psnr": 25.0, "time/step_ms": 3.0})
    tracker(tmp_path).sync([TRIAL])
    assert history(client, "train/loss") == [(5, 0.5)]
    finals = ("novel/psnr", "conditioned/psnr", "time/step_ms")
    assert [history(client, name) for name in finals] == [[(0, 20.0)], [(0, 25.0)], [(0, 3.0)]]


def test_the_experiment_has_a_description_and_one_run_with_the_report(tmp_path, client):
    writer, page = tracker(tmp_path), tmp_path / "index.html"
    for content in ("first", "second"):
        page.write_text(content)
        writer.describe(f"notes, {content}")
        writer.publish_report("s", page)
    experiment = client.get_experiment_by_name("experiment")
    assert experiment.tags["mlflow.note.content"] == "notes, second"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    run = only_run(client)
    assert (run.info.run_name, run.info.status) == ("report of s", "FINISHED")
    assert "splatsweep.key" not in run.data.tags
    recorded = Path(run.info.artifact_uri.removeprefix("file://")) / "index.html"
    assert recorded.read_text() == "second"


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("successor", [False, True], ids=["same driver", "next driver"])
def test_a_server_that_dies_at_any_call_loses_and_doubles_nothing(lost, successor, tmp_path, client, monkeypatch):
    """In each trial a different one of the run's calls fails."""
    calls_left = 0

    def failing(method):
        def call(*arguments, **options):
            nonlocal calls_left
            calls_left -= 1
            if calls_left == 0 and lost == "request":
                raise ConnectionError("the server is gone")
            answer = method(*arguments, **options)
            if calls_left == 0:
                raise ConnectionError("the server is gone")
            return answer

        return call

    for name in ("create_run", "log_batch", "set_tag", "log_artifact", "update_run", "set_terminated"):
        monkeypatch.setattr(MlflowClient, name, failing(getattr(MlflowClient, name)))
    number, died = 0, True
    while died:
        number += 1
        trial = replace(TRIAL, key=f"{number:016x}")
        folder = tmp_path / "trials" / trial.key
        measure_loss(folder)
        finish(folder)
        writer, calls_left = tracker(tmp_path), number
        try:
            writer.sync([trial])
            died = False
        except ConnectionError:
            (tracker(tmp_path) if successor else writer).sync([trial])
        (run,) = client.search_runs(["1"], f"tags.`splatsweep.key` = '{trial.key}'")
        assert (run.info.status, run.data.tags["splatsweep.status"]) == ("FINISHED", "finished")
        assert run.data.params == params(TRIAL.config)
        (metric,) = client.get_metric_history(run.info.run_id, "train/loss")
        assert (metric.step, metric.value) == (5, 0.5)
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == [MEASUREMENTS_FILENAME]
    assert number > 6


def test_two_homes_that_create_a_run_concurrently_keep_one(tmp_path, folder, client, monkeypatch):
    """The other home creates its run after this one has searched for runs and before it creates its own."""
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "trials", other / "trials")
    for place in (folder, other / "trials" / TRIAL.key):
        measure_loss(place)
    writers = [Tracker(home, default_uri(tmp_path), "experiment") for home in (tmp_path, other)]
    create = Tracker._create_run

    def create_late(*arguments, **options):
        monkeypatch.setattr(Tracker, "_create_run", create)
        writers[1].sync([TRIAL])
        return create(*arguments, **options)

    monkeypatch.setattr(Tracker, "_create_run", create_late)
    writers[0].sync([TRIAL])
    run = only_run(client)
    finish(folder)
    writers[0].sync([TRIAL])
    assert only_run(client).info.run_id == run.info.run_id
    assert only_run(client).info.status == "FINISHED"


def test_runs_made_unseen_of_each_other_become_one(tmp_path, folder, client, monkeypatch):
    """Each home searches for runs before the other's is visible; the younger run finishes first."""
    other = tmp_path / "other"
    writers = [Tracker(home, default_uri(tmp_path), "experiment") for home in (tmp_path, other)]
    measure_loss(folder)
    shutil.copytree(folder, other / "trials" / TRIAL.key)
    with monkeypatch.context() as blind:
        blind.setattr(MlflowClient, "search_runs", lambda *_: [])
        for writer in writers:
            writer.sync([TRIAL])
    assert len(client.search_runs(["1"])) == 2
    for place in (other / "trials" / TRIAL.key, folder):
        finish(place)
    for writer in reversed(writers):
        writer.sync([TRIAL])
    assert only_run(client).info.status == "FINISHED"
    assert history(client, "train/loss") == [(5, 0.5)]


def test_a_run_that_is_deleted_meanwhile_is_made_anew(tmp_path, folder, client):
    writer = tracker(tmp_path)
    with Journal(folder) as journal:
        journal.start(0)
        journal.metrics(5, {"train/loss": 0.5})
        writer.sync([TRIAL])
        deleted = only_run(client).info.run_id
        client.delete_run(deleted)
        journal.metrics(6, {"train/loss": 0.4})
    writer.sync([TRIAL])
    assert only_run(client).info.run_id != deleted
    assert history(client, "train/loss") == [(5, 0.5), (6, 0.4)]


@pytest.mark.parametrize("times", [2, 1000])
def test_collisions_with_another_home_are_tried_again_but_not_forever(times, tmp_path, folder, client, monkeypatch):
    left, log_batch = times, MlflowClient.log_batch

    def colliding(*arguments, **options):
        nonlocal left
        if left:
            left -= 1
            raise MlflowException("duplicate key value violates unique constraint", BAD_REQUEST)
        return log_batch(*arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", colliding)
    measure_loss(folder)
    if times == 2:
        tracker(tmp_path).sync([TRIAL])
        assert history(client, "train/loss") == [(5, 0.5)]
    else:
        with pytest.raises(UnrecordedTrialsError, match="'baseline': duplicate key"):
            tracker(tmp_path).sync([TRIAL])


# Stores that are servers


@pytest.fixture(params=["postgresql", "http"])
def remote(request) -> str:
    """The address of a store on a separate server."""
    if request.param == "http":
        return request.getfixturevalue("mlflow_server").uri
    return request.getfixturevalue("database")


def begun(home, steps=5) -> TrackedTrial:
    """A new trial of this home with its loss recorded at every step."""
    trial = replace(TRIAL, key=uuid.uuid4().hex[:16])
    with Journal(home / "trials" / trial.key) as journal:
        journal.start(0)
        for step in range(1, steps + 1):
            journal.metrics(step, {"train/loss": 1 / step})
    return trial


def found(uri: str, trial: TrackedTrial):
    """The only run of a trial, and its loss over steps."""
    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"tags.`splatsweep.key` = '{trial.key}'")
    return run, [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")]


def test_a_run_is_recorded_on_a_server_completely_and_once(remote, tmp_path, capsys):
    trial = begun(tmp_path)
    Tracker(tmp_path, remote, "whole").sync([trial])
    finish(tmp_path / "trials" / trial.key)
    for _ in range(2):
        Tracker(tmp_path, remote, "whole").sync([trial])
    assert capsys.readouterr().out == "", "MLflow would print between the lines of the progress"
    run, losses = found(remote, trial)
    assert (run.info.status, run.data.tags["splatsweep.status"]) == ("FINISHED", "finished")
    assert losses == [(step, 1 / step) for step in range(1, 6)]
    assert run.data.params == params(TRIAL.config)
    copy = MlflowClient(remote).download_artifacts(run.info.run_id, MEASUREMENTS_FILENAME, str(tmp_path))
    sha256 = artifact_hash(run.data.tags, MEASUREMENTS_FILENAME)
    assert hashlib.sha256(Path(copy).read_bytes()).hexdigest() == sha256


def test_long_notes_are_recorded_as_far_as_a_store_has_room(remote, tmp_path):
    trial = replace(begun(tmp_path), tags={"mlflow.note.content": "x" * 9000})
    writer = Tracker(tmp_path, remote, "long notes")
    writer.sync([trial])
    writer.describe("x" * 30_000)
    run, _ = found(remote, trial)
    assert run.data.tags["mlflow.note.content"] == "x" * 8000
    assert MlflowClient(remote).get_experiment(run.info.experiment_id).tags["mlflow.note.content"] == "x" * 20_000


def test_artifacts_of_a_database_lie_in_the_home(database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trial = begun(tmp_path)
    finish(tmp_path / "trials" / trial.key)
    Tracker(tmp_path, database, "experiment").sync([trial])
    run, _ = found(database, trial)
    assert run.info.artifact_uri.startswith((tmp_path / "artifacts").as_uri())
    assert not (tmp_path / "mlruns").exists()


def test_homes_that_write_to_a_server_at_once_share_every_run(remote, tmp_path):
    homes = [tmp_path / name for name in "abcdefgh"]
    trials = [begun(homes[0]) for _ in range(3)]
    for home in homes[1:]:
        shutil.copytree(homes[0] / "trials", home / "trials")
    with ThreadPoolExecutor(len(homes)) as pool:
        list(pool.map(lambda home: Tracker(home, remote, "shared").sync(trials), homes))
    for trial in trials:
        _, losses = found(remote, trial)
        assert losses == [(step, 1 / step) for step in range(1, 6)]


@pytest.mark.parametrize("kind", ["postgresql", "http"])
def test_a_killed_and_restarted_server_loses_nothing(kind, tmp_path, request):
    server = request.getfixturevalue("mlflow_server" if kind == "http" else "postgres")
    uri = server.uri if kind == "http" else request.getfixturevalue("database")
    writer = Tracker(tmp_path, uri, "killed")
    trials = [begun(tmp_path) for _ in range(2)]
    writer.sync(trials)
    for trial in trials:
        with Journal(tmp_path / "trials" / trial.key) as journal:
            journal.metrics(6, {"train/loss": 0.0})
        finish(tmp_path / "trials" / trial.key)
    server.kill()
    try:
        began = time.monotonic()
        with pytest.raises((MlflowException, OperationalError)):
            writer.sync(trials)
        with pytest.raises((MlflowException, OperationalError)):
            Tracker(tmp_path, uri, "killed")
        assert time.monotonic() - began < 120, "MLflow's own retries would take minutes"
    finally:
        server.start()
    writer.sync(trials)
    for trial in trials:
        run, losses = found(uri, trial)
        assert run.info.status == "FINISHED"
        assert losses == [(step, 1 / step) for step in range(1, 6)] + [(6, 0.0)]


def artifacts(client: MlflowClient) -> Path:
    return Path(unquote(urlsplit(only_run(client).info.artifact_uri).path))


@pytest.mark.parametrize("name", ["moved", "with blank", "per%20cent", "what?", "hash#tag", "größe 大", "a'b&c=d"])
@pytest.mark.parametrize("kind", ["copied", "moved"])
def test_a_moved_home_records_in_its_new_place_only(tmp_path, empty_store, kind, name):
    old, new = tmp_path / "old", tmp_path / name
    folder = old / "trials" / TRIAL.key
    folder.mkdir(parents=True)
    shutil.copy(empty_store, old / "mlflow.db")
    measure_loss(folder)
    with Journal(folder) as journal:
        journal.stopped()
    finished = replace(TRIAL, key="f" * 16, run_name="finished")
    shutil.copytree(folder, old / "trials" / finished.key)
    finish(old / "trials" / finished.key)
    tracker(old).sync([TRIAL, finished])
    if kind == "copied":
        shutil.copytree(old, new)
    else:
        old.rename(new)
    before = sorted(old.rglob("*"))
    around = sorted(path.name for path in tmp_path.iterdir())

    finish(new / "trials" / TRIAL.key)
    tracker(new).sync([TRIAL, finished])
    client = MlflowClient(default_uri(new))
    experiment = client.get_experiment_by_name("experiment")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    for address in (experiment.artifact_location, *(run.info.artifact_uri for run in runs)):
        assert Path(unquote(urlsplit(address).path)).is_relative_to(new / "artifacts")
    for run in runs:
        assert (new / "artifacts" / run.info.run_id / "artifacts" / MEASUREMENTS_FILENAME).read_bytes() == b"rows"
        assert client.list_artifacts(run.info.run_id)
    assert sorted(old.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == around


def test_runs_of_another_home_keep_their_artifacts_where_they_are(tmp_path, folder, client):
    other = tmp_path / "other"
    (other / "trials").mkdir(parents=True)
    measure_loss(folder)
    shutil.copytree(folder, other / "trials" / TRIAL.key)
    finish(other / "trials" / TRIAL.key)
    own = replace(TRIAL, key="b" * 16)
    shutil.copytree(folder, tmp_path / "trials" / own.key)
    tracker(tmp_path).sync([own])
    before = only_run(client).info
    Tracker(other, default_uri(tmp_path), "experiment").sync([TRIAL])
    assert client.get_run(before.run_id).info.artifact_uri == before.artifact_uri
    assert forget(tmp_path, [own.key]) == 1
    assert artifacts(client).is_relative_to(other / "artifacts")
    tracker(tmp_path).sync([TRIAL])
    assert artifacts(client).is_relative_to(other / "artifacts")
    assert (artifacts(client) / MEASUREMENTS_FILENAME).exists()


@pytest.mark.parametrize("by_hand", [False, True])
def test_an_experiment_that_was_renamed_is_found(tmp_path, folder, client, by_hand):
    if by_hand:
        client.create_experiment("experiment")
    tracker(tmp_path)
    experiment = client.get_experiment_by_name("experiment").experiment_id
    client.rename_experiment(experiment, "for the paper")
    measure_loss(folder)
    tracker(tmp_path).sync([TRIAL])
    assert only_run(client).info.experiment_id == experiment
    assert client.get_experiment_by_name("experiment") is None
    assert Tracker(tmp_path, None, "another")._experiment_id() != experiment


def test_experiments_and_runs_are_found_among_more_experiments_than_mlflow_returns_at_once(
    tmp_path, folder, client, monkeypatch
):
    search = MlflowClient.search_experiments

    def search_pages_of_one(self, *arguments, **options):
        return search(self, *arguments, **{"max_results": 1, **options})

    measure_loss(folder)
    tracker(tmp_path).sync([TRIAL])
    client.rename_experiment(only_run(client).info.experiment_id, "for the paper")
    monkeypatch.setattr(MlflowClient, "search_experiments", search_pages_of_one)
    newer = Tracker(tmp_path, None, "newer")
    newer.sync([TRIAL])
    assert len(client.search_runs(["1", "2"])) == 1
    assert tracker(tmp_path)._experiment_id() == "1"
    assert forget(tmp_path, [TRIAL.key]) == 1


@pytest.mark.parametrize("renamed", [False, True])
def test_an_experiment_that_was_deleted_is_named_with_what_brings_it_back(tmp_path, folder, client, renamed):
    writer = tracker(tmp_path)
    experiment = client.get_experiment_by_name("experiment").experiment_id
    if renamed:
        client.rename_experiment(experiment, "old")
    client.delete_experiment(experiment)
    measure_loss(folder)
    for write in (lambda: tracker(tmp_path), lambda: writer.sync([TRIAL])):
        with pytest.raises(ExperimentDeletedError) as caught:
            write()
        assert "'experiment' was deleted" in str(caught.value)
        assert f"mlflow experiments restore -x {experiment}" in str(caught.value)
        assert "tracking.experiment" in str(caught.value)
    client.restore_experiment(experiment)
    writer.sync([TRIAL])
    assert history(client, "train/loss") == [(5, 0.5)]


def test_an_experiment_in_use_comes_before_a_deleted_one_of_the_same_first_name(tmp_path, client):
    tracker(tmp_path)
    for name in ("older", "newer"):
        client.create_experiment(name, tags={"splatsweep.experiment": "experiment"})
    for name in ("experiment", "newer"):
        experiment = client.get_experiment_by_name(name).experiment_id
        client.rename_experiment(experiment, f"{name}, for the bin")
        client.delete_experiment(experiment)
    assert tracker(tmp_path)._experiment_id() == client.get_experiment_by_name("older").experiment_id


@pytest.mark.parametrize(("recorded", "moment"), [("17", 17), ("some day", 5_000_000), (None, 5_000_000)])
def test_a_run_without_a_readable_moment_was_created_when_it_started(recorded, moment):
    tags = {} if recorded is None else {"splatsweep.created_ns": recorded}
    assert _created(SimpleNamespace(data=SimpleNamespace(tags=tags), info=SimpleNamespace(start_time=5))) == moment


@pytest.mark.parametrize(
    ("others", "more"), [((), ""), (("b",), ", and 1 more trial"), (("b", "c"), ", and 2 more trials")]
)
def test_refused_trials_are_counted(others, more):
    error = UnrecordedTrialsError({"a": "no such value", **dict.fromkeys(others, "no")})
    assert str(error) == f"MLflow does not take trial 'a': no such value{more}"


def test_a_trial_that_is_refused_stops_no_other(tmp_path, folder, client, monkeypatch):
    measure_loss(folder)
    bad = replace(TRIAL, key="b" * 16, run_name="bad")
    shutil.copytree(folder, tmp_path / "trials" / bad.key)
    log_batch = MlflowClient.log_batch
    writer = tracker(tmp_path)
    writer.sync([TRIAL, bad])
    broken = next(run for run in client.search_runs(["1"]) if run.data.tags["splatsweep.key"] == bad.key).info.run_id

    def refusing(self, run_id, *arguments, **options):
        if run_id == broken:
            raise MlflowException("no such value", BAD_REQUEST)
        return log_batch(self, run_id, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", refusing)
    for key in (bad.key, TRIAL.key):
        with Journal(tmp_path / "trials" / key) as journal:
            journal.metrics(6, {"train/loss": 0.25})
    with pytest.raises(UnrecordedTrialsError, match="'bad': no such value"):
        writer.sync([bad, TRIAL])
    steps = {
        run.data.tags["splatsweep.key"]: len(client.get_metric_history(run.info.run_id, "train/loss"))
        for run in client.search_runs(["1"])
    }
    assert steps == {bad.key: 1, TRIAL.key: 2}
    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    writer.sync([bad, TRIAL])
    assert {len(client.get_metric_history(run.info.run_id, "train/loss")) for run in client.search_runs(["1"])} == {2}


@pytest.mark.parametrize("name", ["samples.npz", "model.safetensors"])
def test_an_artifact_that_is_too_large_is_named_with_what_leaves_it_out(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(2_500_000))
    text = str(ArtifactTooLargeError(tmp_path / name))
    assert f"its artifact {name} (2.5 MB) is too large" in text
    assert ("tracking.models: never" in text) == (name == "model.safetensors")


def test_an_artifact_that_is_too_large_for_a_server_stops_no_other_trial(tmp_path, folder, client, monkeypatch):
    measure_loss(folder)
    finish(folder)
    other = replace(TRIAL, key="b" * 16, run_name="other")
    shutil.copytree(folder, tmp_path / "trials" / other.key)
    (folder / "samples.npz").write_bytes(b"large")
    log_artifact, refusal = MlflowClient.log_artifact, Response()
    refusal.status_code = 413

    def limited(self, run_id, path):
        if path.endswith("samples.npz"):
            raise HTTPError(response=refusal)
        log_artifact(self, run_id, path)

    monkeypatch.setattr(MlflowClient, "log_artifact", limited)
    with pytest.raises(UnrecordedTrialsError, match=r"'baseline': its artifact samples.npz .* is too large"):
        tracker(tmp_path).sync([TRIAL, other])
    states = {run.data.tags["splatsweep.key"]: run.info.status for run in client.search_runs(["1"])}
    assert states == {TRIAL.key: "RUNNING", other.key: "FINISHED"}


def test_an_artifact_that_was_too_large_is_not_sent_every_ten_seconds(tmp_path, folder, client, monkeypatch):
    measure_loss(folder)
    with Journal(folder) as journal:
        journal.failed("out of memory")
    (folder / "samples.npz").write_bytes(b"large")
    sent, refusal = [], Response()
    refusal.status_code = 413

    def limited(_, run_id, path):
        if path.endswith("samples.npz"):
            sent.append(run_id)
            raise HTTPError(response=refusal)

    one = tracker(tmp_path)

    def sync(tracker):
        with pytest.raises(UnrecordedTrialsError, match=r"'baseline': its artifact samples.npz .* is too large"):
            tracker.sync([TRIAL])
        return len(sent)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", limited)
        assert [sync(one), sync(one)] == [1, 1]
        finish(folder)
        assert [sync(one), sync(one), sync(tracker(tmp_path))] == [2, 2, 3]
    tracker(tmp_path).sync([TRIAL])
    assert only_run(client).info.status == "FINISHED"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1, "packages": [], "git": "x"}', "{}"])
def test_a_damaged_environment_costs_its_tags_only(tmp_path, folder, client, content):
    measure_loss(folder)
    (folder / "environment.json").write_text(content)
    finish(folder)
    tracker(tmp_path).sync([TRIAL])
    assert only_run(client).info.status == "FINISHED"
    assert only_run(client).data.tags["splatsweep.data_fingerprint"] == "f00d"


def test_a_trial_that_was_forgotten_gets_a_new_run(tmp_path, folder, client):
    measure_loss(folder)
    finish(folder)
    tracker(tmp_path).sync([TRIAL])
    first = only_run(client).info
    assert forget(tmp_path, [TRIAL.key]) == 1
    tracker(tmp_path).sync([TRIAL])
    assert only_run(client).info.run_id != first.run_id


def test_a_run_whose_status_was_deleted_in_mlflow_is_recorded_anew(tmp_path, folder, client):
    measure_loss(folder)
    finish(folder)
    tracker(tmp_path).sync([TRIAL])
    client.delete_tag(only_run(client).info.run_id, "splatsweep.status")
    tracker(tmp_path).sync([TRIAL])
    assert only_run(client).data.tags["splatsweep.status"] == "finished"
    assert history(client, "train/loss") == [(5, 0.5)]
