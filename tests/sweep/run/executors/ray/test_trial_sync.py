"""A trial's folder on a node that does not see the home is always consistent with the one under the home."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock, Timeout

from jobs.config import TrialConfig
from results.records.journal import Journal, read_events
from results.records.trial_folder import PRUNE_FILENAME, read_result, trial_status
from sweep.run.executors.ray import trial_sync
from sweep.run.executors.ray.file_server import TrialFileServer, TrialMovedError
from sweep.run.executors.ray.trial_sync import TrialSync
from sweep.run.executors.ray.worker_deaths import DeadTrials
from sweep.run.stop import request_prune, withdraw_prune
from tests.homes import write_result
from tests.processes import wait_for
from tests.sweep.run.executors.ray.two_homes import (
    KEY,
    TRAINING,
    caller,
    checkpoints,
    contents,
    end_training,
    train,
    training_in,
    trial_in,
)


def test_files_of_a_trial_arrive_and_the_next_worker_resumes_from_them(there, file_server, scratch):
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        train(scratch, 0, 5)
        made = contents(scratch)
    assert contents(there) == made
    assert not contents(scratch)
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        assert contents(scratch) == made
        assert checkpoints(scratch).latest().step == 4
        train(scratch, 4, 9)
        made = contents(scratch)
    assert contents(there) == made
    assert {path.stem for path in (training_in(there) / "checkpoints").iterdir()} == {"000000006", "000000008"}
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        end_training(scratch)
        write_result(trial_in(scratch), b"measured" * 40)
        made = contents(scratch)
    assert contents(there) == made
    assert not any("checkpoints" in name for name in made)
    assert trial_status(trial_in(there)) == "finished"


def test_files_that_arrive_in_the_home_of_a_group_can_be_written_by_it(there, scratch):
    there.chmod(0o2775)
    before = os.umask(0o022)  # of `ray start`
    try:
        file_server = TrialFileServer(str(there), str(there / "stop"))
        with TrialSync(caller(file_server), KEY, TRAINING, scratch):
            train(scratch, 0, 5)
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode for path in (there / "trials").rglob("*")}
    assert modes
    assert all(mode & 0o020 for mode in modes.values()), modes


def test_a_training_has_one_worker_at_a_time(there, file_server, scratch, monkeypatch):
    monkeypatch.setattr(trial_sync, "INTERVAL_S", 0.01)
    other = "another trial of the same training"
    with TrialSync(caller(file_server), KEY, TRAINING, scratch) as sync, FileLock(training_in(scratch) / "lock"):
        train(scratch, 0, 2)
        sync.send()  # without the lock of its own
        assert file_server.take_over(other, TRAINING, "worker") is None
        with FileLock(there / "trials" / other / "lock", timeout=0):  # another sweep may run it meanwhile
            pass
        assert file_server.take_over("a control", None, "worker") == []
        with pytest.raises(Timeout):  # trials that see the home are kept from it too
            FileLock(training_in(there) / "lock").acquire(timeout=0)
    assert f"trainings/{TRAINING}/journal.jsonl" in file_server.take_over(other, TRAINING, "worker")
    request_prune(trial_in(there), "worse than the median")
    (there / "stop").write_text("enough")
    with TrialSync(caller(file_server), KEY, TRAINING, scratch) as sync:  # waits, until there is no sense in it
        assert sync.stop_file.exists()
        assert not contents(scratch)
        assert not sync._thread.is_alive()
    assert not sync.stop_file.exists()


def test_a_trial_waits_for_its_training_in_the_scratch_home_of_the_trial_that_leaves_it(
    there, file_server, scratch, monkeypatch
):
    """The first deletes its folders, and nothing that the second has fetched to the same place."""
    monkeypatch.setattr(trial_sync, "INTERVAL_S", 0.01)
    send, fetched = caller(file_server), []
    first = TrialSync(send, "another", TRAINING, scratch).__enter__()
    train(scratch, 0, 2)

    def call(method: str, *values: Any) -> Any:
        if method == "take_over":
            fetched.append(send(method, *values))
            if fetched == [None]:
                first.__exit__(None, None, None)
                assert not (scratch / "trials" / "another").exists()
            return fetched[-1]
        return send(method, *values)

    with TrialSync(call, KEY, TRAINING, scratch) as sync:
        assert checkpoints(scratch).latest().step == 2
        train(scratch, 2, 4)
    assert len(fetched) == 2
    assert checkpoints(there).latest().step == 4
    assert not sync.stop_file.exists()


def test_a_trial_that_comes_as_another_leaves_keeps_what_it_fetched(file_server, scratch):
    send = caller(file_server)
    second = TrialSync(send, KEY, TRAINING, scratch)

    def call(method: str, *values: Any) -> Any:
        found = send(method, *values)
        if method == "leave":
            second.__enter__()
        return found

    with TrialSync(call, "another", TRAINING, scratch):
        train(scratch, 0, 2)
    assert checkpoints(scratch).latest().step == 2
    second.__exit__(None, None, None)
    assert not contents(scratch)


def test_a_trial_without_training_has_its_own_folder_alone(there, file_server, scratch):
    with TrialSync(caller(file_server), KEY, None, scratch) as sync:
        sync.continue_training(TrialConfig(), "fingerprint", {})
        write_result(trial_in(scratch))
        assert not (scratch / "trainings").exists()
    assert trial_status(trial_in(there)) == "finished"


def test_a_trial_that_another_sweep_runs_is_waited_for_and_not_run_again(there, file_server, scratch):
    trial_in(there).mkdir(parents=True)
    with FileLock(trial_in(there) / "lock"):
        assert file_server.take_over(KEY, TRAINING, "worker") is None
        with FileLock(training_in(there) / "lock", timeout=0):  # which the other sweep needs
            train(there, 0, 5)
            end_training(there)
            write_result(trial_in(there))
    made = contents(there)
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        assert read_result(trial_in(scratch)) == read_result(trial_in(there))
    assert contents(there) == made


def test_a_training_is_free_when_the_worker_that_ran_it_died(there, file_server, scratch):
    """Else the trial that waits for it would keep the CPUs that a restart of the dead one needs."""
    sync = TrialSync(caller(file_server), KEY, TRAINING, scratch).__enter__()
    train(scratch, 0, 2)
    with Journal(trial_in(scratch)) as journal:
        journal.start(2)
    sync.send()
    assert file_server.take_over("another", TRAINING, "worker") is None
    dead = SimpleNamespace(config={"point": {"key": KEY}})
    DeadTrials(there, 2, None, file_server.release).on_trial_recover(0, [], dead)
    assert file_server.take_over("another", TRAINING, "worker") is not None
    train(scratch, 2, 4)
    with pytest.raises(TrialMovedError):  # it was alive, behind a broken connection
        sync.send()
    assert file_server.take_over(KEY, TRAINING, "its next worker") is None


def test_a_file_server_that_was_restarted_takes_the_locks_of_those_who_write_again(there, file_server, scratch):
    servers = [file_server]
    sync = TrialSync(lambda *call: caller(servers[-1])(*call), KEY, TRAINING, scratch).__enter__()
    file_server._let_go(KEY)  # its process has ended
    servers.append(TrialFileServer(str(there), str(there / "stop")))
    train(scratch, 0, 2)
    sync.send()
    assert servers[-1].take_over("another", TRAINING, "its worker") is None
    servers[-1]._let_go(KEY)
    servers.append(TrialFileServer(str(there), str(there / "stop")))
    assert servers[-1].take_over("another", TRAINING, "its worker") is not None
    train(scratch, 2, 4)
    with pytest.raises(TrialMovedError):
        sync.send()
    assert checkpoints(there).latest().step == 2, "the training is the other trial's"


@pytest.mark.parametrize("ends", [False, True])
def test_wherever_the_connection_breaks_the_home_is_sound(there, scratch, ends):
    for allowed in range(200):
        home = there / str(allowed)
        train(home, 0, 2)
        try:
            with TrialSync(caller(TrialFileServer(str(home), str(home / "stop")), allowed), KEY, TRAINING, scratch):
                train(scratch, 2, 6)
                if ends:
                    end_training(scratch)
                write_result(trial_in(scratch), b"measured" * 40)
            break
        except ConnectionError:
            assert not contents(scratch), "it would stay for ever"
            is_trained = (training_in(home) / "training.json").exists()
            assert not is_trained or (training_in(home) / "weights.safetensors").exists()
            saved = checkpoints(home).latest()
            reached = saved.step if saved is not None else 6 * is_trained
            assert reached > 0
            for folder in (trial_in(home), training_in(home)):
                recorded = {event["step"] for event in read_events(folder) if event["event"] == "metrics"}
                assert recorded >= set(range(1, reached + 1))
            assert read_result(trial_in(home)) is None or is_trained or reached == 6
    else:
        pytest.fail("it never got through")
    assert allowed > 20
    assert read_result(trial_in(home)) is not None
    assert (training_in(home) / "weights.safetensors").exists() if ends else checkpoints(home).latest().step == 6


def test_checkpoints_that_are_replaced_while_they_are_sent_arrive(there, file_server, scratch):
    """Else a node with a slow connection would delete the home's checkpoint and not send another."""
    calls, send = [], caller(file_server)

    def call(method: str, *values: Any) -> Any:
        calls.append(method)
        if calls.count("replace") == 1:
            train(scratch, 4, 8)
        return send(method, *values)

    with TrialSync(call, KEY, TRAINING, scratch) as sync:
        train(scratch, 0, 4)
        sync.send()
        assert checkpoints(there).latest().step == 4
    assert checkpoints(there).latest().step == 8


