import errno
import json
import pathlib
import shutil

import pytest

from results.records import journal, monitor
from results.records.journal import Journal
from results.records.monitor import Monitor, TrialProgress
from results.records.trial_folder import read_result
from tests.homes import write_result

KEY = "0123456789abcdef"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "trials" / KEY


def test_what_a_trial_does_is_followed_from_its_first_event_to_its_result(tmp_path, folder):
    here = Monitor(tmp_path)
    assert here.look(KEY) == TrialProgress()
    with Journal(folder) as trial:
        trial.start(0)
        assert here.look(KEY).status == "running"
        trial.metrics(10, {"train/loss": 2.0})
        trial.metrics(20, {"train/loss": 1.0, "val/psnr": 20.0})
        seen = here.look(KEY)
        trial.metrics(30, {"val/psnr": 21.0})
        early, seen = seen, here.look(KEY)
        assert (early.step, early.validation) == (20, {"val/psnr": {20: 20.0}})
        assert (seen.step, seen.metrics) == (30, {"train/loss": 1.0, "val/psnr": 21.0})
        assert seen.validation == {"val/psnr": {20: 20.0, 30: 21.0}}
        assert seen.rate > 0
        assert seen.evaluation_s is None
        trial.metrics(30, {"novel/psnr": 22.0})
        assert here.look(KEY).evaluation_s >= 0
    write_result(folder, metrics={"novel/psnr": 22.0})
    seen = here.look(KEY)
    assert (seen.status, seen.step, seen.metrics["novel/psnr"]) == ("finished", 30, 22.0)
    assert seen.result["metrics"] == {"novel/psnr": 22.0}


def test_an_evaluation_takes_no_negative_time_where_the_clock_is_set_back(tmp_path, folder, monkeypatch):
    with Journal(folder) as trial:
        for moment, values in ((7200.0, {"train/loss": 1.0}), (60.0, {"novel/psnr": 22.0})):
            monkeypatch.setattr(journal.time, "time", lambda moment=moment: moment)
            trial.metrics(10, values)
    assert Monitor(tmp_path).look(KEY).evaluation_s == 0


def test_rate_and_times_are_those_of_the_process_that_trained(tmp_path, folder, monkeypatch):
    moments = [100.0, 110.0, 140.0, 200.0, 190.0, 205.0, 220.0]
    monkeypatch.setattr(journal.time, "time", iter(moments).__next__)
    with Journal(folder) as trial:
        trial.start(0)
        trial.metrics(10, {"train/loss": 1.0})
        trial.metrics(10, {"novel/psnr": 22.0})
        seen = Monitor(tmp_path).look(KEY)
        assert (seen.first, seen.newest, seen.rate, seen.evaluation_s) == (100.0, 140.0, 1.0, 30.0)
        trial.start(0)  # it waits for another trial's training, and then repeats what that one measured
        trial.metrics(20, {"train/loss": 1.0})
        trial.start(20)
        trial.metrics(20, {"novel/psnr": 22.0})
        seen = Monitor(tmp_path).look(KEY)
        assert (seen.rate, seen.evaluation_s) == (1.0, 15.0)


def test_a_trial_that_was_removed_and_begun_anew_is_read_from_its_start(tmp_path, folder):
    here = Monitor(tmp_path)
    for losses in (["a", "b"], ["c", "d"]):
        with Journal(folder) as trial:
            trial.start(0)
            for step, loss in enumerate(losses):
                trial.metrics(step, {f"train/{loss}": 1.0})
                assert list(here.look(KEY).metrics) == [f"train/{name}" for name in losses[: step + 1]]
        shutil.rmtree(folder)


def test_a_trial_that_ends_while_it_is_read_has_its_last_metrics(tmp_path, folder, monkeypatch):
    here = Monitor(tmp_path)
    with Journal(folder) as trial:
        trial.start(0)

        def end_and_read(folder):
            trial.metrics(30, {"novel/psnr": 22.0})
            write_result(folder, metrics={"novel/psnr": 22.0})
            return read_result(folder)

        monkeypatch.setattr(monitor, "read_result", end_and_read)
        assert (here.look(KEY).status, here.look(KEY).step) == ("finished", 30)


