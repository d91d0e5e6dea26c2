import errno
import fcntl
import hashlib
import json
import subprocess
import sys

import pytest
from filelock import FileLock

from results.records.journal import Journal
from results.records.trial_folder import read_config, read_environment, read_result, trial_status


def test_status_follows_what_happens(tmp_path):
    assert trial_status(tmp_path) == "pending"
    with Journal(tmp_path) as journal:
        journal.start(0)
        assert trial_status(tmp_path) == "running"
        journal.failed("ValueError: no")
    assert trial_status(tmp_path) == "failed"
    with Journal(tmp_path) as journal:
        journal.start(3)
        assert trial_status(tmp_path) == "running"
        journal.stopped()
    assert trial_status(tmp_path) == "interrupted"


def test_a_trial_whose_owner_died_is_interrupted(tmp_path):
    code = "import sys, os, signal; from pathlib import Path; from results.records.journal import Journal\n"
    code += "Journal(Path(sys.argv[1])).start(0); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert trial_status(tmp_path) == "interrupted"


def test_a_trial_runs_also_after_the_clock_was_set(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "no locks")

    with Journal(tmp_path) as journal:
        journal.start(0)
    path = tmp_path / "journal.jsonl"
    event = json.loads(path.read_text())
    path.write_text(json.dumps(event | {"created": event["created"] - 7200}) + "\n")
    with FileLock(tmp_path / "lock"):
        assert trial_status(tmp_path) == "running"
        with monkeypatch.context() as without_locks:
            without_locks.setattr(fcntl, "flock", unsupported)
            assert trial_status(tmp_path) == "interrupted"
    assert trial_status(tmp_path) == "interrupted"


def test_a_trial_of_another_machine_runs_until_it_says_otherwise(tmp_path):
    with Journal(tmp_path) as journal:
        journal.start(0)
    path = tmp_path / "journal.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "elsewhere", "created": 0.0}) + "\n")
    assert trial_status(tmp_path) == "running"


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_result_counts_only_with_the_measurements_it_was_made_from(tmp_path, damage):
    measurements = tmp_path / "per_object.parquet"
    measurements.write_bytes(b"numbers")
    sha256 = hashlib.sha256(b"numbers").hexdigest()
    (tmp_path / "result.json").write_text(json.dumps({"per_object_sha256": sha256, "metrics": {}}))
    assert read_result(tmp_path) is not None
    assert trial_status(tmp_path) == "finished"
    if damage == "changed":
        measurements.write_bytes(b"other numbers")
    else:
        measurements.unlink()
    assert read_result(tmp_path) is None
    assert trial_status(tmp_path) == "pending"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"per_object_sha256": 7, "metrics": {}}',
        b'{"per_object_sha256": "%s"}',
        b'{"per_object_sha256": "%s", "metrics": []}',
        b'{"per_object_sha256": "%s", "metrics": {"novel/psnr": "high"}}',
    ],
)
def test_a_damaged_result_is_named_and_counts_as_none(tmp_path, caplog, content):
    (tmp_path / "per_object.parquet").write_bytes(b"numbers")
    (tmp_path / "result.json").write_bytes(content.replace(b"%s", hashlib.sha256(b"numbers").hexdigest().encode()))
    with Journal(tmp_path) as journal:
        journal.start(0)
        journal.stopped()
    assert read_result(tmp_path) is None
    assert trial_status(tmp_path) == "interrupted"
    [warning] = {record.getMessage() for record in caplog.records}
    assert str(tmp_path / "result.json") in warning
    assert "counts as not finished" in warning


@pytest.mark.parametrize("content", ["", "{", "[]"])
@pytest.mark.parametrize(("name", "read"), [("config.json", read_config), ("environment.json", read_environment)])
def test_a_damaged_file_beside_the_result_is_named_and_counts_as_absent(tmp_path, caplog, name, read, content):
    assert read(tmp_path) is None
    assert not caplog.records
    (tmp_path / name).write_text(content)
    assert read(tmp_path) is None
    assert str(tmp_path / name) in caplog.text
    (tmp_path / name).write_text('{"seed": 1}')
    assert read(tmp_path) == {"seed": 1}


def test_a_file_where_a_trial_should_be_is_a_trial_that_has_not_begun(tmp_path):
    (tmp_path / "key").write_text("")
    assert trial_status(tmp_path / "key") == "pending"
    assert read_config(tmp_path / "key") is None


@pytest.mark.parametrize("train", [None, "x", [1], -1.5])
def test_a_configuration_with_a_section_of_another_kind_is_passed_over(tmp_path, caplog, train):
    (tmp_path / "config.json").write_text(json.dumps({"data": {"name": "chairs"}, "train": train, "seed": 1}))
    assert read_config(tmp_path) is None
    assert "config.json cannot be used: 'train' is" in caplog.text
    (tmp_path / "config.json").write_text(json.dumps({"data": {"name": "chairs"}, "seed": 1}))
    assert read_config(tmp_path) == {"data": {"name": "chairs"}, "seed": 1}