def test_a_file_that_vanishes_before_it_is_sent_is_left_out(there, file_server, scratch, monkeypatch):
    with TrialSync(caller(file_server), KEY, TRAINING, scratch) as sync:
        train(scratch, 0, 2)
        growing, whole = sync._files()
        vanished = f"trainings/{TRAINING}/checkpoints/000000001.safetensors"
        monkeypatch.setattr(sync, "_files", lambda: (growing, [vanished, *whole]))
        sync.send()
        assert contents(there) == contents(scratch)


def test_files_that_another_worker_left_in_the_scratch_home_are_not_those_of_the_trial(there, file_server, scratch):
    """A sweep with that home, or a worker whose last transfer broke while this one waited."""
    train(there, 0, 2)
    for name in ("checkpoints/000000009.safetensors", "weights.safetensors"):
        path = training_in(scratch) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"another's")
    before = contents(there)
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        assert contents(scratch) == before
    assert contents(there) == before


def test_nothing_is_sent_twice_nor_is_a_checkpoint_deleted_before_the_next_is_there(there, file_server, scratch):
    """A worker may look between the two."""
    sent, send = [], caller(file_server)

    def call(method: str, *values: Any) -> Any:
        if method in ("extend", "replace"):
            sent.append(values)
        return send(method, *values)

    train(there, 0, 2)
    with TrialSync(call, KEY, TRAINING, scratch) as sync:
        sync.send()
        assert not sent, "it came from there"
        train(scratch, 2, 4)
        sync.send()
        train(scratch, 4, 5)
        sync.send()
        places = [(Path(name), offset) for _, _, name, offset, *_ in sent]
        assert len(set(places)) == len(places)
        assert all(offset > 0 for path, offset in places if path.name == "journal.jsonl")
        sent.clear()
        shutil.rmtree(training_in(scratch) / "checkpoints")
        sync.send()
        assert not sent
    assert checkpoints(there).latest().step == 4