@pytest.mark.parametrize(("end", "status"), [("failed", "failed"), ("pruned", "pruned"), ("stopped", "interrupted")])
def test_a_trial_that_is_taken_up_again_is_seen_again(tmp_path, folder, end, status):
    here = Monitor(tmp_path)
    with Journal(folder) as trial:
        trial.start(0)
        getattr(trial, end)("why")
        assert (here.look(KEY).status, here.look(KEY).error) == (status, "why")
        trial.start(5)
        assert (here.look(KEY).status, here.look(KEY).error, here.look(KEY).step) == ("running", None, 5)


def test_a_finished_trial_is_read_once_and_of_others_only_what_is_new(tmp_path, folder, monkeypatch):
    with Journal(folder) as trial:
        trial.start(0)
        for step in range(1000):
            trial.metrics(step, {"train/loss": 1.0})
        here = Monitor(tmp_path)
        here.look(KEY)
        parsed = []
        monkeypatch.setattr(
            journal.json, "loads", lambda text: parsed.append(text) or json.JSONDecoder().decode(text.decode())
        )
        assert here.look(KEY).status == "running"
        assert parsed == []
        trial.metrics(1000, {"train/loss": 1.0})
        assert here.look(KEY).step == 1000
        assert len(parsed) == 1
    monkeypatch.undo()
    write_result(folder)
    assert here.look(KEY).status == "finished"

    def not_again(_):
        raise AssertionError("a finished trial is read again")

    monkeypatch.setattr(monitor, "read_result", not_again)
    monkeypatch.setattr(monitor.Path, "stat", not_again)
    assert here.look(KEY).status == "finished"


def test_an_invalid_result_is_read_again_once_it_was_written_again(tmp_path, folder):
    here = Monitor(tmp_path)
    with Journal(folder) as trial:
        trial.start(0)
        (folder / "result.json").write_text("{")
        assert here.look(KEY).status == "running"
    write_result(folder)
    assert here.look(KEY).status == "finished"


@pytest.mark.parametrize("unread", ["journal.jsonl", "per_object.parquet"])
def test_storage_that_fails_for_a_moment_changes_no_state(tmp_path, folder, monkeypatch, unread):
    here, read = Monitor(tmp_path), pathlib.Path.open

    def fail(path, *arguments, **options):
        if path.name == unread:
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return read(path, *arguments, **options)

    with Journal(folder) as trial:
        trial.start(0)
        trial.metrics(10, {"train/loss": 2.0})
        assert here.look(KEY).step == 10
        trial.metrics(20, {"train/loss": 1.0})
        write_result(folder)
        with monkeypatch.context() as failing:
            failing.setattr(pathlib.Path, "open", fail)
            assert here.look(KEY).status == "running"
    assert (here.look(KEY).status, here.look(KEY).step) == ("finished", 20)
    if unread == "journal.jsonl":
        monkeypatch.setattr(pathlib.Path, "open", fail)
        with pytest.raises(OSError, match="Stale"):  # nothing is known of it
            Monitor(tmp_path).look(KEY)


def test_several_are_looked_at_and_what_is_no_trial_is_left_alone(tmp_path, folder):
    with Journal(folder) as trial:
        trial.start(0)
    (folder.parent / "notes.txt").write_text("mine")
    (folder.parent / "empty").mkdir()
    found = Monitor(tmp_path).look_at([KEY, "other", "empty", "notes.txt"])
    assert {key: seen.status for key, seen in found.items()} == {
        KEY: "running",
        "other": "pending",
        "empty": "pending",
        "notes.txt": "pending",
    }


def test_a_home_without_trials_has_only_pending_ones(tmp_path):
    assert Monitor(tmp_path / "nowhere").look_at([KEY]) == {KEY: TrialProgress()}