def test_a_file_that_is_replaced_by_one_of_the_same_length_is_sent(there, file_server, scratch):
    with TrialSync(caller(file_server), KEY, TRAINING, scratch) as sync:
        for content in (b"old", b"new"):
            (trial_in(scratch) / "samples.npz").write_bytes(content)
            sync.send()
            assert (trial_in(there) / "samples.npz").read_bytes() == content


def test_line_that_was_cut_short_in_the_home_is_written_anew(there, file_server, scratch):
    theirs = trial_in(there)
    train(there, 0, 1)
    with (theirs / "journal.jsonl").open("a") as stream:
        stream.write(f'{{"event": "metr{"x" * 1000}')
    for ending in ("incoming", "1.partial"):
        (training_in(there) / f"weights.safetensors.{ending}").write_bytes(b"x" * 1000)
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        assert not any("weights" in name for name in contents(scratch)), "left by killed writers"
        train(scratch, 1, 2)
        end_training(scratch)
        made = contents(scratch)
        (training_in(scratch) / "weights.safetensors.2.partial").touch()
    assert [event["event"] for event in read_events(theirs)] == ["start", "metrics", "start", "metrics"]
    del (found := contents(there))[f"trainings/{TRAINING}/weights.safetensors.1.partial"]
    assert found == made


def test_worker_whose_trial_moved_writes_nothing_more_and_stops(there, file_server, scratch, monkeypatch):
    monkeypatch.setattr(trial_sync, "INTERVAL_S", 0.01)
    sync = TrialSync(caller(file_server), KEY, TRAINING, scratch).__enter__()
    file_server.take_over(KEY, TRAINING, "another")
    train(scratch, 0, 3)
    sync._thread.join(10)
    assert sync.stop_file.exists()
    assert not (there / "stop").exists(), "the sweep goes on"
    with pytest.raises(TrialMovedError):
        sync.__exit__(None, None, None)
    assert not (there / "stop").exists(), "nor is this worker's stop the sweep's when it ends"
    assert not contents(there)


def test_a_worker_whose_trial_moved_changes_nothing(there, file_server):
    train(there, 0, 2)
    file_server.take_over(KEY, TRAINING, "a worker")
    file_server.take_over(KEY, TRAINING, "the next one")
    before = contents(there)
    file_server.leave(KEY, "a worker")
    assert file_server.take_over("another", TRAINING, "its worker") is None
    for method, *values in (
        ("keep_checkpoints", KEY, TRAINING, "a worker", []),
        ("continue_training", KEY, TRAINING, "a worker", {}, "fingerprint", {}),
    ):
        with pytest.raises(TrialMovedError):
            getattr(file_server, method)(*values)
    assert contents(there) == before


def test_a_worker_that_was_taken_for_dead_takes_nothing_back(there, file_server):
    """Its trial has failed, say, and others wait for the training."""
    file_server.take_over(KEY, TRAINING, "a worker")
    file_server.release(KEY)
    with pytest.raises(TrialMovedError):
        file_server.extend(KEY, "a worker", f"trials/{KEY}/journal.jsonl", 0, b"{}")
    with FileLock(training_in(there) / "lock", timeout=0):
        pass


def test_a_file_server_that_was_restarted_accepts_the_first_worker_of_a_trial_alone(there, file_server):
    file_server.extend(KEY, "a worker", f"trials/{KEY}/log.txt", 0, b"a line\n")
    with pytest.raises(TrialMovedError):
        file_server.extend(KEY, "an earlier one", f"trials/{KEY}/log.txt", 0, b"")
    assert (trial_in(there) / "log.txt").read_bytes() == b"a line\n"


def test_stop_is_passed_on_both_ways(there, file_server, scratch, monkeypatch):
    monkeypatch.setattr(trial_sync, "INTERVAL_S", 0.01)
    with TrialSync(caller(file_server), KEY, TRAINING, scratch) as sync:
        assert not sync.stop_file.exists()
        (there / "stop").write_text("enough")
        wait_for(sync.stop_file.exists, "a stop")
        assert sync.stop_file.read_text() == "enough"
    (there / "stop").unlink()
    with TrialSync(caller(file_server), KEY, TRAINING, scratch) as sync:
        sync.stop_file.touch()  # it is being written
        sync._pass_on_stop()
        assert not (there / "stop").exists()
        sync.stop_file.write_text("no room")
    file_server.ask_to_stop("too late")
    assert (there / "stop").read_text() == "no room"


def test_prune_requests_reach_the_worker_and_are_not_sent_back(there, file_server, scratch, monkeypatch):
    monkeypatch.setattr(trial_sync, "INTERVAL_S", 0.01)
    mine, theirs = scratch / "trials" / KEY, there / "trials" / KEY
    theirs.mkdir(parents=True)
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        request_prune(theirs, "worse than the median")
        wait_for((mine / PRUNE_FILENAME).exists, "the wish")
        assert (mine / PRUNE_FILENAME).read_text() == "worse than the median"
        withdraw_prune(theirs)
    assert not (theirs / PRUNE_FILENAME).exists()


def test_a_prune_request_before_the_start_reaches_the_worker(there, file_server, scratch):
    (there / "trials" / KEY).mkdir(parents=True)
    request_prune(there / "trials" / KEY, "worse than the median")
    with TrialSync(caller(file_server), KEY, TRAINING, scratch):
        assert (scratch / "trials" / KEY / PRUNE_FILENAME).read_text() == "worse than the median"


def test_full_disk_under_the_home_stops_the_trial_and_loses_nothing(there, file_server, scratch, monkeypatch):
    monkeypatch.setattr(trial_sync, "INTERVAL_S", 0.01)
    opened = os.open

    def full(path: Path | str, *options: int) -> int:
        if Path(path).is_relative_to(trial_in(there)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *options)

    with TrialSync(caller(file_server), KEY, TRAINING, scratch) as sync:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", full)
            train(scratch, 0, 4)
            wait_for(sync.stop_file.exists, "a stop")
        assert json.loads((there / "stop").read_text())["cause"] == "disk"
        made = contents(scratch)
    assert contents(there) == made
